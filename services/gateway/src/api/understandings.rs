//! Understandings: visual indexes whose output has a name.

use sightline_proto::internal::IndexRecord;
use sightline_proto::reasons::ApiError;
use sightline_proto::v1;

use super::{Session, catalog_failed};

impl Session {
    /// Creates a visual index with a name for its output.
    pub(crate) async fn create_understanding(
        &self,
        request: v1::CreateVisualIndexRequest,
        output: &str,
    ) -> Result<v1::Index, ApiError> {
        let index = self.create_visual_index(request).await?;
        self.catalog
            .modify::<IndexRecord>(&index.id, |record| {
                output.clone_into(&mut record.output);
                true
            })
            .await
            .map_err(catalog_failed)?;
        Ok(index)
    }

    /// The name of the output of an understanding; none of other indexes.
    pub(crate) fn output_of(&self, index_id: &str) -> Option<String> {
        let record = self.catalog.get::<IndexRecord>(index_id)?;
        Some(record.value.output.clone()).filter(|output| !output.is_empty())
    }
}
