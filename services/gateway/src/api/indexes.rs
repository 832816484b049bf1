//! Indexes: creating, reading, starting and stopping them, their scenes, and search.

use sightline_proto::ids::Kind;
use sightline_proto::internal::{
    IndexRecord, RecordFilter, RecordKind, RtStreamRecord, SearchRecordsRequest,
    search_records_response,
};
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::time::{duration, duration_micros, timestamp};
use sightline_proto::v1::index::State;
use sightline_proto::v1::search_hit;
use sightline_proto::v1::{self, Index, TimeSampling};

use super::paging::{Pages, Position};
use super::violations::{Violations, refused, shown};
use super::{Session, catalog_failed, convert};

const MAX_PROMPT: usize = 4000;
const MAX_NAME: usize = 200;
const MAX_QUERY: usize = 1000;
const SECOND_US: i64 = 1_000_000;
const WINDOW_SECONDS: std::ops::RangeInclusive<i64> = 1..=600;
const FRAMES: std::ops::RangeInclusive<u32> = 1..=16;
const FRAMES_A_SECOND: i64 = 10;
const DEFAULT_RESULTS: u32 = 10;
const MAX_RESULTS: i32 = 100;

impl Session {
    /// Creates an index, running.
    pub(crate) async fn create_visual_index(
        &self,
        request: v1::CreateVisualIndexRequest,
    ) -> Result<Index, ApiError> {
        let mut faults = Violations::default();
        faults.text("prompt", &request.prompt, 1, MAX_PROMPT);
        faults.text("name", &request.name, 0, MAX_NAME);
        let sampling = sampling(&mut faults, request.sampling);
        let request_id = faults.request_id(&request.request_id);
        faults.into_result()?;
        let model = self.model(&request.model)?;
        self.stream(&request.rtstream_id).await?;
        let record = self
            .create_once(Kind::Index, request_id, &request, |id| IndexRecord {
                index: Some(Index {
                    id: id.to_owned(),
                    rtstream_id: request.rtstream_id.clone(),
                    name: if request.name.is_empty() {
                        id.to_owned()
                    } else {
                        request.name.clone()
                    },
                    prompt: request.prompt.clone(),
                    prompt_revision: 1,
                    model,
                    sampling: Some(sampling),
                    state: State::Running.into(),
                    create_time: Some(timestamp(self.clock.now_us())),
                    stats: None,
                }),
            })
            .await?;
        Ok(index_of(&record))
    }

    /// One index with its counts, or without them while the embeddings service does not answer.
    pub(crate) async fn get_index(&self, id: &str) -> Result<Index, ApiError> {
        let mut index = self.index(id).await?;
        index.stats = self.records.count(id).await;
        Ok(index)
    }

    /// The indexes of a stream, oldest first; counts are left to `get_index`.
    pub(crate) async fn list_indexes(
        &self,
        request: v1::ListIndexesRequest,
    ) -> Result<v1::ListIndexesResponse, ApiError> {
        let mut faults = Violations::default();
        let size = faults.page_size(request.page_size);
        faults.into_result()?;
        self.stream(&request.rtstream_id).await?;
        let pages = Pages::of(
            "ListIndexes",
            &v1::ListIndexesRequest {
                page_size: 0,
                page_token: String::new(),
                ..request.clone()
            },
        );
        let indexes = self
            .catalog
            .list::<IndexRecord>()
            .into_iter()
            .map(|(_, record)| record.value)
            .filter(|record| {
                let stream = record.index.as_ref().map(|index| &index.rtstream_id);
                stream == Some(&request.rtstream_id)
            })
            .map(|record| index_of(&record));
        let (indexes, next_page_token) =
            pages.cut(indexes, &request.page_token, size, false, |index| {
                Position::of_id(&index.id)
            })?;
        Ok(v1::ListIndexesResponse {
            indexes,
            next_page_token,
        })
    }

    /// Has an index describe new windows, or not.
    pub(crate) async fn set_index_state(&self, id: &str, state: State) -> Result<Index, ApiError> {
        self.index(id).await?;
        let record = self
            .catalog
            .modify::<IndexRecord>(id, |record| {
                let Some(index) = record.index.as_mut() else {
                    return false;
                };
                let changes = index.state() != state;
                index.set_state(state);
                changes
            })
            .await
            .map_err(catalog_failed)?;
        Ok(index_of(&record))
    }

