//! Indexes: creating, reading and changing them, starting and stopping.

use sightline_proto::internal::IndexRecord;
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::time::timestamp;
use sightline_proto::v1::index::{Kind, State};
use sightline_proto::v1::{self, Index};

use super::paging::Position;
use super::sampling::{batching, sampling};
use super::violations::{Violations, refused, shown};
use super::{Session, catalog_failed};

const MAX_PROMPT: usize = 4000;
const MAX_NAME: usize = 200;

impl Session {
    /// Creates an index of a stream's pictures, running.
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
            .create_once(request_id, &request, |id| {
                self.running(Index {
                    id: id.to_owned(),
                    rtstream_id: request.rtstream_id.clone(),
                    name: request.name.clone(),
                    prompt: request.prompt.clone(),
                    model,
                    sampling: Some(sampling),
                    kind: Kind::Visual.into(),
                    ..Default::default()
                })
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
        let batching = batching(&mut faults, request.batching);
        let request_id = faults.request_id(&request.request_id);
        faults.into_result()?;
        let model = self.model(&request.model)?;
        self.stream(&request.rtstream_id).await?;
        let record = self
            .create_once(request_id, &request, |id| {
                self.running(Index {
                    id: id.to_owned(),
                    rtstream_id: request.rtstream_id.clone(),
                    name: request.name.clone(),
                    prompt: request.prompt.clone(),
                    model,
                    kind: Kind::Audio.into(),
                    batching: Some(batching),
                    ..Default::default()
                })
            })
            .await?;
        self.start_transcription(&v1::StartTranscriptionRequest {
            rtstream_id: request.rtstream_id,
            ..Default::default()
        })
        .await?;
        Ok(index_of(&record))
    }

    /// A new index of the caller's.
    fn running(&self, described: Index) -> IndexRecord {
        let mut index = Index {
            prompt_revision: 1,
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
        self.change_index(id, |index| index.set_state(state)).await
    }

    /// Changes the name or the prompt of an index.
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
        faults.into_result()?;
        self.change_index(&request.index_id, |index| {
            if let Some(name) = &request.name {
                index.name.clone_from(name);
            }
            if let Some(prompt) = request.prompt.as_ref().filter(|new| **new != index.prompt) {
                index.prompt.clone_from(prompt);
                index.prompt_revision += 1;
            }
        })
        .await
    }

    async fn change_index(&self, id: &str, change: impl Fn(&mut Index)) -> Result<Index, ApiError> {
        self.index(id).await?;
        let record = self
            .catalog
            .modify::<IndexRecord>(id, |record| {
                let Some(index) = record.index.as_mut() else {
                    return false;
                };
                let before = index.clone();
                change(index);
                *index != before
            })
            .await
            .map_err(catalog_failed)?;
        Ok(index_of(&record))
    }

    /// One index, as it was described.
    pub(crate) async fn index(&self, id: &str) -> Result<Index, ApiError> {
        let found = self.find::<IndexRecord>("index_id", id).await?;
        Ok(index_of(&found.value))
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

/// Those made before there were kinds have none: they are visual.
fn index_of(record: &IndexRecord) -> Index {
    let mut index = record.index.clone().unwrap_or_default();
    if index.kind() == Kind::Unspecified {
        index.set_kind(Kind::Visual);
    }
    index
}
