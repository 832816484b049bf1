//! Between this crate's words and the library's.

use qdrant_edge::external::ordered_float::OrderedFloat;
use qdrant_edge::external::serde_json::{Value, from_value};
use qdrant_edge::{
    Condition as EdgeCondition, CreateIndex, EdgeConfig, EdgeVectorParams, FieldCondition,
    FieldIndexOperations, Filter, IntegerIndexParams, JsonPath, Match, Payload as EdgePayload,
    PayloadFieldSchema, PayloadSchemaParams, PayloadSchemaType, PointId, PointInsertOperations,
    PointOperations, PointStruct, PointStructPersisted, Range, UpdateOperation, Vectors,
    WalOptions,
};
use sightline_proto::internal::Record;

use crate::payload::{Checked, INDEXED, Lookup, VECTOR};
use crate::query::Condition;
use crate::{EmbeddingModel, VectorError, payload};

/// Size of one file of the library's log of operations.
const WAL_FILE_BYTES: usize = 8 << 20;

/// How the store is made. Vectors and payloads are read from the page cache, so that memory is free for other use.
pub(super) fn config(model: &EmbeddingModel) -> EdgeConfig {
    let vector = EdgeVectorParams::builder(model.dimension, qdrant_edge::Distance::Cosine)
        .on_disk(true)
        .build();
    EdgeConfig::builder()
        .on_disk_payload(true)
        .vector(VECTOR, vector)
        .wal_options(WalOptions {
            segment_capacity: WAL_FILE_BYTES,
            ..WalOptions::default()
        })
        .build()
}

/// Makes every index.
pub(super) fn index_operations() -> impl Iterator<Item = UpdateOperation> {
    INDEXED.into_iter().map(|(field, lookup)| {
        let integer = |lookup, range| {
            PayloadFieldSchema::FieldParams(PayloadSchemaParams::Integer(IntegerIndexParams {
                lookup: Some(lookup),
                range: Some(range),
                ..IntegerIndexParams::default()
            }))
        };
        let schema = match lookup {
            Lookup::Keyword => PayloadFieldSchema::FieldType(PayloadSchemaType::Keyword),
            Lookup::Integer => integer(true, false),
            Lookup::Range => integer(false, true),
        };
        UpdateOperation::FieldIndexOperation(FieldIndexOperations::CreateIndex(CreateIndex {
            field_name: path(field),
            field_schema: Some(schema),
        }))
    })
}

pub(super) fn point(checked: Checked) -> PointStructPersisted {
    let vectors = checked.vector.map(|vector| (VECTOR, vector));
    PointStruct::new(
        PointId::Uuid(checked.id),
        Vectors::new_named(vectors),
        checked.payload,
    )
    .into()
}

/// Stores points.
pub(super) fn upsert(points: Vec<PointStructPersisted>) -> UpdateOperation {
    UpdateOperation::PointOperation(PointOperations::UpsertPoints(
        PointInsertOperations::PointsList(points),
    ))
}

/// Deletes the points that a filter leaves.
pub(super) fn delete(filter: Filter) -> UpdateOperation {
    UpdateOperation::PointOperation(PointOperations::DeletePointsByFilter(filter))
}

pub(super) fn record(id: PointId, stored: Option<EdgePayload>) -> Result<Record, VectorError> {
    let PointId::Uuid(id) = id else {
        return Err(VectorError::read("a point has no UUID"));
    };
    let stored = stored.ok_or_else(|| VectorError::read("a point has no payload"))?;
    let stored = from_value(Value::Object(stored.0)).map_err(VectorError::read)?;
    payload::record(id, stored)
}

pub(super) fn filter(conditions: &[Condition]) -> Option<Filter> {
    let must: Vec<_> = conditions
        .iter()
        .map(|condition| EdgeCondition::Field(field_condition(condition)))
        .collect();
    (!must.is_empty()).then(|| Filter {
        must: Some(must),
        ..Filter::default()
    })
}

fn field_condition(condition: &Condition) -> FieldCondition {
    match condition {
        Condition::OneOf(field, words) => {
            FieldCondition::new_match(path(field), Match::from(words.clone()))
        }
        Condition::In(field, values) => {
            FieldCondition::new_match(path(field), Match::from(values.clone()))
        }
        Condition::Between(field, above, below) => FieldCondition::new_range(
            path(field),
            Range {
                gt: above.map(|bound| OrderedFloat(bound as f64)),
                lt: below.map(|bound| OrderedFloat(bound as f64)),
                ..Range::default()
            },
        ),
    }
}

/// A field's name as the library's path.
pub(super) fn path(field: &str) -> JsonPath {
    field.parse().expect("a plain name is a path")
}
