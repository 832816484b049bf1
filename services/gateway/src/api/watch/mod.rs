//! Watch: what happens, as it happens, to whoever listens; resumable by cursor without gap or repetition.

mod cursor;
mod filter;
mod hub;

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, Stream, StreamExt, unfold};
use sightline_bus::{Bus, BusError, Received, Start, StreamName};
use sightline_proto::ids::Kind as IdKind;
use sightline_proto::internal::{IndexRecord, Observation, RtStreamRecord};
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::v1::watch_request::Kind;
use sightline_proto::v1::watch_response::Message;
use sightline_proto::v1::{Lagged, Ready, WatchRequest, WatchResponse};
use sightline_service::{Shutdown, chain};

use self::filter::{Filter, Happening};
pub(crate) use self::hub::Hub;
use self::hub::{Subscription, Taken};
use super::violations::{Violations, refused};
use super::{Session, bus_failed};
use crate::metrics::WatcherGuard;

/// Every observation.
const OBSERVATIONS: &str = "obs.>";
/// Ids that one watch may name of each sort.
const MAX_IDS: usize = 100;
/// A watcher that catches up joins the live feed from this many messages behind it: well within its buffer there.
const NEAR: u64 = 64;
/// How often the bus may fail in a row while a watcher catches up, and the pause in between.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

type Past = BoxStream<'static, Result<Received<Observation>, BusError>>;

impl Session {
    /// Opens a watch. The stream ends with an error alone: at shutdown, or when the bus is lost while catching up.
    pub(crate) async fn watch(
        self,
        request: WatchRequest,
    ) -> Result<impl Stream<Item = Result<WatchResponse, ApiError>> + Send + 'static, ApiError>
    {
        let filter = self.filter(&request).await?;
        let (last, feed) = match request.cursor.as_str() {
            "" => {
                let (live, position) = self.hub.subscribe(filter.clone());
                (position, Feed::Live(live))
            }
            cursor => {
                let sequence = self.place(cursor).await?;
                (sequence, Feed::behind())
            }
        };
        let watch = Watch {
            bus: self.bus.clone(),
            hub: Arc::clone(&self.hub),
            shutdown: self.shutdown.clone(),
            filter,
            feed,
            last,
            outbox: VecDeque::from([response(last, Message::Ready(Ready {}))]),
            _counted: self.metrics.watcher_came(),
        };
        Ok(unfold(Some(watch), |watch| async {
            let mut watch = watch?;
            match watch.next().await {
                Ok(response) => Some((Ok(response), Some(watch))),
                Err(error) => Some((Err(error), None)),
            }
        }))
    }

    async fn filter(&self, request: &WatchRequest) -> Result<Filter, ApiError> {
        let mut faults = Violations::default();
        let mut kinds = Vec::new();
        for &kind in &request.kinds {
            match Kind::try_from(kind) {
                Ok(kind) if kind != Kind::Unspecified => kinds.push(kind),
                _ => faults.add("kinds", format!("known kinds, got {kind}")),
            }
        }
        for (field, ids) in [
            ("rtstream_ids", &request.rtstream_ids),
            ("index_ids", &request.index_ids),
        ] {
            if ids.len() > MAX_IDS {
                faults.add(field, format!("at most {MAX_IDS}, got {}", ids.len()));
            }
        }
        faults.into_result()?;
        for id in &request.rtstream_ids {
            self.find::<RtStreamRecord>(IdKind::RtStream, "rtstream_ids", id)
                .await?;
        }
        for id in &request.index_ids {
            self.find::<IndexRecord>(IdKind::Index, "index_ids", id)
                .await?;
        }
        Ok(Filter {
            rtstream_ids: request.rtstream_ids.clone(),
            index_ids: request.index_ids.clone(),
            kinds,
        })
    }

    /// The sequence that a cursor stands for.
    async fn place(&self, cursor: &str) -> Result<u64, ApiError> {
        let invalid = |allowed: &str| refused(Reason::CursorInvalid, "cursor", allowed);
        let sequence = cursor::decode(cursor)
            .ok_or_else(|| invalid("the cursor of a message that Watch sent, or empty"))?;
        let newest = self
            .bus
            .last_sequence(StreamName::Observations)
            .await
            .map_err(bus_failed)?;
        if sequence > newest {
            let allowed = "a cursor of this server; this one is ahead of everything here, so it \
                           comes from another server or from before its data were deleted";
            return Err(invalid(allowed));
        }
        Ok(sequence)
    }
}

