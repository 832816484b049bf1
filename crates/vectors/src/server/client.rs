//! One collection of a Qdrant server, as its API has it.

use std::time::Duration;

use async_trait::async_trait;
use qdrant_client::qdrant::point_id::PointIdOptions;
use qdrant_client::qdrant::{
    Condition as QdrantCondition, CreateCollectionBuilder, CreateFieldIndexCollectionBuilder,
    Direction, Distance, FacetCountsBuilder, FieldType, Filter, GetPointsBuilder,
    IntegerIndexParamsBuilder, NamedVectors, OrderByBuilder, PointId, PointStruct,
    QuantizationType, Range, ScalarQuantizationBuilder, ScrollPointsBuilder, UpsertPointsBuilder,
    Value, Vector, VectorParamsBuilder, VectorsConfigBuilder, facet_value, start_from,
};
use qdrant_client::{Payload as QdrantPayload, Qdrant, QdrantError};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sightline_proto::internal::Record;
use uuid::Uuid;

use crate::about::About;
use crate::payload::{self, Checked, INDEXED, Lookup, START, VECTOR};
use crate::query::{Condition, Scan};
use crate::{EmbeddingModel, VectorError};

use super::{Layout, QdrantConfig};

/// How long the server may take to accept a connection.
const CONNECT_DEADLINE: Duration = Duration::from_secs(3);
/// How long the server may take for any call.
const DEADLINE: Duration = Duration::from_secs(10);
/// Records read at once where all are wanted.
const SCROLL: u32 = 1000;
/// More windows than an epoch has: 1.5 years of windows of 5 s.
const MOST_VALUES: u64 = 10_000_000;
/// The point that says what the collection is.
pub(super) const ABOUT: Uuid = Uuid::nil();

type Fields = std::collections::HashMap<String, Value>;

/// One collection of a server.
pub(super) struct Client {
    pub(super) qdrant: Qdrant,
    pub(super) config: QdrantConfig,
}

impl Client {
    pub(super) fn new(config: QdrantConfig) -> Result<Self, VectorError> {
        let mut builder = Qdrant::from_url(&config.url)
            .timeout(DEADLINE)
            .connect_timeout(CONNECT_DEADLINE)
            .skip_compatibility_check();
        if let Some(key) = &config.api_key {
            builder = builder.api_key(key.clone());
        }
        match builder.build() {
            Ok(qdrant) => Ok(Self { qdrant, config }),
            Err(source) => Err(VectorError::Server {
                url: config.url,
                action: "be connected to",
                source: source.into(),
            }),
        }
    }

    pub(super) async fn exists(&self) -> Result<bool, VectorError> {
        let asking = self.qdrant.collection_exists(&self.config.collection);
        asking.await.map_err(self.failed("say what it holds"))
    }

    /// What the collection says about itself; none if there is no collection, or one whose making was interrupted.
    pub(super) async fn about(&self) -> Result<Option<About>, VectorError> {
        if !self.exists().await? {
            return Ok(None);
        }
        if let Some(about) = self.get(ABOUT).await? {
            return Ok(Some(about));
        }
        let name = &self.config.collection;
        let info = self.qdrant.collection_info(name).await;
        let info = info.map_err(self.failed("say what it holds"))?.result;
        match info.and_then(|info| info.points_count) {
            Some(0) | None => Ok(None),
            Some(_) => Err(VectorError::Foreign {
                collection: name.clone(),
            }),
        }
    }

