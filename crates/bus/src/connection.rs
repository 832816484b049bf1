//! A connection to the bus, and publishing on it.

use std::sync::atomic::Ordering;
use std::time::Duration;

use async_nats::connection::State;
use async_nats::jetstream::context::{ContextBuilder, PublishErrorKind, RequestErrorKind};
use async_nats::jetstream::message::PublishMessage;
use async_nats::jetstream::publish::PublishAck;
use async_nats::jetstream::stream::StorageType;
use async_nats::jetstream::{self, kv};
use async_nats::{ConnectError, ConnectErrorKind, ConnectOptions};
use bytes::Bytes;
use prost::Message;
use sightline_service::trace::{self, TraceContext};
use tokio::time::timeout;

use crate::config::{BusConfig, Login};
use crate::error::BusError;
use crate::streams::{StreamName, bucket_config};
use crate::subjects::Subject;
use crate::work::Outgoing;

/// How long the bus may take to answer any call.
pub(crate) const DEADLINE: Duration = Duration::from_secs(5);
/// How long connecting may take, with retries, so that roles and server may start in any order.
const CONNECT_DEADLINE: Duration = Duration::from_secs(15);

/// How often to look whether the connection is another one; the library has no signal for it.
const LOOK: Duration = Duration::from_millis(250);

/// A connection to the bus. Clones share it; it reconnects by itself for ever.
#[derive(Clone)]
pub struct Bus {
    pub(crate) context: jetstream::Context,
    /// As in [`BusConfig`].
    pub(crate) replicas: usize,
}

impl Bus {
    /// Connects and creates the streams that are missing. Those that are there stay as they are: see [`Bus::plan`].
    ///
    /// # Errors
    /// When no server answers within 15 s, or a stream can't be made.
    pub async fn connect(config: &BusConfig) -> Result<Self, BusError> {
        let bus = Self::reach(config).await?;
        for stream in StreamName::ALL {
            bus.ensure(stream).await?;
        }
        Ok(bus)
    }

    /// Connects, and makes nothing.
    ///
    /// # Errors
    /// When no server answers within 15 s.
    pub async fn reach(config: &BusConfig) -> Result<Self, BusError> {
        let client = connect_client(config).await?;
        let context = ContextBuilder::new()
            .timeout(DEADLINE)
            .ack_timeout(DEADLINE)
            .build(client);
        Ok(Self {
            context,
            replicas: config.replicas,
        })
    }

    /// Publishes a message and waits until the bus has it. Returns its sequence in the stream. A message whose `id` the
    /// bus has seen within its de-duplication window is taken once. It carries the span in which this is called.
    ///
    /// # Errors
    /// When the bus does not confirm within 5 s; the message may have been taken all the same, so repeat it with the same
    /// id.
    pub async fn publish(
        &self,
        subject: &Subject,
        id: &str,
        message: &impl Message,
    ) -> Result<u64, BusError> {
        let payload = message.encode_to_vec().into();
        let trace = TraceContext::current();
        let taken = self.send(subject, Some(id), payload, &trace).await?;
        Ok(taken.sequence)
    }

    /// Publishes like [`Bus::publish`], and returns whether the bus took the message only now: false for one whose `id` it knew.
    ///
    /// # Errors
    /// As of [`Bus::publish`].
    pub async fn publish_once(
        &self,
        subject: &Subject,
        id: &str,
        message: &impl Message,
    ) -> Result<bool, BusError> {
        let payload = message.encode_to_vec().into();
        let trace = TraceContext::current();
        let taken = self.send(subject, Some(id), payload, &trace).await?;
        Ok(!taken.duplicate)
    }