fn response(sequence: u64, message: Message) -> WatchResponse {
    WatchResponse {
        cursor: cursor::encode(sequence),
        message: Some(message),
    }
}

/// Where a watch takes its messages from.
enum Feed {
    /// From the bus, by a follower of its own. Near the present it subscribes to the hub too, and changes over once its
    /// follower has passed the position at which the hub took it up: nothing is missed and nothing comes twice.
    Behind {
        past: Option<Past>,
        joining: Option<(Subscription, u64)>,
        failures: u32,
    },
    /// From the hub.
    Live(Subscription),
}

impl Feed {
    fn behind() -> Self {
        Feed::Behind {
            past: None,
            joining: None,
            failures: 0,
        }
    }
}

/// One open watch.
struct Watch {
    bus: Bus,
    hub: Arc<Hub>,
    shutdown: Shutdown,
    filter: Filter,
    feed: Feed,
    /// Sequence of the last message that was sent or passed over.
    last: u64,
    /// What goes out next: at most two messages.
    outbox: VecDeque<WatchResponse>,
    _counted: WatcherGuard,
}

impl Watch {
    async fn next(&mut self) -> Result<WatchResponse, ApiError> {
        let shutdown = self.shutdown.clone();
        loop {
            if let Some(response) = self.outbox.pop_front() {
                return Ok(response);
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Err(shutting_down()),
                advanced = self.advance() => advanced?,
            }
        }
    }

    /// Takes one step; what there is to send goes to the outbox. Safe to drop while it waits.
    async fn advance(&mut self) -> Result<(), ApiError> {
        match &mut self.feed {
            Feed::Live(live) => {
                let taken = live.take().await;
                self.take_live(taken)
            }
            Feed::Behind { .. } => self.catch_up().await,
        }
    }

    fn take_live(&mut self, taken: Taken) -> Result<(), ApiError> {
        match taken {
            Taken::Closed => return Err(shutting_down()),
            Taken::Dropped(count) => self.say_lagged(self.last, count),
            // The follower has sent it before the watch changed over to the hub.
            Taken::One(delivered) if delivered.happening.sequence <= self.last => {}
            Taken::One(delivered) => {
                if delivered.dropped > 0 {
                    self.say_lagged(self.last, delivered.dropped);
                }
                self.send(&delivered.happening);
            }
        }
        Ok(())
    }

    /// `place` is where going on brings back what can be had of the gap: before it when the watcher was slow, after it when
    /// it has expired.
    fn say_lagged(&mut self, place: u64, count: u64) {
        let lagged = response(place, Message::Lagged(Lagged { count }));
        self.outbox.push_back(lagged);
    }

    fn send(&mut self, happening: &Happening) {
        self.last = happening.sequence;
        if self.filter.passes(happening) {
            let message = response(happening.sequence, happening.message.clone());
            self.outbox.push_back(message);
        }
    }

    async fn catch_up(&mut self) -> Result<(), ApiError> {
        if self.join_if_near() {
            return Ok(());
        }
        let Feed::Behind { past, failures, .. } = &mut self.feed else {
            return Ok(());
        };
        if past.is_none() {
            let start = Start::After(self.last);
            match self
                .bus
                .tail::<Observation>(StreamName::Observations, OBSERVATIONS, start)
                .await
            {
                Ok(tail) => *past = Some(tail.boxed()),
                Err(error) => return self.retry(error).await,
            }
        }
        let Some(tail) = past.as_mut() else {
            return Ok(());
        };
        match tail.next().await {
            Some(Ok(received)) => {
                *failures = 0;
                self.take_past(&received);
                Ok(())
            }
            Some(Err(error)) => self.retry(error).await,
            None => {
                *past = None;
                Ok(())
            }
        }
    }

    /// Subscribes to the hub once it is near, and changes over once nothing lies between. Whether it changed over.
    fn join_if_near(&mut self) -> bool {
        let Feed::Behind { joining, .. } = &mut self.feed else {
            return true;
        };
        if joining.is_none() && self.hub.position().saturating_sub(self.last) <= NEAR {
            *joining = Some(self.hub.subscribe(self.filter.clone()));
        }
        if let Some((live, _)) = joining.take_if(|(_, position)| self.last >= *position) {
            self.feed = Feed::Live(live);
            return true;
        }
        false
    }