    /// Makes the collection; what is there of it already is used.
    pub(super) async fn make(&self, model: &EmbeddingModel) -> Result<About, VectorError> {
        let name = &self.config.collection;
        if !self.exists().await? {
            let size = model.dimension as u64;
            let mut vectors = VectorsConfigBuilder::default();
            vectors.add_named_vector_params(VECTOR, vector_params(size, &self.config.layout));
            let request = collection(name, &self.config.layout).vectors_config(vectors);
            let made = self.qdrant.create_collection(request).await;
            made.map_err(self.failed("make a collection"))?;
        }
        for (field, lookup) in INDEXED {
            let request = field_index(name, field, lookup);
            let made = self.qdrant.create_field_index(request).await;
            made.map_err(self.failed("make an index"))?;
        }
        let about = About::new(model);
        self.put(ABOUT, &about).await?;
        // Of several processes that make it at the same time, the last one's identity holds for all.
        Ok(self.about().await?.unwrap_or(about))
    }

    /// Stores something beside the records, under an id that none of them has.
    pub(super) async fn put(&self, id: Uuid, value: &impl Serialize) -> Result<(), VectorError> {
        let payload = serde_json::to_value(value).map_err(VectorError::read)?;
        let point = point(Checked {
            id,
            vector: None,
            payload,
        })?;
        self.upsert(vec![point]).await
    }

    /// What was [`Client::put`] there.
    pub(super) async fn get<T: DeserializeOwned>(
        &self,
        id: Uuid,
    ) -> Result<Option<T>, VectorError> {
        let name = &self.config.collection;
        let request = GetPointsBuilder::new(name, vec![id.to_string().into()]).with_payload(true);
        let found = self.qdrant.get_points(request).await;
        let found = found.map_err(self.failed("read a point"))?.result;
        let Some(point) = found.into_iter().next() else {
            return Ok(None);
        };
        let value = QdrantPayload::from(point.payload).deserialize();
        value.map(Some).map_err(VectorError::read)
    }

    pub(super) async fn upsert(&self, points: Vec<PointStruct>) -> Result<(), VectorError> {
        let request = UpsertPointsBuilder::new(&self.config.collection, points).wait(true);
        let stored = self.qdrant.upsert_points(request).await;
        stored.map(drop).map_err(self.failed("store points"))
    }

    pub(super) fn place(&self) -> String {
        format!("collection {}", self.config.collection)
    }

    pub(super) fn failed(&self, action: &'static str) -> impl FnOnce(QdrantError) -> VectorError {
        let url = self.config.url.clone();
        move |source| VectorError::Server {
            url,
            action,
            source: source.into(),
        }
    }
}

#[async_trait]
impl Scan for Client {
    async fn by_start(
        &self,
        conditions: &[Condition],
        newest_first: bool,
        from: Option<i64>,
        limit: usize,
    ) -> Result<Vec<Record>, VectorError> {
        let direction = if newest_first {
            Direction::Desc
        } else {
            Direction::Asc
        };
        let mut order = OrderByBuilder::new(START).direction(direction.into());
        if let Some(from) = from {
            order = order.start_from(start_from::Value::Integer(from));
        }
        let request = ScrollPointsBuilder::new(&self.config.collection)
            .filter(filter(conditions))
            .order_by(order)
            .limit(u32::try_from(limit).unwrap_or(u32::MAX))
            .with_payload(true);
        let found = self.qdrant.scroll(request).await;
        let found = found.map_err(self.failed("list points"))?.result;
        found
            .into_iter()
            .map(|point| record(point.id, point.payload))
            .collect()
    }

    async fn all(&self, conditions: &[Condition]) -> Result<Vec<Record>, VectorError> {
        let mut records = Vec::new();
        let mut next: Option<PointId> = None;
        loop {
            let mut request = ScrollPointsBuilder::new(&self.config.collection)
                .filter(filter(conditions))
                .limit(SCROLL)
                .with_payload(true);
            if let Some(next) = next {
                request = request.offset(next);
            }
            let found = self.qdrant.scroll(request).await;
            let found = found.map_err(self.failed("list points"))?;
            for point in found.result {
                records.push(record(point.id, point.payload)?);
            }
            next = found.next_page_offset;
            if next.is_none() {
                return Ok(records);
            }
        }
    }

