//! Indexes: creating, reading and changing them, starting and stopping.

use std::sync::Arc;

use sightline_proto::internal::IndexRecord;
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::time::timestamp;
use sightline_proto::v1::index::{Kind, State};
use sightline_proto::v1::{self, Index};

use super::paging::Position;
use super::sampling::{batching, sampling};
use super::violations::{Violations, refused, shown};
use super::{Session, catalog_failed};
use crate::DescribingModel;

const MAX_PROMPT: usize = 4000;
const MAX_NAME: usize = 200;
const MAX_NEW_TOKENS: u32 = 1024;

impl Session {
    /// Creates an index of a stream's pictures, running.
    pub(crate) async fn create_visual_index(
        &self,
        request: v1::CreateVisualIndexRequest,
    ) -> Result<Index, ApiError> {
        let mut faults = Violations::default();
        faults.text("prompt", &request.prompt, 1, MAX_PROMPT);
        faults.text("name", &request.name, 0, MAX_NAME);
        faults.fraction("reuse_below", request.reuse_below);
        check_config(&mut faults, request.model_config.as_ref());
        let sampling = sampling(&mut faults, request.sampling);
        let request_id = faults.request_id(&request.request_id);
        faults.into_result()?;
        let model = self.model(&request.model)?;
        self.stream(&request.rtstream_id).await?;
        let record = self
            .create_once(request_id, &request, |id| {
                let index = Index {
                    id: id.to_owned(),
                    rtstream_id: request.rtstream_id.clone(),
                    name: request.name.clone(),
                    prompt: request.prompt.clone(),
                    sampling: Some(sampling),
                    kind: Kind::Visual.into(),
                    reuse_below: request.reuse_below,
                    model_config: request.model_config,
                    ..Default::default()
                };
                self.running(index, model)
            })
            .await?;
        Ok(index_of(&record))
    }

    /// Creates an index of a stream's transcript, running, and has the stream transcribed.
    pub(crate) async fn create_audio_index(
        &self,
        request: v1::CreateAudioIndexRequest,
    ) -> Result<Index, ApiError> {
        let mut faults = Violations::default();
        faults.text("prompt", &request.prompt, 0, MAX_PROMPT);
        faults.text("name", &request.name, 0, MAX_NAME);
        check_config(&mut faults, request.model_config.as_ref());
        let batching = batching(&mut faults, request.batching);
        let request_id = faults.request_id(&request.request_id);
        faults.into_result()?;
        let model = self.model(&request.model)?;
        self.stream(&request.rtstream_id).await?;
        let record = self
            .create_once(request_id, &request, |id| {
                let index = Index {
                    id: id.to_owned(),
                    rtstream_id: request.rtstream_id.clone(),
                    name: request.name.clone(),
                    prompt: request.prompt.clone(),
                    kind: Kind::Audio.into(),
                    batching: Some(batching),
                    model_config: request.model_config,
                    ..Default::default()
                };
                self.running(index, model)
            })
            .await?;
        self.have_transcribed(&request.rtstream_id, None).await?;
        Ok(index_of(&record))
    }

    /// A new index of the caller's, with this model.
    fn running(&self, described: Index, model: &DescribingModel) -> IndexRecord {
        let mut index = Index {
            prompt_revision: 1,
            model: model.name.clone(),
            state: State::Running.into(),
            create_time: Some(timestamp(self.clock.now_us())),
            ..described
        };
        if index.name.is_empty() {
            index.name.clone_from(&index.id);
        }
        IndexRecord {
            index: Some(index),
            tenant: self.tenant(),
            reads_text: model.reads_text,
            ..Default::default()
        }
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
        let pages = self.pages(
            "ListIndexes",
            &v1::ListIndexesRequest {
                page_size: 0,
                page_token: String::new(),
                ..request.clone()
            },
        );
        let indexes = self
            .all::<IndexRecord>()
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
        let change = |record: &mut IndexRecord| {
            if let Some(index) = record.index.as_mut() {
                index.set_state(state);
            }
        };
        self.change_index(id, change).await
    }

