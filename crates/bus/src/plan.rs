//! What is different on the server from how this release makes streams, and changing it when an operator says so.
//!
//! What is missing is made at start; what is there is never changed silently: an operator may have meant it.

use std::fmt;

use async_nats::jetstream::context::{GetStreamError, GetStreamErrorKind};
use async_nats::jetstream::stream::Config;
use futures::future::try_join_all;

use crate::connection::Bus;
use crate::error::{BusError, Cause};
use crate::streams::{StreamName, bucket_config};

/// One stream that is missing, or not as this release makes it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The stream's name on the server.
    pub stream: String,
    /// What differs; empty: there is no such stream.
    pub fields: Vec<Field>,
    /// Whether applying keeps what the stream holds: retention and storage can't be changed in place.
    pub in_place: bool,
    wanted: Config,
}

/// One setting of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field {
    /// As the server calls it.
    pub name: &'static str,
    /// What it is.
    pub is: String,
    /// What this release would make it.
    pub wanted: String,
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.fields.is_empty() {
            return write!(f, "{}: missing", self.stream);
        }
        write!(f, "{}:", self.stream)?;
        for field in &self.fields {
            write!(f, " {} is {}, not {};", field.name, field.is, field.wanted)?;
        }
        f.write_str(if self.in_place {
            " can be changed in place"
        } else {
            " cannot be changed in place: remove the stream while everything is stopped, then start again"
        })
    }
}

impl Bus {
    /// How the streams and the key-value buckets named `buckets` differ from how this release makes them.
    ///
    /// # Errors
    /// When the bus does not answer.
    pub async fn plan(&self, buckets: &[&str]) -> Result<Vec<Difference>, BusError> {
        let streams = StreamName::ALL.into_iter().map(StreamName::config);
        let buckets = buckets.iter().map(|bucket| bucket_config(bucket));
        let comparing = streams
            .chain(buckets)
            .map(|wanted| self.compare(self.replicated(wanted)));
        let compared = try_join_all(comparing).await?;
        Ok(compared.into_iter().flatten().collect())
    }

    /// Makes a stream as it is planned, and keeps what it holds.
    ///
    /// # Errors
    /// When it can't be changed in place, or the server refuses.
    pub async fn apply(&self, difference: &Difference) -> Result<(), BusError> {
        let failed = |source: Cause| BusError::Change {
            stream: difference.stream.clone(),
            source,
        };
        if !difference.in_place {
            return Err(failed(difference.to_string().into()));
        }
        let wanted = difference.wanted.clone();
        let applied: Result<(), Cause> = if difference.fields.is_empty() {
            let made = self.context.create_stream(wanted).await;
            made.map(drop).map_err(Into::into)
        } else {
            let updated = self.context.update_stream(wanted).await;
            updated.map(drop).map_err(Into::into)
        };
        applied.map_err(failed)
    }

    /// `config` on as many servers as this connection was told.
    pub(crate) fn replicated(&self, config: Config) -> Config {
        Config {
            num_replicas: self.replicas.max(1),
            ..config
        }
    }

    async fn compare(&self, wanted: Config) -> Result<Option<Difference>, BusError> {
        let found = match self.context.get_stream(&wanted.name).await {
            Ok(stream) => Some(stream.cached_info().config.clone()),
            Err(error) if is_missing(&error) => None,
            Err(source) => {
                return Err(BusError::Change {
                    stream: wanted.name,
                    source: source.into(),
                });
            }
        };
        let wanted = match &found {
            Some(found) => over(found, wanted),
            None => wanted,
        };
        let fields = found.map(|found| differences(&found, &wanted));
        if fields.as_ref().is_some_and(Vec::is_empty) {
            return Ok(None);
        }
        let fields = fields.unwrap_or_default();
        let fixed = |field: &Field| ["retention", "storage"].contains(&field.name);
        Ok(Some(Difference {
            stream: wanted.name.clone(),
            in_place: !fields.iter().any(fixed),
            fields,
            wanted,
        }))
    }
}

fn is_missing(error: &GetStreamError) -> bool {
    match error.kind() {
        GetStreamErrorKind::JetStream(error) => error.code() == 404,
        _ => false,
    }
}

/// What is there, with the settings of `wanted` that this release cares about: an operator's others stay.
fn over(found: &Config, wanted: Config) -> Config {
    let no_window = wanted.duplicate_window.is_zero();
    Config {
        subjects: wanted.subjects,
        retention: wanted.retention,
        storage: wanted.storage,
        discard: wanted.discard,
        discard_new_per_subject: wanted.discard_new_per_subject,
        max_messages_per_subject: wanted.max_messages_per_subject,
        max_bytes: wanted.max_bytes,
        max_age: wanted.max_age,
        // Where this release leaves it to the server, it is the server's.
        duplicate_window: if no_window {
            found.duplicate_window
        } else {
            wanted.duplicate_window
        },
        num_replicas: wanted.num_replicas,
        allow_rollup: wanted.allow_rollup,
        deny_delete: wanted.deny_delete,
        allow_direct: wanted.allow_direct,
        ..found.clone()
    }
}

/// The settings that this release cares about.
fn differences(is: &Config, wanted: &Config) -> Vec<Field> {
    let settings = |config: &Config| {
        let Config {
            subjects,
            retention,
            storage,
            discard,
            discard_new_per_subject,
            max_messages_per_subject,
            max_bytes,
            max_age,
            duplicate_window,
            num_replicas,
            allow_rollup,
            deny_delete,
            allow_direct,
            ..
        } = config;
        [
            ("subjects", subjects.join(" ")),
            ("retention", format!("{retention:?}")),
            ("storage", format!("{storage:?}")),
            ("discard", format!("{discard:?}")),
            (
                "discard_new_per_subject",
                discard_new_per_subject.to_string(),
            ),
            // The server writes "no limit" as -1, this library as 0.
            ("max_msgs_per_subject", unlimited(*max_messages_per_subject)),
            ("max_bytes", unlimited(*max_bytes)),
            ("max_age", format!("{max_age:?}")),
            ("duplicate_window", format!("{duplicate_window:?}")),
            ("num_replicas", num_replicas.max(&1).to_string()),
            ("allow_rollup_hdrs", allow_rollup.to_string()),
            ("deny_delete", deny_delete.to_string()),
            ("allow_direct", allow_direct.to_string()),
        ]
    };
    settings(is)
        .into_iter()
        .zip(settings(wanted))
        .filter(|(is, wanted)| is != wanted)
        .map(|((name, is), (_, wanted))| Field { name, is, wanted })
        .collect()
}

fn unlimited(limit: i64) -> String {
    if limit > 0 {
        limit.to_string()
    } else {
        "unlimited".to_owned()
    }
}
