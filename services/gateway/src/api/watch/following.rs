//! One open watch: it catches up from the bus by itself, and is fed by the hub from then on.

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use futures::stream::{BoxStream, StreamExt};
use sightline_bus::{Bus, BusError, Received, Start, StreamName};
use sightline_proto::internal::Observation;
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::v1::watch_response::Message;
use sightline_proto::v1::{Lagged, WatchResponse};
use sightline_service::{Shutdown, chain};
use tokio_util::sync::CancellationToken;

use super::filter::{Filter, Happening};
use super::hub::{Hub, Subscription, Taken};
use super::{OBSERVATIONS, response};
use crate::api::Session;
use crate::metrics::WatcherGuard;

/// A watcher that catches up joins the live feed from this many messages behind it: well within its buffer there.
const NEAR: u64 = 64;
/// How often the bus may fail in a row while a watcher catches up, and the pause in between.
const ATTEMPTS: u32 = 5;
const PAUSE: Duration = Duration::from_millis(200);

type Past = BoxStream<'static, Result<Received<Observation>, BusError>>;

/// Where a watch takes its messages from.
pub(super) enum Feed {
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
    /// From the bus, near the present or far from it.
    pub(super) fn behind() -> Self {
        Feed::Behind {
            past: None,
            joining: None,
            failures: 0,
        }
    }
}

/// One open watch.
pub(super) struct Watch {
    bus: Bus,
    hub: Arc<Hub>,
    shutdown: Shutdown,
    /// Cancelled when the caller's key is revoked.
    revoked: CancellationToken,
    filter: Filter,
    feed: Feed,
    /// Sequence of the last message that was sent or passed over.
    last: u64,
    /// What goes out next: at most two messages.
    outbox: VecDeque<WatchResponse>,
    _counted: WatcherGuard,
}

impl Watch {
    /// A watch that sends `first` and then what comes after sequence `last`.
    pub(super) fn new(
        session: &Session,
        filter: Filter,
        feed: Feed,
        last: u64,
        first: WatchResponse,
    ) -> Self {
        Self {
            bus: session.bus.clone(),
            hub: Arc::clone(&session.hub),
            shutdown: session.shutdown.clone(),
            revoked: session.caller.revoked.clone(),
            filter,
            feed,
            last,
            outbox: VecDeque::from([first]),
            _counted: session.metrics.watcher_came(),
        }
    }

    /// The next message, once there is one.
    pub(super) async fn next(&mut self) -> Result<WatchResponse, ApiError> {
        let (shutdown, revoked) = (self.shutdown.clone(), self.revoked.clone());
        loop {
            if revoked.is_cancelled() {
                return Err(key_revoked());
            }
            if let Some(response) = self.outbox.pop_front() {
                return Ok(response);
            }
            tokio::select! {
                biased;
                () = shutdown.cancelled() => return Err(shutting_down()),
                () = revoked.cancelled() => return Err(key_revoked()),
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
            // Of what was still being said when the follower already had its end, nothing is told.
            Taken::One(delivered) if delivered.happening.interim => {
                if delivered.happening.sequence >= self.last {
                    let message = delivered.happening.message.clone();
                    self.outbox.push_back(response(self.last, message));
                }
            }
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
                match self
                    .hub
                    .happening(received.sequence, &received.message)
                    .await
                {
                    Ok(happening) => self.take_past(received.sequence, happening),
                    Err(error) => return self.retry(error).await,
                }
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

    fn take_past(&mut self, sequence: u64, happening: Option<Happening>) {
        if sequence <= self.last {
            return;
        }
        // Sequences have no holes but where retention removed the oldest.
        let expired = sequence - self.last - 1;
        if expired > 0 {
            self.say_lagged(sequence - 1, expired);
        }
        self.last = sequence;
        if let Some(happening) = happening {
            self.send(&happening);
        }
    }

    async fn retry(&mut self, error: impl std::error::Error) -> Result<(), ApiError> {
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

fn key_revoked() -> ApiError {
    let message = "the API key of this watch was revoked";
    ApiError::new(Reason::Unauthenticated, message)
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

    use super::super::cursor;
    use super::super::filter::{Asked, Wanted};
    use super::*;
    use crate::api::Linker;
    use crate::metrics::GatewayMetrics;

    /// What watchers of the tenant "a" see of it.
    fn happening(sequence: u64, body: Body) -> Option<Happening> {
        let observation = Observation {
            body: Some(body),
            ..Default::default()
        };
        Happening::of(sequence, &observation, "a".to_owned())
    }

    fn scene(sequence: u64) -> Option<Happening> {
        happening(sequence, Body::Scene(SceneBody::default()))
    }

    /// A watch that goes on after sequence 2, over a hub that has seen nothing yet and follows nothing.
    async fn watch_after_2(bus: Bus) -> Watch {
        let metrics = GatewayMetrics::register(&Metrics::default());
        let catalog = Catalog::open(&bus).await.expect("catalog");
        let public = Url::parse("http://video.example/").expect("an address");
        let links = Links::new(&public, &[7; 32], None);
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(0));
        let linker = Linker::new(&links, &catalog, &clock);
        let hub = Hub::new(&bus, catalog, linker, metrics.clone())
            .await
            .expect("hub");
        Watch {
            bus,
            hub: Arc::new(hub),
            shutdown: Shutdown::new(),
            revoked: CancellationToken::new(),
            filter: Filter {
                tenant: "a".into(),
                wanted: Wanted::Asked(Arc::new(Asked::default())),
            },
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
            hub.deliver(sequence, scene(sequence));
        }
        hub.deliver(4, happening(4, Body::Verdict(VerdictBody::default())));
        hub.deliver(5, scene(5));
        for expected in [3, 5] {
            let response = watch.next().await.expect("a message");
            assert_eq!(cursor::decode(&response.cursor), Some(expected));
        }
    }

    #[tokio::test]
    async fn what_expired_before_a_watcher_came_back_is_counted() {
        let (bus, _nats, _dir) = bus().await;
        let mut watch = watch_after_2(bus).await;
        watch.take_past(10, scene(10));
        let lagged = watch.next().await.expect("a message");
        let count = Some(Message::Lagged(Lagged { count: 7 }));
        assert_eq!(lagged.message, count);
        // Going on there must not count the same again.
        assert_eq!(cursor::decode(&lagged.cursor), Some(9));
        let scene = watch.next().await.expect("a message");
        assert_eq!(cursor::decode(&scene.cursor), Some(10));
    }
}