    async fn distinct(
        &self,
        field: &'static str,
        conditions: &[Condition],
    ) -> Result<Vec<i64>, VectorError> {
        let request = FacetCountsBuilder::new(&self.config.collection, field)
            .filter(filter(conditions))
            .limit(MOST_VALUES)
            .exact(true);
        let found = self.qdrant.facet(request).await;
        let found = found.map_err(self.failed("count points"))?.hits;
        let values = found
            .into_iter()
            .filter_map(|hit| match hit.value?.variant {
                Some(facet_value::Variant::IntegerValue(value)) => Some(value),
                _ => None,
            });
        Ok(values.collect())
    }
}

/// A new collection's settings but for its vectors.
fn collection(name: &str, layout: &Layout) -> CreateCollectionBuilder {
    let mut request = CreateCollectionBuilder::new(name).on_disk_payload(layout.on_disk_payload);
    if let Some(shards) = layout.shards {
        request = request.shard_number(shards);
    }
    if let Some(replicas) = layout.replicas {
        request = request.replication_factor(replicas);
    }
    if let Some(writes) = layout.write_consistency {
        request = request.write_consistency_factor(writes);
    }
    request
}

/// Where vectors are kept in int8 for searching, the exact ones, which the best are compared by, can be on disk.
fn vector_params(size: u64, layout: &Layout) -> VectorParamsBuilder {
    let params = VectorParamsBuilder::new(size, Distance::Cosine);
    if !layout.quantized {
        return params;
    }
    let int8 = ScalarQuantizationBuilder::default()
        .r#type(QuantizationType::Int8.into())
        .always_ram(true);
    params.on_disk(true).quantization_config(int8)
}

fn field_index(collection: &str, field: &str, lookup: Lookup) -> CreateFieldIndexCollectionBuilder {
    let integer = |lookup, range| {
        CreateFieldIndexCollectionBuilder::new(collection, field, FieldType::Integer)
            .field_index_params(IntegerIndexParamsBuilder::new(lookup, range))
    };
    let request = match lookup {
        Lookup::Keyword => {
            CreateFieldIndexCollectionBuilder::new(collection, field, FieldType::Keyword)
        }
        Lookup::Integer => integer(true, false),
        Lookup::Range => integer(false, true),
    };
    request.wait(true)
}

pub(super) fn point(checked: Checked) -> Result<PointStruct, VectorError> {
    let mut vectors = NamedVectors::default();
    if let Some(vector) = checked.vector {
        vectors = vectors.add_vector(VECTOR, Vector::from(vector));
    }
    let payload = QdrantPayload::try_from(checked.payload)
        .map_err(|error| VectorError::Invalid(error.to_string()))?;
    Ok(PointStruct::new(checked.id.to_string(), vectors, payload))
}

pub(super) fn uuid_of(id: Option<PointId>) -> Option<String> {
    match id?.point_id_options {
        Some(PointIdOptions::Uuid(id)) => Some(id),
        _ => None,
    }
}

pub(super) fn record(id: Option<PointId>, stored: Fields) -> Result<Record, VectorError> {
    let id = uuid_of(id).ok_or_else(|| VectorError::read("a point has no UUID"))?;
    let id = Uuid::parse_str(&id).map_err(VectorError::read)?;
    let stored = QdrantPayload::from(stored).deserialize();
    payload::record(id, stored.map_err(VectorError::read)?)
}

pub(super) fn filter(conditions: &[Condition]) -> Filter {
    Filter::must(conditions.iter().map(|condition| match condition {
        Condition::OneOf(field, words) => QdrantCondition::matches(*field, words.clone()),
        Condition::In(field, values) => QdrantCondition::matches(*field, values.clone()),
        Condition::Between(field, above, below) => QdrantCondition::range(
            *field,
            Range {
                gt: above.map(|bound| bound as f64),
                lt: below.map(|bound| bound as f64),
                ..Range::default()
            },
        ),
    }))
}