    /// Asks for a stream to be run. Asking again while it is asked for or running changes nothing.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub async fn request_run(&self, rtstream: &str) -> Result<(), BusError> {
        let subject = Subject::Run {
            rtstream: rtstream.to_owned(),
        };
        let (nothing, trace) = (Bytes::new(), TraceContext::default());
        match self.send(&subject, None, nothing, &trace).await {
            Err(BusError::Publish { source, .. }) if refused_as_full(source.as_ref()) => Ok(()),
            other => other.map(drop),
        }
    }

    /// How many messages the stream holds for a subject: those waiting and those being worked on.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub async fn outstanding(&self, subject: &Subject) -> Result<u64, BusError> {
        use futures::TryStreamExt;
        let name = stream_of(subject);
        let failed = |source: crate::error::Cause| BusError::Stream {
            stream: name.as_str(),
            source,
        };
        let stream = self.stream(name).await?;
        let mut subjects = match stream.info_with_subjects(subject.to_string()).await {
            Ok(subjects) => subjects,
            Err(source) => {
                if source.kind() == RequestErrorKind::Other {
                    self.make_again(name).await?;
                }
                return Err(failed(source.into()));
            }
        };
        let mut count = 0;
        while let Some((_, messages)) = subjects
            .try_next()
            .await
            .map_err(|source| failed(source.into()))?
        {
            count += messages as u64;
        }
        Ok(count)
    }

    /// Whether the connection stands at this moment, as far as is known: a silent one is found out after some 20 s.
    pub fn is_connected(&self) -> bool {
        self.context.client().connection_state() == State::Connected
    }

    /// How many times the connection was made: another number means that what was asked for before may never be answered.
    pub fn connects(&self) -> u64 {
        let statistics = self.context.client().statistics();
        statistics.connects.load(Ordering::Relaxed)
    }

    /// Returns when the connection is another one than that which `connects` counted.
    pub async fn reconnected(&self, connects: u64) {
        while self.connects() == connects {
            tokio::time::sleep(LOOK).await;
        }
    }

    /// A key-value bucket that keeps the latest value of each key, made if it is missing.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub async fn key_value(&self, bucket: &'static str) -> Result<kv::Store, BusError> {
        let failed = |source: crate::error::Cause| BusError::Stream {
            stream: bucket,
            source,
        };
        // Not by the library's create_key_value, which asks about the account what servers before 2.10 do not answer.
        self.context
            .get_or_create_stream(self.replicated(bucket_config(bucket)))
            .await
            .map_err(|source| failed(source.into()))?;
        self.context
            .get_key_value(bucket)
            .await
            .map_err(|source| failed(source.into()))
    }

    pub(crate) async fn publish_outgoing(&self, outgoing: &Outgoing) -> Result<(), BusError> {
        let Outgoing {
            subject,
            id,
            payload,
            trace,
        } = outgoing;
        let sent = self.send(subject, Some(id), payload.clone(), trace);
        sent.await.map(drop)
    }

    pub(crate) async fn stream(
        &self,
        name: StreamName,
    ) -> Result<jetstream::stream::Stream<()>, BusError> {
        self.context
            .get_stream_no_info(name.as_str())
            .await
            .map_err(|source| BusError::Stream {
                stream: name.as_str(),
                source: source.into(),
            })
    }

    async fn send(
        &self,
        subject: &Subject,
        id: Option<&str>,
        payload: Bytes,
        trace: &TraceContext,
    ) -> Result<PublishAck, BusError> {
        let (name, subject) = (stream_of(subject), subject.to_string());
        let mut message = PublishMessage::build().payload(payload);
        if let Some(id) = id {
            message = message.message_id(id);
        }
        if let Some(header) = trace.header() {
            message = message.header(trace::HEADER, header);
        }
        let failed = |source: crate::error::Cause| BusError::Publish {
            subject: subject.clone(),
            source,
        };
        // The library bounds the wait for the confirmation, but not the one for room to send in.
        let taken = timeout(DEADLINE, async {
            self.context
                .send_publish(subject.clone(), message)
                .await?
                .await
        });
        match taken.await {
            Ok(Ok(taken)) => Ok(taken),
            Ok(Err(source)) => {
                if source.kind() == PublishErrorKind::StreamNotFound {
                    self.make_again(name).await?;
                }
                Err(failed(source.into()))
            }
            Err(source) => Err(failed(source.into())),
        }
    }

    /// The largest message that the server takes, in bytes.
    pub(crate) fn max_payload(&self) -> usize {
        self.context.client().server_info().max_payload
    }

    /// Waits until what was sent without waiting for an answer, such as acknowledgements, has left this process.
    pub(crate) async fn flush(&self) {
        if !matches!(
            timeout(DEADLINE, self.context.client().flush()).await,
            Ok(Ok(()))
        ) {
            tracing::debug!("what was sent last may not have reached the bus");
        }
    }

    /// Makes a stream again if it was only in memory: a server that was restarted has lost it. Any other one that is missing is
    /// for people to look after.
    pub(crate) async fn make_again(&self, name: StreamName) -> Result<(), BusError> {
        if name.config().storage == StorageType::Memory {
            self.ensure(name).await?;
        }
        Ok(())
    }

    async fn ensure(&self, name: StreamName) -> Result<(), BusError> {
        self.context
            .get_or_create_stream(self.replicated(name.config()))
            .await
            .map(drop)
            .map_err(|source| BusError::Stream {
                stream: name.as_str(),
                source: source.into(),
            })
    }
}

