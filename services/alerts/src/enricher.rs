//! Explaining firings: a delivery waits for the caption and the recording of its firing's first window, and what comes later
//! follows.
//!
//! Two queues on the bus, each worked on by many tasks that mostly wait. `hold` has firings that are delivered once they are
//! complete, or 700 ms after the decision as they are then; what they still lacked goes to `follow`, as do firings that were
//! delivered at once, and is delivered when it comes, within a minute. When all places are taken, firings wait on the bus: whatever
//! is late when it gets a place goes on at once.
//!
//! A crash repeats what was not acknowledged. The bus takes each message once, by its id; where it knew one already, that one may
//! have told less than the one it refused, and then the whole explanation follows. So receivers may be told twice, and are told
//! everything.

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use sightline_bus::{
    BusError, Handler, Outgoing, Received, Refusal, StreamName, Subject, Work, work_side_by_side,
};
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{Delivery, FiringBody, Observation, RunRecord};
use sightline_proto::v1::{Alert, Phase};
use sightline_service::{Shutdown, chain, failpoint};
use tokio::time::{sleep, timeout};

use crate::Shared;
use crate::scenes::Scenes;
use crate::told::{self, Told};

/// How long after its decision a firing is delivered at the latest.
const HOLD: Duration = Duration::from_millis(700);
/// How long after its decision an explanation is given up.
const FOLLOW: Duration = Duration::from_secs(60);
/// Firings of each queue that wait in this process.
const PLACES: usize = 1000;
/// How long after a crash they go to another one.
const ACK_WAIT: Duration = Duration::from_secs(6);
/// How long putting deliveries in line may take, beside the waiting.
const DELIVERING: Duration = Duration::from_secs(60);
/// How long changes of the catalog are gathered before they are looked at.
const GATHER: Duration = Duration::from_millis(50);
/// How long to hold back when the bus or the catalog did not take something.
const PAUSE: Duration = Duration::from_millis(200);

/// A firing that is to be explained: what travels from the evaluator to here, with all that its messages are made of. It stays
/// among replicas of this service; as in the protos, fields are only ever added.
#[derive(Clone, PartialEq, prost::Message)]
pub(crate) struct Explaining {
    /// The firing as it opened.
    #[prost(message, optional, tag = "1")]
    pub(crate) firing: Option<Observation>,
    /// The alert as it was then.
    #[prost(message, optional, tag = "2")]
    pub(crate) alert: Option<Alert>,
    /// Whose it is.
    #[prost(string, tag = "3")]
    pub(crate) tenant: String,
    /// Whether the stream is recorded.
    #[prost(bool, tag = "4")]
    pub(crate) stored: bool,
    /// What its receivers have been told already.
    #[prost(message, optional, tag = "5")]
    pub(crate) known: Option<Known>,
}

/// What is known of a firing beyond its verdict.
#[derive(Clone, PartialEq, Eq, prost::Message)]
pub(crate) struct Known {
    /// Its caption; empty: not known.
    #[prost(string, tag = "1")]
    caption: String,
    /// Whether its first window can be played.
    #[prost(bool, tag = "2")]
    recorded: bool,
}

impl Explaining {
    /// Where it is put, and its id there.
    pub(crate) fn place(&self, subject: Subject) -> (Subject, String) {
        let firing = self.body().map(|firing| &*firing.firing_id);
        let id = format!("{}-{subject}", firing.unwrap_or_default());
        (subject, id)
    }

    /// Whether there is anything that its deliveries could wait for.
    pub(crate) fn waits(&self) -> bool {
        self.stored || self.has_captions()
    }

    fn has_captions(&self) -> bool {
        self.body()
            .is_some_and(|firing| !firing.index_id.is_empty())
    }

    fn body(&self) -> Option<&FiringBody> {
        match self.firing.as_ref()?.body.as_ref()? {
            Body::Firing(body) => Some(body),
            _ => None,
        }
    }

