//! The streams: what each keeps, for how long, and what it does when it is full.

use std::time::Duration;

use async_nats::jetstream::stream::{Config, DiscardPolicy, RetentionPolicy, StorageType};

const MINUTE: Duration = Duration::from_secs(60);
const HOUR: Duration = Duration::from_secs(3600);
const DAY: Duration = Duration::from_secs(24 * 3600);

/// The streams of the bus.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum StreamName {
    /// Streams that should run; the lease.
    Runs,
    /// Sampled windows: newest wins.
    Frames,
    /// Utterances.
    Audio,
    /// Batches of transcripts that a model is to read.
    Texts,
    /// Everything observed.
    Observations,
    /// Firings on their way to webhooks.
    Deliveries,
    /// Firings whose explanation and clip are waited for.
    Enrichments,
    /// Attempts to deliver.
    Attempts,
    /// Exports that are to be written.
    Exports,
    /// What was given up, for people.
    Dlq,
}

impl StreamName {
    /// Every stream.
    pub const ALL: [StreamName; 10] = [
        StreamName::Runs,
        StreamName::Frames,
        StreamName::Audio,
        StreamName::Texts,
        StreamName::Observations,
        StreamName::Deliveries,
        StreamName::Enrichments,
        StreamName::Attempts,
        StreamName::Exports,
        StreamName::Dlq,
    ];

    /// The stream's name on the server.
    pub fn as_str(self) -> &'static str {
        match self {
            StreamName::Runs => "RUNS",
            StreamName::Frames => "FRAMES",
            StreamName::Audio => "AUDIO",
            StreamName::Texts => "TEXTS",
            StreamName::Observations => "OBSERVATIONS",
            StreamName::Deliveries => "DELIVERIES",
            StreamName::Enrichments => "ENRICHMENTS",
            StreamName::Attempts => "ATTEMPTS",
            StreamName::Exports => "EXPORTS",
            StreamName::Dlq => "DLQ",
        }
    }

    /// How it is made. Every stream is bounded by its age or by a number of messages a subject, and all of them by the
    /// server's storage limit, at which publishing fails and publishers hold back.
    pub(crate) fn config(self) -> Config {
        let base = Config {
            name: self.as_str().to_owned(),
            storage: StorageType::File,
            discard: DiscardPolicy::Old,
            duplicate_window: 10 * MINUTE,
            ..Config::default()
        };
        let subjects = |pattern: &str| vec![pattern.to_owned()];
        match self {
            // One message a stream: a second one is refused, so that asking twice for a run changes nothing.
            StreamName::Runs => Config {
                subjects: subjects("run.*"),
                retention: RetentionPolicy::WorkQueue,
                max_messages_per_subject: 1,
                discard: DiscardPolicy::New,
                discard_new_per_subject: true,
                ..base
            },
            // The newest two windows of each sampling; older ones are superseded, not queued.
            StreamName::Frames => Config {
                subjects: subjects("frames.*.*.*"),
                retention: RetentionPolicy::WorkQueue,
                storage: StorageType::Memory,
                max_messages_per_subject: 2,
                max_age: MINUTE,
                duplicate_window: MINUTE,
                ..base
            },
            StreamName::Audio => Config {
                subjects: subjects("audio.*.*"),
                retention: RetentionPolicy::WorkQueue,
                max_age: 6 * HOUR,
                ..base
            },
            // Where nobody reads for so long, an index's oldest batches leave: no other index waits for it.
            StreamName::Texts => Config {
                subjects: subjects("texts.*.*"),
                retention: RetentionPolicy::WorkQueue,
                max_messages_per_subject: 2_000,
                max_age: 6 * HOUR,
                ..base
            },
            StreamName::Observations => Config {
                subjects: subjects("obs.*.*.*"),
                max_age: 72 * HOUR,
                ..base
            },
            // A full endpoint refuses new deliveries: the alerts service holds back and says so.
            StreamName::Deliveries => Config {
                subjects: subjects("deliver.*"),
                retention: RetentionPolicy::WorkQueue,
                max_messages_per_subject: 100_000,
                discard: DiscardPolicy::New,
                discard_new_per_subject: true,
                max_age: 7 * DAY,
                ..base
            },
            // As with deliveries: when it is full, the alerts service holds back.
            StreamName::Enrichments => Config {
                subjects: subjects("enrich.*"),
                retention: RetentionPolicy::WorkQueue,
                max_messages_per_subject: 100_000,
                discard: DiscardPolicy::New,
                discard_new_per_subject: true,
                max_age: 7 * DAY,
                ..base
            },
            StreamName::Attempts => Config {
                subjects: subjects("attempt.*"),
                max_messages_per_subject: 10_000,
                max_age: 14 * DAY,
                ..base
            },
            // A stream with more exports waiting is refused another one.
            StreamName::Exports => Config {
                subjects: subjects("export.*"),
                retention: RetentionPolicy::WorkQueue,
                max_messages_per_subject: 100,
                discard: DiscardPolicy::New,
                discard_new_per_subject: true,
                max_age: DAY,
                ..base
            },
            // Letters hold whole messages: without a limit in bytes, one bad consumer could fill the disk with them.
            StreamName::Dlq => Config {
                subjects: subjects("dlq.*"),
                max_messages_per_subject: 10_000,
                max_bytes: 256 << 20,
                max_age: 14 * DAY,
                ..base
            },
        }
    }
}

/// How a key-value bucket is made: the newest value of each key, kept for ever.
pub(crate) fn bucket_config(bucket: &str) -> Config {
    Config {
        name: format!("KV_{bucket}"),
        subjects: vec![format!("$KV.{bucket}.>")],
        storage: StorageType::File,
        max_messages_per_subject: 1,
        discard: DiscardPolicy::New,
        allow_rollup: true,
        deny_delete: true,
        // Reads by the stream's leader alone: a replica may be behind, and compare-and-set would lose against itself.
        allow_direct: false,
        ..Config::default()
    }
}