    /// Changes what is given of an index. With a new prompt, an index that was made before its model could read text is read by
    /// it from then on.
    pub(crate) async fn update_index(
        &self,
        request: v1::UpdateIndexRequest,
    ) -> Result<Index, ApiError> {
        let mut faults = Violations::default();
        if let Some(name) = &request.name {
            faults.text("name", name, 1, MAX_NAME);
        }
        if let Some(prompt) = &request.prompt {
            faults.text("prompt", prompt, 1, MAX_PROMPT);
        }
        if let Some(reuse_below) = request.reuse_below {
            faults.fraction("reuse_below", reuse_below);
            let index = self.index(&request.index_id).await?;
            if index.kind() == Kind::Audio && reuse_below != 0.0 {
                faults.add("reuse_below", "0 for an audio index, which has no pictures");
            }
        }
        check_config(&mut faults, request.model_config.as_ref());
        faults.into_result()?;
        self.change_index(&request.index_id, |record| self.update(record, &request))
            .await
    }

    fn update(&self, record: &mut IndexRecord, request: &v1::UpdateIndexRequest) {
        let Some(index) = record.index.as_mut() else {
            return;
        };
        if let Some(name) = &request.name {
            index.name.clone_from(name);
        }
        if let Some(prompt) = request.prompt.as_ref().filter(|new| **new != index.prompt) {
            index.prompt.clone_from(prompt);
            index.prompt_revision += 1;
            // A model that is not known any more may be served by others.
            if let Some(model) = self.known(&index.model) {
                record.reads_text = model.reads_text;
            }
        }
        if let Some(reuse_below) = request.reuse_below {
            index.reuse_below = reuse_below;
        }
        if request.model_config.is_some() {
            index.model_config = request.model_config;
        }
    }

    async fn change_index(
        &self,
        id: &str,
        change: impl Fn(&mut IndexRecord),
    ) -> Result<Index, ApiError> {
        self.index(id).await?;
        let record = self
            .catalog
            .modify::<IndexRecord>(id, |record| {
                let before = record.clone();
                change(record);
                *record != before
            })
            .await
            .map_err(catalog_failed)?;
        Ok(index_of(&record))
    }

    /// One index, as it was described.
    pub(crate) async fn index(&self, id: &str) -> Result<Index, ApiError> {
        Ok(index_of(self.index_record(id).await?.as_ref()))
    }

    /// The same with what callers are not told.
    pub(crate) async fn index_record(&self, id: &str) -> Result<Arc<IndexRecord>, ApiError> {
        Ok(self.find::<IndexRecord>("index_id", id).await?.value)
    }

    fn known(&self, name: &str) -> Option<&DescribingModel> {
        self.config.models.iter().find(|known| known.name == name)
    }

    fn model(&self, asked: &str) -> Result<&DescribingModel, ApiError> {
        let name = if asked.is_empty() {
            &self.config.default_model
        } else {
            asked
        };
        self.known(name).ok_or_else(|| {
            let known = self.config.models.iter().map(|known| known.name.as_str());
            let known = known.collect::<Vec<_>>().join(", ");
            let allowed = format!("one of {known}, or empty; got {}", shown(asked));
            refused(Reason::ModelUnknown, "model", allowed)
        })
    }
}

fn check_config(faults: &mut Violations, config: Option<&v1::ModelConfig>) {
    let tokens = config.map_or(0, |config| config.max_new_tokens);
    if tokens > MAX_NEW_TOKENS {
        let allowed = format!("1 to {MAX_NEW_TOKENS}, or 0 for the default; got {tokens}");
        faults.add("model_config.max_new_tokens", allowed);
    }
}

/// An index as callers see it. Those made before there were kinds have none: they are visual.
fn index_of(record: &IndexRecord) -> Index {
    let mut index = record.index.clone().unwrap_or_default();
    if index.kind() == Kind::Unspecified {
        index.set_kind(Kind::Visual);
    }
    index.prompt_applied =
        index.kind() == Kind::Visual || record.reads_text && !index.prompt.is_empty();
    index
}
