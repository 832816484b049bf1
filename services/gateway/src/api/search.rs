//! Search: scenes and transcript segments by meaning, in one stream or across a collection.

use sightline_proto::internal::{
    IndexRecord, RecordFilter, RecordKind, RtStreamRecord, SearchRecordsRequest,
    search_records_response,
};
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::time::timestamp;
use sightline_proto::v1::search_hit::Kind;
use sightline_proto::v1::{self, SearchHit};

use super::tenancy::Owned;
use super::violations::{Violations, refused};
use super::{Session, ranking};

const MAX_QUERY: usize = 1000;
const DEFAULT_RESULTS: u32 = 10;
const MAX_RESULTS: i32 = 100;

impl Session {
    /// Scenes and transcript segments by meaning, best first.
    pub(crate) async fn search(
        &self,
        request: v1::SearchRequest,
    ) -> Result<v1::SearchResponse, ApiError> {
        let (start_us, end_us) = check(&request)?;
        let filter = RecordFilter {
            kinds: request.kinds().map(|kind| stored(kind).into()).collect(),
            start_us,
            end_us,
            ..self.scope(&request).await?
        };
        let percentage = request.dynamic_score_percentage;
        let found = self
            .records
            .search(SearchRecordsRequest {
                query: request.query,
                filter: Some(filter),
                limit: match request.limit {
                    0 => DEFAULT_RESULTS,
                    limit => limit.unsigned_abs(),
                },
                // The range of scores is taken over everything found.
                min_score: if percentage > 0.0 {
                    0.0
                } else {
                    request.min_score
                },
            })
            .await?;
        let mut hits: Vec<SearchHit> = found.hits.into_iter().filter_map(hit).collect();
        ranking::keep_upper(&mut hits, percentage);
        hits.retain(|hit| hit.score >= request.min_score);
        hits.retain_mut(|hit| self.name(hit));
        if request.stitch {
            hits = ranking::stitch(hits);
        }
        let hits = hits.into_iter().map(|hit| self.linker.link(hit)).collect();
        Ok(v1::SearchResponse { hits })
    }

    /// Where to look: what is named has to exist and to belong together.
    async fn scope(&self, request: &v1::SearchRequest) -> Result<RecordFilter, ApiError> {
        let mut filter = RecordFilter::default();
        if request.rtstream_id.is_empty() {
            filter.collection_id = self.collection(&request.collection_id).await?;
        } else {
            self.stream(&request.rtstream_id).await?;
            filter.rtstream_ids.push(request.rtstream_id.clone());
        }
        if request.index_id.is_empty() {
            return Ok(filter);
        }
        let index = self.index(&request.index_id).await?;
        let inside = if request.rtstream_id.is_empty() {
            let stream = self.catalog.get::<RtStreamRecord>(&index.rtstream_id);
            let stream = stream.as_ref().and_then(|s| s.value.rtstream.as_ref());
            stream.is_some_and(|stream| stream.collection_id == filter.collection_id)
        } else {
            index.rtstream_id == request.rtstream_id
        };
        if !inside {
            let allowed = "an index of the stream or collection that is searched";
            return Err(refused(Reason::InvalidArgument, "index_id", allowed));
        }
        filter.index_id = index.id;
        Ok(filter)
    }

    /// Names a hit's stream and index. Whether they still exist: what is deleted is not found, though the store may keep it
    /// a little longer.
    fn name(&self, hit: &mut SearchHit) -> bool {
        let tenant = self.caller.tenant.as_ref();
        let stream = self.catalog.get::<RtStreamRecord>(&hit.rtstream_id);
        let Some(stream) = stream.filter(|stream| stream.value.is_of(tenant)) else {
            return false;
        };
        if let Some(stream) = &stream.value.rtstream {
            hit.rtstream_name.clone_from(&stream.name);
        }
        if hit.index_id.is_empty() {
            return true;
        }
        let Some(index) = self.catalog.get::<IndexRecord>(&hit.index_id) else {
            return false;
        };
        if let Some(index) = &index.value.index {
            hit.index_name.clone_from(&index.name);
        }
        true
    }
}

/// The period asked for, when the request's fields are sound.
fn check(request: &v1::SearchRequest) -> Result<(i64, i64), ApiError> {
    let mut faults = Violations::default();
    faults.text("query", &request.query, 1, MAX_QUERY);
    faults.fraction("min_score", request.min_score);
    if request.rtstream_id.is_empty() == request.collection_id.is_empty() {
        faults.add("rtstream_id", "set either this or collection_id");
    }
    if !(0..=MAX_RESULTS).contains(&request.limit) {
        let allowed = format!("1 to {MAX_RESULTS}, or 0 for {DEFAULT_RESULTS}");
        faults.add("limit", format!("{allowed}; got {}", request.limit));
    }
    for &kind in &request.kinds {
        if !Kind::try_from(kind).is_ok_and(|kind| kind != Kind::Unspecified) {
            faults.add("kinds", format!("known kinds, got {kind}"));
        }
    }
    let percentage = request.dynamic_score_percentage;
    if !(0.0..=100.0).contains(&percentage) {
        faults.add(
            "dynamic_score_percentage",
            format!("0 to 100, got {percentage}"),
        );
    }
    let period = faults.period(request.start_time.as_ref(), request.end_time.as_ref());
    faults.into_result()?;
    Ok(period)
}

fn stored(kind: Kind) -> RecordKind {
    match kind {
        Kind::Unspecified => RecordKind::Unspecified,
        Kind::Scene => RecordKind::Scene,
        Kind::Transcript => RecordKind::Transcript,
        Kind::AudioScene => RecordKind::AudioScene,
    }
}

fn hit(found: search_records_response::Hit) -> Option<SearchHit> {
    let record = found.record?;
    let kind = match record.kind() {
        RecordKind::Scene => Kind::Scene,
        RecordKind::Transcript => Kind::Transcript,
        RecordKind::AudioScene => Kind::AudioScene,
        RecordKind::Unspecified => Kind::Unspecified,
    };
    Some(SearchHit {
        id: record.id,
        rtstream_id: record.rtstream_id,
        index_id: record.index_id,
        kind: kind.into(),
        start_time: Some(timestamp(record.start_us)),
        end_time: Some(timestamp(record.end_us)),
        text: record.text,
        score: found.score.clamp(0.0, 1.0),
        ..Default::default()
    })
}