    fn is_complete(&self, known: &Known) -> bool {
        let explained = !known.caption.is_empty() || !self.has_captions();
        explained && (known.recorded || !self.stored)
    }

    /// Whether `known` says what receivers have not been told.
    fn is_news(&self, known: &Known) -> bool {
        let told = self.known.clone().unwrap_or_default();
        let explained = !known.caption.is_empty() && told.caption.is_empty();
        explained || known.recorded && !told.recorded
    }
}

/// Explains until shutdown.
pub(crate) async fn run(shared: Arc<Shared>, shutdown: Shutdown) {
    let scenes = Arc::new(Scenes::default());
    let serve = |queue: Queue| {
        let enricher = Enricher {
            queue,
            shared: Arc::clone(&shared),
            scenes: Arc::clone(&scenes),
            shutdown: shutdown.clone(),
        };
        work_again(enricher, shutdown.clone())
    };
    tokio::join!(
        scenes.follow(&shared.bus, &shutdown),
        serve(Queue::Hold),
        serve(Queue::Follow),
    );
}

/// As long as the bus does not let the consumer be made, it is tried again.
async fn work_again(enricher: Enricher, shutdown: Shutdown) {
    let bus = enricher.shared.bus.clone();
    let queue = enricher.queue;
    let enricher = Arc::new(enricher);
    while !shutdown.is_cancelled() {
        let handler = Waiting(Arc::clone(&enricher));
        let working = work_side_by_side(&bus, queue.work(), handler, shutdown.clone());
        if let Err(error) = working.await {
            tracing::warn!(
                reason = chain(&error),
                ?queue,
                "firings are explained later"
            );
            sleep(PAUSE).await;
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Queue {
    Hold,
    Follow,
}

impl Queue {
    fn work(self) -> Work {
        let (durable, subject) = match self {
            Self::Hold => ("enrich-hold", Subject::Hold),
            Self::Follow => ("enrich-follow", Subject::Follow),
        };
        Work {
            stream: StreamName::Enrichments,
            durable: durable.to_owned(),
            filter: subject.to_string(),
            concurrency: PLACES,
            ack_wait: ACK_WAIT,
            deadline: self.patience() + DELIVERING,
            max_deliver: -1,
        }
    }

    fn patience(self) -> Duration {
        match self {
            Self::Hold => HOLD,
            Self::Follow => FOLLOW,
        }
    }
}

struct Enricher {
    queue: Queue,
    shared: Arc<Shared>,
    scenes: Arc<Scenes>,
    shutdown: Shutdown,
}

struct Waiting(Arc<Enricher>);

#[async_trait]
impl Handler<Explaining> for Waiting {
    async fn handle(&self, received: &Received<Explaining>) -> Result<Vec<Outgoing>, Refusal> {
        let explaining = &received.message;
        let (Some(firing), Some(alert)) = (explaining.body(), &explaining.alert) else {
            let reason = "no firing, or of no alert".to_owned();
            return Err(Refusal::Reject { reason });
        };
        let known = self.0.wait(explaining, firing).await?;
        let told = |phase| self.0.deliveries(explaining, firing, alert, &known, phase);
        match self.0.queue {
            Queue::Hold => self.0.deliver(explaining, &known, told(Phase::Fired)).await,
            Queue::Follow if explaining.is_news(&known) => Ok(outgoing(&told(Phase::Enriched))),
            Queue::Follow => Ok(Vec::new()),
        }
    }
}

impl Enricher {
    /// Returns what is known when all is, or when there is no more time for it.
    ///
    /// # Errors
    /// At shutdown: another replica, or the next process, goes on.
    async fn wait(&self, explaining: &Explaining, firing: &FiringBody) -> Result<Known, Refusal> {
        let gone_us = self.shared.clock.now_us().saturating_sub(firing.decided_us);
        let gone = Duration::from_micros(u64::try_from(gone_us).unwrap_or(0));
        let left = self.queue.patience().saturating_sub(gone);
        tokio::select! {
            biased;
            waited = timeout(left, self.complete(explaining)) => {
                Ok(waited.unwrap_or_else(|_| self.known(explaining)))
            }
            () = self.shutdown.cancelled() => Err(Refusal::Retry {
                after: Duration::ZERO,
                reason: "stopping".to_owned(),
            }),
        }
    }

    async fn complete(&self, explaining: &Explaining) -> Known {
        let mut changes = self.shared.catalog.changes_of::<RunRecord>();
        loop {
            changes.mark_unchanged();
            let known = self.known(explaining);
            if explaining.is_complete(&known) {
                return known;
            }
            if known.caption.is_empty() && explaining.has_captions() {
                let (index, start_us) = window(explaining);
                self.scenes.wait(index, start_us).await;
            } else if changes.changed().await.is_err() {
                // Nothing more is heard of the catalog: time decides.
                std::future::pending::<()>().await;
            } else {
                sleep(GATHER).await;
            }
        }
    }

    fn known(&self, explaining: &Explaining) -> Known {
        let (index, start_us) = window(explaining);
        let caption = if explaining.has_captions() {
            self.scenes.get(index, start_us)
        } else {
            None
        };
        let firing = explaining.firing.as_ref();
        let recorded = firing.filter(|_| explaining.stored).is_some_and(|firing| {
            let run = self.shared.catalog.get::<RunRecord>(&firing.rtstream_id);
            run.is_some_and(|run| run.value.recorded_us >= firing.end_us)
        });
        Known {
            caption: caption.as_deref().unwrap_or_default().to_owned(),
            recorded,
        }
    }

    fn deliveries(
        &self,
        explaining: &Explaining,
        firing: &FiringBody,
        alert: &Alert,
        known: &Known,
        phase: Phase,
    ) -> Vec<Delivery> {
        let links = explaining.stored.then_some(&self.shared.config.links);
        let observed = explaining.firing.as_ref();
        let told = Told {
            firing,
            start_us: observed.map_or(0, |observed| observed.start_us),
            end_us: observed.map_or(0, |observed| observed.end_us),
            alert,
            tenant: &explaining.tenant,
            links,
            phase,
            caption: Some(&*known.caption).filter(|caption| !caption.is_empty()),
        };
        told.deliveries()
    }

    /// Puts what was held back in line; what it lacks follows, and all of it where the bus knew one of these deliveries before.
    async fn deliver(
        &self,
        explaining: &Explaining,
        known: &Known,
        deliveries: Vec<Delivery>,
    ) -> Result<Vec<Outgoing>, Refusal> {
        let putting = told::put_in_line(&self.shared.bus, &deliveries);
        let new = putting.await.map_err(|error| retry(&error))?;
        failpoint::hit("alerts.after_delivery");
        if new && explaining.is_complete(known) {
            return Ok(Vec::new());
        }
        let following = Explaining {
            known: new.then(|| known.clone()),
            ..explaining.clone()
        };
        let (subject, id) = following.place(Subject::Follow);
        Ok(vec![Outgoing::new(subject, id, &following)])
    }
}

fn retry(error: &BusError) -> Refusal {
    Refusal::Retry {
        after: PAUSE,
        reason: chain(error),
    }
}

fn outgoing(deliveries: &[Delivery]) -> Vec<Outgoing> {
    let outgoing = deliveries.iter().map(|delivery| {
        let (subject, id) = told::place(delivery);
        Outgoing::new(subject, id, delivery)
    });
    outgoing.collect()
}

/// The index, and where the firing's first window starts.
fn window(explaining: &Explaining) -> (&str, i64) {
    let index = explaining.body().map_or("", |firing| &firing.index_id);
    let start_us = explaining
        .firing
        .as_ref()
        .map_or(0, |firing| firing.start_us);
    (index, start_us)
}
