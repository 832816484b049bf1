//! What is stored beside a vector: the fields that queries use, and the record.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use sightline_proto::internal::{Record, RecordKind};
use uuid::Uuid;

use crate::{EmbeddingModel, Point, VectorError};

/// The one vector of a point. It has a name because only named vectors can be left out.
pub(crate) const VECTOR: &str = "text";

pub(crate) const KIND: &str = "kind";
pub(crate) const RTSTREAM: &str = "rtstream_id";
pub(crate) const COLLECTION: &str = "collection_id";
pub(crate) const INDEX: &str = "index_id";
pub(crate) const START: &str = "start_us";
pub(crate) const END: &str = "end_us";
pub(crate) const EPOCH: &str = "epoch_us";
pub(crate) const WINDOW: &str = "window";

/// How a field is looked up.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lookup {
    /// Words, by equality.
    Keyword,
    /// Integers, by equality.
    Integer,
    /// Integers, by order.
    Range,
}

/// Every field that queries use. Without its index, a query would read every stored point.
pub(crate) const INDEXED: [(&str, Lookup); 8] = [
    (KIND, Lookup::Integer),
    (RTSTREAM, Lookup::Keyword),
    (COLLECTION, Lookup::Keyword),
    (INDEX, Lookup::Keyword),
    (START, Lookup::Range),
    (END, Lookup::Range),
    (EPOCH, Lookup::Integer),
    (WINDOW, Lookup::Integer),
];

/// Qdrant compares integers as 64 bit floats: beyond this, neighbours become equal. In microseconds it is the year 2255.
const LARGEST: i64 = 1 << 53;

/// The stored form.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Payload {
    kind: i32,
    rtstream_id: String,
    collection_id: String,
    index_id: String,
    start_us: i64,
    end_us: i64,
    epoch_us: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    window: Option<u64>,
    text: String,
    /// The encoded observation in base64: payloads are JSON.
    observation: String,
}

/// A point that has been checked.
pub(crate) struct Checked {
    pub(crate) id: Uuid,
    pub(crate) vector: Option<Vec<f32>>,
    /// A JSON object.
    pub(crate) payload: Value,
}

/// Checks a point and brings it into its stored form.
pub(crate) fn check(point: Point, model: &EmbeddingModel) -> Result<Checked, VectorError> {
    let Point {
        record,
        epoch_us,
        window,
        vector,
    } = point;
    let id = point_id(&record.id)?;
    let invalid = |problem: String| Err(VectorError::Invalid(format!("record {id}: {problem}")));
    if record.kind() == RecordKind::Unspecified {
        return invalid(format!("kind {} is not known", record.kind));
    }
    for (name, us) in [
        (START, record.start_us),
        (END, record.end_us),
        (EPOCH, epoch_us),
    ] {
        if us.unsigned_abs() > LARGEST.unsigned_abs() {
            return invalid(format!("{name} is {us}, which is no time in microseconds"));
        }
    }
    if window.is_some_and(|window| window > LARGEST.unsigned_abs()) {
        return invalid("its window's number is too large".to_owned());
    }
    if let Some(vector) = &vector {
        check_vector(vector, model)?;
    }
    let payload = Payload {
        kind: record.kind,
        rtstream_id: record.rtstream_id,
        collection_id: record.collection_id,
        index_id: record.index_id,
        start_us: record.start_us,
        end_us: record.end_us,
        epoch_us,
        window,
        text: record.text,
        observation: STANDARD_NO_PAD.encode(&record.observation),
    };
    let payload = serde_json::to_value(payload)
        .map_err(|error| VectorError::Invalid(format!("record {id}: {error}")))?;
    Ok(Checked {
        id,
        vector,
        payload,
    })
}

/// Refuses what the store's model can't have made.
pub(crate) fn check_vector(vector: &[f32], model: &EmbeddingModel) -> Result<(), VectorError> {
    if vector.len() != model.dimension {
        return Err(VectorError::Invalid(format!(
            "the vector has {} numbers, and the store's model makes vectors of {}",
            vector.len(),
            model.dimension
        )));
    }
    if !vector.iter().all(|number| number.is_finite()) {
        return Err(VectorError::Invalid(
            "the vector holds something that is no number".to_owned(),
        ));
    }
    Ok(())
}

/// A record's id as a point's.
pub(crate) fn point_id(id: &str) -> Result<Uuid, VectorError> {
    Uuid::parse_str(id).map_err(|_| VectorError::Invalid(format!("id {id:?} is not a UUID")))
}

/// The record of a stored point.
pub(crate) fn record(id: Uuid, payload: Payload) -> Result<Record, VectorError> {
    let observation = STANDARD_NO_PAD
        .decode(&payload.observation)
        .map_err(VectorError::read)?;
    Ok(Record {
        id: id.to_string(),
        kind: payload.kind,
        rtstream_id: payload.rtstream_id,
        collection_id: payload.collection_id,
        index_id: payload.index_id,
        start_us: payload.start_us,
        end_us: payload.end_us,
        text: payload.text,
        observation: observation.into(),
    })
}
