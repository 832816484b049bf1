//! Subjects: where each kind of message travels.

use std::fmt;

/// Where a message goes. Tokens are ids or keys made by this platform and hold no dots, spaces or wildcards.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Subject {
    /// `run.<rtstream>`: the stream should run; held un-acked by the worker that runs it.
    Run {
        /// The stream.
        rtstream: String,
    },
    /// `frames.<model>.<rtstream>.<sampling>`: sampled windows.
    Frames {
        /// The model that describes them.
        model: String,
        /// The stream.
        rtstream: String,
        /// See `sightline_proto::ids::sampling_key`.
        sampling: String,
    },
    /// `audio.<engine>.<rtstream>`: utterances.
    Audio {
        /// The engine that transcribes them.
        engine: String,
        /// The stream.
        rtstream: String,
    },
    /// `texts.<model>.<index>`: batches of an audio index that its model is to read.
    Text {
        /// The model.
        model: String,
        /// The index.
        index: String,
    },
    /// `obs.<partition>.<kind>.<rtstream>`: observations.
    Observation {
        /// See `Catalog::partition_of`.
        partition: u32,
        /// What it is.
        kind: ObservationKind,
        /// The stream.
        rtstream: String,
    },
    /// `deliver.<endpoint>`: firings on their way to a receiver.
    Deliver {
        /// See `sightline_proto::ids::endpoint_id`; of another sink `sink-<name>`.
        endpoint: String,
    },
    /// `enrich.hold`: firings that are delivered once they are explained, or soon.
    Hold,
    /// `enrich.follow`: delivered firings whose explanation follows.
    Follow,
    /// `attempt.<endpoint>`: attempts to deliver.
    Attempt {
        /// As for deliveries.
        endpoint: String,
    },
    /// `export.<rtstream>`: exports that are to be written.
    Export {
        /// The stream.
        rtstream: String,
    },
    /// `dlq.<consumer>`: what that consumer gave up.
    DeadLetter {
        /// The durable consumer.
        consumer: String,
    },
}

/// Kinds of observations, each a token of the subject so that consumers can ask for one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum ObservationKind {
    /// A description of a window.
    Scene,
    /// Speech.
    Transcript,
    /// A batch of an audio index.
    AudioScene,
    /// An answer to an event's question.
    Verdict,
    /// An alert fired.
    Firing,
    /// A stream changed its state.
    Status,
    /// Media that was lost or never came.
    Gap,
}

impl ObservationKind {
    /// The subject's token.
    pub fn as_str(self) -> &'static str {
        match self {
            ObservationKind::Scene => "scene",
            ObservationKind::Transcript => "transcript",
            ObservationKind::Verdict => "verdict",
            ObservationKind::AudioScene => "audio_scene",
            ObservationKind::Firing => "firing",
            ObservationKind::Status => "status",
            ObservationKind::Gap => "gap",
        }
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Subject::Run { rtstream } => write!(f, "run.{rtstream}"),
            Subject::Frames {
                model,
                rtstream,
                sampling,
            } => write!(f, "frames.{model}.{rtstream}.{sampling}"),
            Subject::Audio { engine, rtstream } => write!(f, "audio.{engine}.{rtstream}"),
            Subject::Text { model, index } => write!(f, "texts.{model}.{index}"),
            Subject::Observation {
                partition,
                kind,
                rtstream,
            } => write!(f, "obs.{partition}.{}.{rtstream}", kind.as_str()),
            Subject::Deliver { endpoint } => write!(f, "deliver.{endpoint}"),
            Subject::Hold => f.write_str("enrich.hold"),
            Subject::Follow => f.write_str("enrich.follow"),
            Subject::Attempt { endpoint } => write!(f, "attempt.{endpoint}"),
            Subject::Export { rtstream } => write!(f, "export.{rtstream}"),
            Subject::DeadLetter { consumer } => write!(f, "dlq.{consumer}"),
        }
    }
}