    fn take_past(&mut self, received: &Received<Observation>) {
        let sequence = received.sequence;
        if sequence <= self.last {
            return;
        }
        // Sequences have no holes but where retention removed the oldest.
        let expired = sequence - self.last - 1;
        if expired > 0 {
            self.say_lagged(sequence - 1, expired);
        }
        self.last = sequence;
        if let Some(happening) = self.hub.happening(sequence, &received.message) {
            self.send(&happening);
        }
    }

    async fn retry(&mut self, error: BusError) -> Result<(), ApiError> {
        let Feed::Behind { past, failures, .. } = &mut self.feed else {
            return Ok(());
        };
        *past = None;
        *failures += 1;
        if *failures >= ATTEMPTS {
            tracing::warn!(error = chain(&error), "a watcher could not catch up");
            let message = "the bus does not answer; reconnect with the last cursor";
            return Err(ApiError::new(Reason::Unavailable, message));
        }
        tokio::time::sleep(PAUSE).await;
        Ok(())
    }
}

fn shutting_down() -> ApiError {
    let message = "the server is shutting down; reconnect with the last cursor";
    ApiError::new(Reason::Unavailable, message)
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use sightline_bus::embedded::EmbeddedServer;
    use sightline_catalog::Catalog;
    use sightline_proto::internal::observation::Body;
    use sightline_proto::internal::{SceneBody, VerdictBody};
    use sightline_recordings::links::Links;
    use sightline_service::clock::{Clock, ManualClock};
    use sightline_service::metrics::Metrics;
    use url::Url;

    use super::*;
    use crate::api::Linker;
    use crate::metrics::GatewayMetrics;

    fn observation(body: Body) -> Observation {
        Observation {
            body: Some(body),
            ..Default::default()
        }
    }

    /// A watch that goes on after sequence 2, over a hub that has seen nothing yet and follows nothing.
    async fn watch_after_2(bus: Bus) -> Watch {
        let metrics = GatewayMetrics::register(&Metrics::default());
        let catalog = Catalog::open(&bus).await.expect("catalog");
        let public = Url::parse("http://video.example/").expect("an address");
        let links = Links::new(&public, &[7; 32], None);
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(0));
        let linker = Linker::new(&links, &catalog, &clock);
        let hub = Hub::new(&bus, linker, metrics.clone()).await.expect("hub");
        Watch {
            bus,
            hub: Arc::new(hub),
            shutdown: Shutdown::new(),
            filter: Filter::default(),
            feed: Feed::behind(),
            last: 2,
            outbox: VecDeque::new(),
            _counted: metrics.watcher_came(),
        }
    }

    async fn bus() -> (Bus, EmbeddedServer, tempfile::TempDir) {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let nats = EmbeddedServer::start(Path::new("nats-server"), dir.path()).expect("starts");
        let bus = Bus::connect(&nats.config("test")).await.expect("bus");
        (bus, nats, dir)
    }

    /// A cursor of another gateway may be ahead of this one's hub.
    #[tokio::test]
    async fn what_the_hub_has_yet_to_reach_is_not_sent_twice() {
        let (bus, _nats, _dir) = bus().await;
        let mut watch = watch_after_2(bus).await;
        let hub = Arc::clone(&watch.hub);
        let waiting = futures::poll!(std::pin::pin!(watch.next()));
        assert!(waiting.is_pending(), "nothing has happened");
        for sequence in 1..=3 {
            hub.deliver(sequence, &observation(Body::Scene(SceneBody::default())));
        }
        hub.deliver(4, &observation(Body::Verdict(VerdictBody::default())));
        hub.deliver(5, &observation(Body::Scene(SceneBody::default())));
        for expected in [3, 5] {
            let response = watch.next().await.expect("a message");
            assert_eq!(cursor::decode(&response.cursor), Some(expected));
        }
    }

    #[tokio::test]
    async fn what_expired_before_a_watcher_came_back_is_counted() {
        let (bus, _nats, _dir) = bus().await;
        let mut watch = watch_after_2(bus).await;
        watch.take_past(&Received {
            message: observation(Body::Scene(SceneBody::default())),
            subject: "obs.0.scene.rts-1".to_owned(),
            sequence: 10,
            deliveries: 1,
        });
        let lagged = watch.next().await.expect("a message");
        let count = Some(Message::Lagged(Lagged { count: 7 }));
        assert_eq!(lagged.message, count);
        // Going on there must not count the same again.
        assert_eq!(cursor::decode(&lagged.cursor), Some(9));
        let scene = watch.next().await.expect("a message");
        assert_eq!(cursor::decode(&scene.cursor), Some(10));
    }
}