async fn connect_client(config: &BusConfig) -> Result<async_nats::Client, BusError> {
    let failed = |source: crate::error::Cause| BusError::Connect {
        url: config.safe_url(),
        source,
    };
    let options = options(config).map_err(failed)?;
    let servers: Vec<&str> = config.url.split(',').map(str::trim).collect();
    let started = tokio::time::Instant::now();
    loop {
        match options.clone().connect(servers.as_slice()).await {
            Ok(client) => return Ok(client),
            Err(source) if is_refusal(&source) || started.elapsed() > CONNECT_DEADLINE => {
                return Err(failed(source.into()));
            }
            Err(error) => {
                tracing::debug!(%error, "nats is not there yet");
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        }
    }
}

/// Whether the server is there and does not let this client in, or is not who it should be: waiting changes nothing.
fn is_refusal(error: &ConnectError) -> bool {
    matches!(
        error.kind(),
        ConnectErrorKind::Authentication
            | ConnectErrorKind::AuthorizationViolation
            | ConnectErrorKind::Tls
    )
}

fn options(config: &BusConfig) -> Result<ConnectOptions, crate::error::Cause> {
    let mut options = ConnectOptions::new()
        .name(&config.name)
        .connection_timeout(Duration::from_secs(2))
        .ping_interval(Duration::from_secs(10));
    options = match &config.login {
        Login::None => options,
        Login::Token(token) => options.token(token.clone()),
        Login::Nkey(seed) => options.nkey(seed.clone()),
        Login::Credentials(file) => options.credentials(file)?,
    };
    if let Some(file) = &config.ca_file {
        options = options.add_root_certificates(file.clone());
    }
    if let Some((certificate, key)) = &config.client_certificate {
        options = options.add_client_certificate(certificate.clone(), key.clone());
    }
    Ok(options)
}

/// Whether a full subject with discard policy "new" refused the message.
fn refused_as_full(error: &(dyn std::error::Error + 'static)) -> bool {
    let Some(error) = error.downcast_ref::<jetstream::context::PublishError>() else {
        return false;
    };
    // The server has one code for every failed store and tells them apart by words alone.
    error.kind() == PublishErrorKind::Other
        && std::error::Error::source(error)
            .is_some_and(|cause| cause.to_string().contains("maximum messages per subject"))
}

pub(crate) fn stream_of(subject: &Subject) -> StreamName {
    match subject {
        Subject::Run { .. } => StreamName::Runs,
        Subject::Frames { .. } => StreamName::Frames,
        Subject::Audio { .. } => StreamName::Audio,
        Subject::Text { .. } => StreamName::Texts,
        Subject::Observation { .. } => StreamName::Observations,
        Subject::Deliver { .. } => StreamName::Deliveries,
        Subject::Hold | Subject::Follow => StreamName::Enrichments,
        Subject::Attempt { .. } => StreamName::Attempts,
        Subject::Export { .. } => StreamName::Exports,
        Subject::DeadLetter { .. } => StreamName::Dlq,
    }
}
