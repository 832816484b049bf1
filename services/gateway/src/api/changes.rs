//! Changes of connected streams: their name, and whether their speech is transcribed.

use sightline_proto::internal::RtStreamRecord;
use sightline_proto::reasons::ApiError;
use sightline_proto::v1::RtStream;

use super::streams::MAX_NAME;
use super::violations::Violations;
use super::{Session, catalog_failed};

impl Session {
    /// Has a stream's speech transcribed from now on, or not; what was already taken in still is.
    pub(crate) async fn set_transcribe(
        &self,
        id: &str,
        transcribe: bool,
    ) -> Result<RtStream, ApiError> {
        self.change_rtstream(id, |stream| stream.transcribe = transcribe)
            .await
    }

    /// Gives a stream another name.
    pub(crate) async fn rename_rtstream(&self, id: &str, name: &str) -> Result<RtStream, ApiError> {
        let mut faults = Violations::default();
        faults.text("name", name, 1, MAX_NAME);
        faults.into_result()?;
        self.change_rtstream(id, |stream| name.clone_into(&mut stream.name))
            .await
    }

    async fn change_rtstream(
        &self,
        id: &str,
        change: impl Fn(&mut RtStream),
    ) -> Result<RtStream, ApiError> {
        self.stream(id).await?;
        let record = self
            .catalog
            .modify::<RtStreamRecord>(id, |record| {
                let Some(stream) = record.rtstream.as_mut() else {
                    return false;
                };
                let before = stream.clone();
                change(stream);
                *stream != before
            })
            .await
            .map_err(catalog_failed)?;
        Ok(self.merged(&record))
    }
}
