//! Changes of connected streams.

use sightline_proto::internal::RtStreamRecord;
use sightline_proto::reasons::ApiError;
use sightline_proto::v1::{self, RtStream};

use super::streams::{MAX_NAME, retention};
use super::violations::Violations;
use super::{Session, catalog_failed};

impl Session {
    /// Changes what is given of a stream.
    pub(crate) async fn update_rtstream(
        &self,
        request: v1::UpdateRtStreamRequest,
    ) -> Result<RtStream, ApiError> {
        let mut faults = Violations::default();
        if let Some(name) = &request.name {
            faults.text("name", name, 1, MAX_NAME);
        }
        retention(&mut faults, request.retention.as_ref());
        faults.into_result()?;
        self.change_rtstream(&request.rtstream_id, |record| {
            let Some(stream) = record.rtstream.as_mut() else {
                return;
            };
            if let Some(name) = &request.name {
                stream.name.clone_from(name);
            }
            if request.retention.is_some() {
                stream.retention = request.retention;
            }
        })
        .await
    }

    /// Changes the record of a stream of the caller's; nothing is written where it stays the same.
    pub(super) async fn change_rtstream(
        &self,
        id: &str,
        change: impl Fn(&mut RtStreamRecord),
    ) -> Result<RtStream, ApiError> {
        self.stream(id).await?;
        let record = self
            .catalog
            .modify::<RtStreamRecord>(id, |record| {
                let before = record.clone();
                change(record);
                *record != before
            })
            .await
            .map_err(catalog_failed)?;
        Ok(self.merged(&record))
    }
}
