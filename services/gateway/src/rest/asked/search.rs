//! Searches.

use serde::Deserialize;
use serde_json::Value;
use sightline_proto::reasons::ApiError;
use sightline_proto::v1;
use sightline_proto::v1::search_hit::Kind;

use crate::rest::filters::{self, Filter};
use crate::rest::request::unsupported;
use crate::rest::values::{Number, whole, wrong};

/// What to look for.
#[derive(Deserialize)]
pub(crate) struct Query {
    query: String,
    scene_index_id: Option<String>,
    result_threshold: Option<Number>,
    score_threshold: Option<Number>,
    dynamic_score_percentage: Option<Number>,
    stitch: Option<bool>,
    filter: Option<Filter>,
    index_type: Option<String>,
    rerank: Option<Value>,
}

impl Query {
    /// The request with what the body adds.
    pub(crate) fn added_to(
        self,
        request: v1::SearchRequest,
    ) -> Result<v1::SearchRequest, ApiError> {
        unsupported([("rerank", &self.rerank)])?;
        let limit = whole("result_threshold", self.result_threshold, 1..=100)?;
        let fraction = |number: Option<Number>| number.map_or(0.0, |Number(number)| number as f32);
        let request = v1::SearchRequest {
            query: self.query,
            index_id: self.scene_index_id.unwrap_or_default(),
            limit: limit.unwrap_or_default() as i32,
            min_score: fraction(self.score_threshold),
            stitch: self.stitch.unwrap_or_default(),
            dynamic_score_percentage: fraction(self.dynamic_score_percentage),
            kinds: kinds(self.index_type.as_deref())?,
            ..request
        };
        filters::apply(self.filter, request)
    }
}

/// What VideoDB's words for kinds of indexes stand for.
fn kinds(index_type: Option<&str>) -> Result<Vec<i32>, ApiError> {
    let kinds: &[Kind] = match index_type {
        None => &[],
        Some("scene") => &[Kind::Scene],
        Some("spoken_word") => &[Kind::Transcript, Kind::AudioScene],
        Some(_) => return Err(wrong("index_type", "\"scene\" or \"spoken_word\"")),
    };
    Ok(kinds.iter().map(|&kind| kind.into()).collect())
}