    /// The scenes of an index, newest first.
    pub(crate) async fn list_scenes(
        &self,
        request: v1::ListScenesRequest,
    ) -> Result<v1::ListScenesResponse, ApiError> {
        let mut faults = Violations::default();
        let size = faults.page_size(request.page_size);
        let (start_us, end_us) =
            faults.period(request.start_time.as_ref(), request.end_time.as_ref());
        faults.into_result()?;
        let pages = Pages::of(
            "ListScenes",
            &v1::ListScenesRequest {
                page_size: 0,
                page_token: String::new(),
                ..request.clone()
            },
        );
        let after = pages.start(&request.page_token)?;
        let index = self.index(&request.index_id).await?;
        let filter = RecordFilter {
            rtstream_ids: vec![index.rtstream_id],
            index_id: request.index_id,
            kind: RecordKind::Scene.into(),
            start_us,
            end_us,
            ..Default::default()
        };
        let page = self.records.list(filter, size, true, after).await?;
        Ok(v1::ListScenesResponse {
            scenes: page
                .observations()
                .filter_map(|o| convert::scene(&o))
                .map(|scene| self.linker.link(scene))
                .collect(),
            next_page_token: page
                .next
                .map_or_else(String::new, |last| pages.token(&last)),
        })
    }

    /// Scenes and transcript segments by meaning, best first.
    pub(crate) async fn search(
        &self,
        request: v1::SearchRequest,
    ) -> Result<v1::SearchResponse, ApiError> {
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
        let (start_us, end_us) =
            faults.period(request.start_time.as_ref(), request.end_time.as_ref());
        faults.into_result()?;
        self.check_scope(&request).await?;
        let one_stream = Some(request.rtstream_id).filter(|id| !id.is_empty());
        let filter = RecordFilter {
            rtstream_ids: one_stream.into_iter().collect(),
            collection_id: request.collection_id,
            index_id: request.index_id,
            kind: RecordKind::Unspecified.into(),
            start_us,
            end_us,
        };
        let found = self
            .records
            .search(SearchRecordsRequest {
                query: request.query,
                filter: Some(filter),
                limit: match request.limit {
                    0 => DEFAULT_RESULTS,
                    limit => limit.unsigned_abs(),
                },
                min_score: request.min_score,
            })
            .await?;
        Ok(v1::SearchResponse {
            hits: found
                .hits
                .into_iter()
                .filter_map(hit)
                .map(|hit| self.linker.link(hit))
                .collect(),
        })
    }

    /// An index's name; none for one that is not known.
    pub(crate) fn index_name(&self, id: &str) -> Option<String> {
        let record = self.catalog.get::<IndexRecord>(id)?;
        record.value.index.as_ref().map(|index| index.name.clone())
    }

    /// One index, as it was described.
    pub(crate) async fn index(&self, id: &str) -> Result<Index, ApiError> {
        let found = self
            .find::<IndexRecord>(Kind::Index, "index_id", id)
            .await?;
        Ok(index_of(&found.value))
    }

    /// Whether what a search names exists and belongs together.
    async fn check_scope(&self, request: &v1::SearchRequest) -> Result<(), ApiError> {
        if request.rtstream_id.is_empty() {
            self.collection(&request.collection_id).await?;
        } else {
            self.stream(&request.rtstream_id).await?;
        }
        if request.index_id.is_empty() {
            return Ok(());
        }
        let index = self.index(&request.index_id).await?;
        let inside = if request.rtstream_id.is_empty() {
            let stream = self.catalog.get::<RtStreamRecord>(&index.rtstream_id);
            let stream = stream.as_ref().and_then(|s| s.value.rtstream.as_ref());
            stream.is_some_and(|stream| stream.collection_id == request.collection_id)
        } else {
            index.rtstream_id == request.rtstream_id
        };
        if inside {
            return Ok(());
        }
        let allowed = "an index of the stream or collection that is searched";
        Err(refused(Reason::InvalidArgument, "index_id", allowed))
    }

    fn model(&self, asked: &str) -> Result<String, ApiError> {
        if asked.is_empty() {
            return Ok(self.config.default_model.clone());
        }
        if self.config.models.iter().any(|known| known == asked) {
            return Ok(asked.to_owned());
        }
        let known = self.config.models.join(", ");
        let allowed = format!("one of {known}, or empty; got {}", shown(asked));
        Err(refused(Reason::ModelUnknown, "model", allowed))
    }
}

