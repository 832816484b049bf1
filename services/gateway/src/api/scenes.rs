//! What indexes described.

use sightline_proto::internal::{RecordFilter, RecordKind};
use sightline_proto::reasons::ApiError;
use sightline_proto::v1;

use super::violations::Violations;
use super::{Session, convert};

impl Session {
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
        let pages = self.pages(
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
            kinds: vec![RecordKind::Scene.into(), RecordKind::AudioScene.into()],
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
}
