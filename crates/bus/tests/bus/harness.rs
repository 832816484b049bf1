//! A bus of its own for each test, and handlers that do as they are told.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use async_trait::async_trait;
use prost::Message;
use rustix::process::{Pid, Signal, kill_process};
use sightline_bus::embedded::EmbeddedServer;
use sightline_bus::{
    Bus, Handler, ObservationKind, Outgoing, Received, Refusal, StreamName, Subject, Work, work,
};
use sightline_proto::internal::Observation;
use sightline_service::Shutdown;
use tempfile::TempDir;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longest wait for anything in these tests.
pub const LONG: Duration = Duration::from_secs(120);
/// How long a worker may be silent here: longer than a busy machine lets one wait that is not.
pub const ACK_WAIT: Duration = Duration::from_secs(2);

pub struct Platform {
    pub bus: Bus,
    pub server: EmbeddedServer,
    pub dir: TempDir,
}

impl Platform {
    pub async fn start() -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let server = EmbeddedServer::start(Path::new("nats-server"), dir.path())?;
        let bus = Bus::connect(&server.config("test")).await?;
        Ok(Self { bus, server, dir })
    }

    /// A connection of the library's own, as an operator's tools have.
    pub async fn client(&self) -> Result<async_nats::Client> {
        let told = self.server.config("operator");
        let token = told.login.token().context("a token")?.to_owned();
        let options = async_nats::ConnectOptions::with_token(token);
        Ok(options.connect(&told.url).await?)
    }

    /// Publishes an observation with this id.
    pub async fn observe(&self, id: &str) -> Result<u64> {
        let sequence = self.bus.publish(&scene(), id, &observation(id)).await?;
        Ok(sequence)
    }

    /// Kills the server, which is then started again.
    pub fn kill_server(&self) -> Result<()> {
        self.signal(Signal::KILL)
    }

    /// Holds the server still: it is there, and answers nobody.
    pub fn freeze_server(&self) -> Result<()> {
        self.signal(Signal::STOP)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.server.pid().context("it runs")?.cast_signed();
        let pid = Pid::from_raw(pid).context("a process")?;
        Ok(kill_process(pid, signal)?)
    }

    /// Waits until the bus holds `count` messages of a subject.
    pub async fn outstanding(&self, subject: &Subject, count: u64) -> Result<()> {
        eventually(|| async { Ok((self.bus.outstanding(subject).await? == count).then_some(())) })
            .await
            .with_context(|| format!("{count} messages of {subject}"))
    }

    /// Waits until the bus holds `count` messages that match, and returns them.
    pub async fn held<M: Message + Default>(
        &self,
        stream: StreamName,
        filter: &str,
        count: usize,
    ) -> Result<Vec<M>> {
        eventually(|| async {
            let held = self.bus.read::<M>(stream, filter, 1000).await?;
            let enough = held.len() >= count;
            Ok(enough.then(|| held.into_iter().map(|r| r.message).collect()))
        })
        .await
        .with_context(|| format!("{count} messages of {filter}"))
    }
}

/// Asks until there is an answer.
pub async fn eventually<T, F>(ask: impl Fn() -> F) -> Result<T>
where
    F: Future<Output = Result<Option<T>>>,
{
    let asking = async {
        loop {
            if let Some(answer) = ask().await? {
                return Ok(answer);
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    timeout(LONG, asking).await.context("waited in vain")?
}

/// The next thing that a handler reports.
pub async fn next<T>(reports: &mut mpsc::Receiver<T>) -> Result<T> {
    let next = timeout(LONG, reports.recv()).await;
    next.context("nothing was handled")?.context("it is gone")
}

pub fn observation(id: &str) -> Observation {
    Observation {
        id: id.to_owned(),
        ..Observation::default()
    }
}

pub fn scene() -> Subject {
    Subject::Observation {
        partition: 0,
        kind: ObservationKind::Scene,
        rtstream: "rts-1".to_owned(),
    }
}

/// How the observations of `scene` are worked on.
pub fn scenes(durable: &str, max_deliver: i64) -> Work {
    Work {
        stream: StreamName::Observations,
        durable: durable.to_owned(),
        filter: scene().to_string(),
        concurrency: 1,
        ack_wait: ACK_WAIT,
        deadline: LONG,
        max_deliver,
    }
}

/// What a handler does with every message.
#[derive(Debug, Clone, Copy)]
pub enum Does {
    /// Nothing, and that is fine.
    Accept,
    /// Takes longer than a worker may be silent.
    TakeLong,
    /// Never ends, until its task is.
    Hang,
    /// Refuses for now.
    Retry,
    /// Refuses for good.
    Reject,
}

/// Reports what comes and does as it is told.
pub struct Told {
    pub does: Does,
    pub reports: mpsc::Sender<(String, u64)>,
}

#[async_trait]
impl Handler<Observation> for Told {
    async fn handle(&self, received: &Received<Observation>) -> Result<Vec<Outgoing>, Refusal> {
        let report = (received.message.id.clone(), received.deliveries);
        self.reports.send(report).await.expect("the test waits");
        match self.does {
            Does::Accept => Ok(Vec::new()),
            Does::TakeLong => {
                tokio::time::sleep(3 * ACK_WAIT).await;
                Ok(Vec::new())
            }
            Does::Hang => std::future::pending().await,
            Does::Retry => Err(Refusal::Retry {
                after: Duration::from_millis(10),
                reason: "not now".to_owned(),
            }),
            Does::Reject => Err(Refusal::Reject {
                reason: "never".to_owned(),
            }),
        }
    }
}

/// A worker, and what it reports: id and number of the delivery. Aborting its task is to the bus what kill -9 is.
pub fn worker(
    bus: &Bus,
    what: Work,
    does: Does,
) -> (JoinHandle<()>, mpsc::Receiver<(String, u64)>) {
    let (sender, reports) = mpsc::channel(1000);
    let (bus, told) = (
        bus.clone(),
        Told {
            does,
            reports: sender,
        },
    );
    let task = tokio::spawn(async move {
        work(&bus, what, told, Shutdown::new())
            .await
            .expect("works");
    });
    (task, reports)
}