/// The sampling asked for, or 2 frames of every 5 s.
fn sampling(faults: &mut Violations, asked: Option<TimeSampling>) -> TimeSampling {
    let Some(asked) = asked else {
        return TimeSampling {
            window: Some(duration(5 * SECOND_US)),
            frame_count: 2,
        };
    };
    let window_us = asked.window.as_ref().map_or(0, duration_micros);
    let (shortest, longest) = (WINDOW_SECONDS.start(), WINDOW_SECONDS.end());
    if !(shortest * SECOND_US..=longest * SECOND_US).contains(&window_us) {
        let got = window_us as f64 / SECOND_US as f64;
        let allowed = format!("{shortest} s to {longest} s, got {got} s");
        faults.add("sampling.window", allowed);
    } else if i64::from(asked.frame_count) * SECOND_US > window_us * FRAMES_A_SECOND
        && FRAMES.contains(&asked.frame_count)
    {
        let most = window_us * FRAMES_A_SECOND / SECOND_US;
        let allowed = format!(
            "at most {FRAMES_A_SECOND} frames a second, that is {most} for this window, got {}",
            asked.frame_count
        );
        faults.add("sampling.frame_count", allowed);
    }
    if !FRAMES.contains(&asked.frame_count) {
        let (least, most) = (FRAMES.start(), FRAMES.end());
        let allowed = format!("{least} to {most}, got {}", asked.frame_count);
        faults.add("sampling.frame_count", allowed);
    }
    TimeSampling {
        window: Some(duration(window_us)),
        frame_count: asked.frame_count,
    }
}

fn index_of(record: &IndexRecord) -> Index {
    record.index.clone().unwrap_or_default()
}

fn hit(found: search_records_response::Hit) -> Option<v1::SearchHit> {
    let record = found.record?;
    let kind = match record.kind() {
        RecordKind::Scene => search_hit::Kind::Scene,
        RecordKind::Transcript => search_hit::Kind::Transcript,
        RecordKind::Unspecified => search_hit::Kind::Unspecified,
    };
    Some(v1::SearchHit {
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

#[cfg(test)]
mod tests {
    use super::*;

    fn check(window_us: i64, frame_count: u32, expected: &[&str]) {
        let mut faults = Violations::default();
        let asked = TimeSampling {
            window: Some(duration(window_us)),
            frame_count,
        };
        let taken = sampling(&mut faults, Some(asked));
        let found = faults.into_result().err().map_or(Vec::new(), |e| e.fields);
        let found: Vec<_> = found
            .iter()
            .map(|(field, allowed)| format!("{field}: {allowed}"))
            .collect();
        assert_eq!(found, expected, "{window_us} us, {frame_count} frames");
        if expected.is_empty() {
            assert_eq!(taken, asked);
        }
    }

    #[test]
    fn samplings_within_the_limits_are_taken_and_others_say_why() {
        check(5_000_000, 2, &[]);
        check(1_000_000, 10, &[]);
        check(600_000_000, 16, &[]);
        check(1_500_000, 15, &[]);
        check(0, 1, &["sampling.window: 1 s to 600 s, got 0 s"]);
        check(-1_000_000, 1, &["sampling.window: 1 s to 600 s, got -1 s"]);
        check(
            999_999,
            1,
            &["sampling.window: 1 s to 600 s, got 0.999999 s"],
        );
        check(
            600_000_001,
            1,
            &["sampling.window: 1 s to 600 s, got 600.000001 s"],
        );
        check(
            i64::MAX,
            1,
            &["sampling.window: 1 s to 600 s, got 9223372036854.775 s"],
        );
        check(5_000_000, 0, &["sampling.frame_count: 1 to 16, got 0"]);
        check(
            5_000_000,
            1000,
            &["sampling.frame_count: 1 to 16, got 1000"],
        );
        check(
            1_000_000,
            11,
            &[
                "sampling.frame_count: at most 10 frames a second, that is 10 for this window, got 11",
            ],
        );
        check(
            0,
            1000,
            &[
                "sampling.window: 1 s to 600 s, got 0 s",
                "sampling.frame_count: 1 to 16, got 1000",
            ],
        );
    }

    #[test]
    fn without_a_sampling_it_is_2_frames_of_every_5_seconds() {
        let mut faults = Violations::default();
        let taken = sampling(&mut faults, None);
        assert_eq!(taken.frame_count, 2);
        assert_eq!(taken.window.as_ref().map(duration_micros), Some(5_000_000));
    }
}
