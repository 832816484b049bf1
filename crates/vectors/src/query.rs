//! The meaning of a filter, and what a store must be able to do so that lists and counts can be made of it.

use async_trait::async_trait;
use sightline_proto::internal::{Record, RecordFilter, RecordKind};

use crate::payload::{COLLECTION, END, INDEX, KIND, RTSTREAM, START};
use crate::{Owner, VectorError};

/// Something that a point must fulfil.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Condition {
    /// The field is one of these words.
    OneOf(&'static str, Vec<String>),
    /// The field is one of these integers.
    In(&'static str, Vec<i64>),
    /// The field is above the first bound and below the second.
    Between(&'static str, Option<i64>, Option<i64>),
}

/// What a filter asks for: all of these.
pub(crate) fn conditions(filter: &RecordFilter) -> Vec<Condition> {
    let mut all = Vec::new();
    if !filter.rtstream_ids.is_empty() {
        all.push(Condition::OneOf(RTSTREAM, filter.rtstream_ids.clone()));
    }
    for (field, word) in [
        (COLLECTION, &filter.collection_id),
        (INDEX, &filter.index_id),
    ] {
        if !word.is_empty() {
            all.push(Condition::OneOf(field, vec![word.clone()]));
        }
    }
    let unspecified = i32::from(RecordKind::Unspecified);
    if !filter.kinds.is_empty() && !filter.kinds.contains(&unspecified) {
        let kinds = filter.kinds.iter().copied().map(i64::from).collect();
        all.push(Condition::In(KIND, kinds));
    }
    if filter.start_us != 0 {
        all.push(Condition::Between(END, Some(filter.start_us), None));
    }
    if filter.end_us != 0 {
        all.push(Condition::Between(START, None, Some(filter.end_us)));
    }
    all
}

/// The points of an owner.
pub(crate) fn owned_by(owner: &Owner) -> Result<Condition, VectorError> {
    let (field, id) = match owner {
        Owner::RtStream(id) => (RTSTREAM, id),
        Owner::Index(id) => (INDEX, id),
    };
    // Transcripts belong to no index, and theirs is empty.
    if id.is_empty() {
        return Err(VectorError::Invalid(format!("{field} is empty")));
    }
    Ok(Condition::OneOf(field, vec![id.clone()]))
}

/// What both stores can do.
#[async_trait]
pub(crate) trait Scan: Sync {
    /// The first `limit` records by their start, from `from` (inclusive) on. Records with the same start come in any order.
    async fn by_start(
        &self,
        conditions: &[Condition],
        newest_first: bool,
        from: Option<i64>,
        limit: usize,
    ) -> Result<Vec<Record>, VectorError>;

    /// Every record, in any order.
    async fn all(&self, conditions: &[Condition]) -> Result<Vec<Record>, VectorError>;

    /// The values of a field looked up as `Lookup::Integer`, each once, in any order.
    async fn distinct(
        &self,
        field: &'static str,
        conditions: &[Condition],
    ) -> Result<Vec<i64>, VectorError>;
}
