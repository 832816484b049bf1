//! Identifiers: random ones for what users create, deterministic ones for what is observed.
//!
//! A deterministic id is a UUIDv5 over everything that makes two results the same result, so that a repeated computation
//! yields the same id and redelivery never duplicates anything.

use uuid::Uuid;

use crate::internal::Sampling;

/// Names this platform's ids among all UUIDv5 ones.
const NAMESPACE: Uuid = Uuid::from_u128(0x6f1f_9a52_3b0e_5c8e_9d47_51c0_71f5_2d10);

/// What a random id is for; it decides the prefix.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// `rts-…`
    RtStream,
    /// `idx-…`
    Index,
    /// `evt-…`
    Event,
    /// `alr-…`
    Alert,
    /// `c-…`
    Collection,
    /// `exp-…`
    Export,
    /// `key-…`
    Key,
    /// `ep-…`; not random: see [`endpoint_id`].
    Endpoint,
    /// `ws-…`
    Connection,
}

impl Kind {
    /// The prefix, with its hyphen.
    pub fn prefix(self) -> &'static str {
        match self {
            Kind::RtStream => "rts-",
            Kind::Index => "idx-",
            Kind::Event => "evt-",
            Kind::Alert => "alr-",
            Kind::Collection => "c-",
            Kind::Export => "exp-",
            Kind::Key => "key-",
            Kind::Endpoint => "ep-",
            Kind::Connection => "ws-",
        }
    }
}

/// A new id: the kind's prefix and a UUIDv7, so that ids sort by creation.
pub fn new_id(kind: Kind) -> String {
    format!("{}{}", kind.prefix(), Uuid::now_v7())
}

/// The id of an observation: uuid v5 of its kind, stream, epoch, start, what it answers (index, event or engine), prompt
/// revision and model revision.
pub fn observation_id(
    kind: &str,
    rtstream: &str,
    epoch_us: i64,
    start_us: i64,
    answers: &str,
    prompt_revision: u32,
    model_revision: &str,
) -> String {
    derive(&[
        "observation",
        kind,
        rtstream,
        &epoch_us.to_string(),
        &start_us.to_string(),
        answers,
        &prompt_revision.to_string(),
        model_revision,
    ])
}

/// The id of one window of one sampling of a stream.
pub fn window_id(rtstream: &str, epoch_us: i64, sampling: &Sampling, window: u64) -> String {
    let sampling = sampling_key(sampling);
    derive(&[
        "window",
        rtstream,
        &epoch_us.to_string(),
        &sampling,
        &window.to_string(),
    ])
}

/// The id of the utterance that starts here.
pub fn chunk_id(rtstream: &str, epoch_us: i64, start_us: i64) -> String {
    derive(&[
        "chunk",
        rtstream,
        &epoch_us.to_string(),
        &start_us.to_string(),
    ])
}

/// The id of the firing whose first window starts here.
pub fn firing_id(alert: &str, epoch_us: i64, start_us: i64) -> String {
    derive(&[
        "firing",
        alert,
        &epoch_us.to_string(),
        &start_us.to_string(),
    ])
}

/// The id of the export of a stretch of a stream under a name.
pub fn export_id(rtstream: &str, start_us: i64, end_us: i64, name: &str) -> String {
    let derived = derive(&[
        "export",
        rtstream,
        &start_us.to_string(),
        &end_us.to_string(),
        name,
    ]);
    format!("{}{derived}", Kind::Export.prefix())
}

/// The id of a webhook receiver: a tenant's alerts that post to one URL share one endpoint. No tenant is "default".
pub fn endpoint_id(tenant: &str, url: &str) -> String {
    let tenant = if tenant.is_empty() { "default" } else { tenant };
    let derived = derive(&["endpoint", tenant, url]);
    format!("{}{derived}", Kind::Endpoint.prefix())
}

/// A sampling as one token of a subject: `<window_us>x<frames>`.
pub fn sampling_key(sampling: &Sampling) -> String {
    format!("{}x{}", sampling.window_us, sampling.frame_count)
}

/// A UUIDv5 over the parts, each preceded by its length so that no two lists of parts read the same.
fn derive(parts: &[&str]) -> String {
    let mut name = Vec::with_capacity(128);
    for part in parts {
        name.extend_from_slice(&(part.len() as u64).to_be_bytes());
        name.extend_from_slice(part.as_bytes());
    }
    Uuid::new_v5(&NAMESPACE, &name).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Ids are stored and compared across releases: a change of the derivation would duplicate everything.
    #[test]
    fn deterministic_ids_never_change() {
        let sampling = Sampling {
            window_us: 5_000_000,
            frame_count: 2,
        };
        let ids = [
            observation_id("scene", "rts-1", 10, 20, "idx-1", 1, "m1"),
            window_id("rts-1", 10, &sampling, 3),
            chunk_id("rts-1", 10, 20),
            firing_id("alr-1", 10, 20),
            endpoint_id("default", "http://127.0.0.1/hook"),
        ];
        let expected = [
            "25de0743-cfe9-5c18-972b-dfd40e80ee95",
            "bb28f277-5db2-5693-9bf3-268754123c54",
            "33db2ad2-b7d2-585a-9902-e6609e3333e0",
            "cae86562-996a-55cf-bf10-2c57de9219db",
            "ep-c7e1e35f-e760-5607-97ed-59c144b29886",
        ];
        assert_eq!(ids, expected);
    }

    #[test]
    fn parts_do_not_run_together() {
        assert_ne!(derive(&["ab", "c"]), derive(&["a", "bc"]));
    }

    #[test]
    fn random_ids_carry_their_kind_and_sort_by_creation() {
        let first = new_id(Kind::RtStream);
        let second = new_id(Kind::RtStream);
        assert!(first.starts_with("rts-"));
        assert!(first < second);
    }
}
