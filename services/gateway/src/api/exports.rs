//! Exports: a stretch of a recording as one MP4 file, written by a worker.

use sightline_bus::Subject;
use sightline_catalog::CatalogError;
use sightline_proto::ids;
use sightline_proto::internal::{ExportJob, ExportRecord};
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::time::{micros, timestamp};
use sightline_proto::v1::export::State;
use sightline_proto::v1::{self, Export};

use super::paging::Position;
use super::recordings::{moment, span};
use super::violations::{Violations, refused};
use super::{Session, bus_failed, catalog_failed, store_failed};
use crate::playback::LATE_US;

const MAX_NAME: usize = 200;
/// The longest stretch of one file.
const MAX_US: i64 = 24 * 3600 * 1_000_000;
const MAX: &str = "24 hours";
/// Exports of one stream that wait or are being written; the bus takes no more.
const MAX_WAITING: u64 = 100;

impl Session {
    /// Has a stretch written into one file. The same stretch and name are one export: one that failed is tried again, any
    /// other is left alone.
    pub(crate) async fn create_export(
        &self,
        request: v1::CreateExportRequest,
    ) -> Result<Export, ApiError> {
        let mut faults = Violations::default();
        faults.text("name", &request.name, 0, MAX_NAME);
        let start_us = request.start_time.as_ref();
        let start_us = start_us.map(|time| moment(&mut faults, "start_time", time));
        let end_us = request.end_time.as_ref();
        let end_us = end_us.map(|time| moment(&mut faults, "end_time", time));
        if let (Some(start_us), Some(end_us)) = (start_us, end_us) {
            span(&mut faults, start_us, end_us, MAX_US, MAX);
        }
        faults.into_result()?;
        let stream = self.recorded_stream(&request.rtstream_id).await?;
        let (start_us, end_us) = self.recorded(&stream.id, start_us, end_us).await?;
        let name = if request.name.is_empty() {
            stream.name
        } else {
            request.name
        };
        let export = Export {
            id: ids::export_id(&stream.id, start_us, end_us, &name),
            rtstream_id: stream.id,
            name,
            start_time: Some(timestamp(start_us)),
            end_time: Some(timestamp(end_us)),
            state: State::Running.into(),
            create_time: Some(timestamp(self.clock.now_us())),
            ..Default::default()
        };
        let record = ExportRecord {
            export: Some(export),
            start_us,
            end_us,
            tenant: self.tenant(),
        };
        self.ask_for(record).await
    }

    /// One export.
    pub(crate) async fn get_export(&self, id: &str) -> Result<Export, ApiError> {
        let found = self.find::<ExportRecord>("export_id", id).await?;
        Ok(self.shown(&found.value))
    }

    /// The exports of a stream, newest first.
    pub(crate) async fn list_exports(
        &self,
        request: v1::ListExportsRequest,
    ) -> Result<v1::ListExportsResponse, ApiError> {
        let mut faults = Violations::default();
        let size = faults.page_size(request.page_size);
        faults.into_result()?;
        self.stream(&request.rtstream_id).await?;
        let pages = self.pages(
            "ListExports",
            &v1::ListExportsRequest {
                page_size: 0,
                page_token: String::new(),
                ..request.clone()
            },
        );
        let records = self.all::<ExportRecord>();
        let mut exports: Vec<Export> = records
            .filter_map(|record| record.export.clone())
            .filter(|export| export.rtstream_id == request.rtstream_id)
            .collect();
        exports.sort_by_key(|export| std::cmp::Reverse(position(export)));
        let (mut exports, next_page_token) =
            pages.cut(exports, &request.page_token, size, true, position)?;
        exports.iter_mut().for_each(|export| self.add_url(export));
        Ok(v1::ListExportsResponse {
            exports,
            next_page_token,
        })
    }

    /// The stretch asked for, or all that is recorded: something has to be, and nothing may be missing that is still to
    /// come, because the export of a stretch is made once.
    async fn recorded(
        &self,
        id: &str,
        start_us: Option<i64>,
        end_us: Option<i64>,
    ) -> Result<(i64, i64), ApiError> {
        let reach = self.reach(id);
        if reach.running && (start_us.is_none() || end_us.is_none()) {
            let allowed =
                "start_time and end_time, because the stream is running; or stop it first";
            return Err(refused(Reason::FailedPrecondition, "end_time", allowed));
        }
        let extent = self.library.extent(id).await.map_err(store_failed)?;
        let nothing = || {
            let allowed = "a stretch of which something is recorded; GetRecording says what is";
            refused(Reason::FailedPrecondition, "start_time", allowed)
        };
        let (first_us, last_us) = extent.ok_or_else(nothing)?;
        let (start_us, end_us) = (start_us.unwrap_or(first_us), end_us.unwrap_or(last_us));
        let late_us = self.clock.now_us().saturating_sub(LATE_US);
        if reach.running && end_us > reach.recorded_us && end_us > late_us {
            let allowed =
                "a time up to which the stream is recorded; try again when it is, or stop it";
            return Err(refused(Reason::FailedPrecondition, "end_time", allowed));
        }
        let mut faults = Violations::default();
        span(&mut faults, start_us, end_us, MAX_US, MAX);
        faults.into_result()?;
        let (from_us, to_us) = (start_us.max(first_us), end_us.min(last_us));
        if from_us >= to_us {
            return Err(nothing());
        }
        let segments = self.library.segments(id, from_us, to_us).await;
        if segments.map_err(store_failed)?.is_empty() {
            return Err(nothing());
        }
        Ok((start_us, end_us))
    }

    /// Writes the export's record, unless it is running or done, and asks for it. A job that was lost, because whoever
    /// wrote the record died before asking, is asked for by the next call.
    async fn ask_for(&self, record: ExportRecord) -> Result<Export, ApiError> {
        let asked = record.export.clone().unwrap_or_default();
        let id = asked.id.clone();
        let waiting = self.bus.outstanding(&subject(&asked)).await;
        if waiting.map_err(bus_failed)? >= MAX_WAITING {
            let message = "this stream has 100 exports waiting; try again when some are done";
            return Err(ApiError::new(Reason::Unavailable, message));
        }
        let record = match self.catalog.create(&id, &record).await {
            Ok(_) => record,
            Err(CatalogError::Exists { .. }) => {
                let kept = self.catalog.modify::<ExportRecord>(&id, |kept| {
                    let failed = kept.export.as_ref().map(Export::state) == Some(State::Failed);
                    if failed {
                        kept.export = Some(asked.clone());
                    }
                    failed
                });
                ExportRecord::clone(&*kept.await.map_err(catalog_failed)?)
            }
            Err(error) => return Err(catalog_failed(error)),
        };
        let export = record.export.clone().unwrap_or_default();
        if export.state() == State::Running {
            let subject = subject(&export);
            let job = ExportJob {
                export_id: id.clone(),
                rtstream_id: export.rtstream_id,
            };
            // Every attempt is asked for at a time of its own.
            let asked_us = export.create_time.as_ref().map_or(0, micros);
            let attempt = format!("{id}-{asked_us}");
            let published = self.bus.publish(&subject, &attempt, &job).await;
            published.map_err(bus_failed)?;
        }
        Ok(self.shown(&record))
    }

    fn shown(&self, record: &ExportRecord) -> Export {
        let mut export = record.export.clone().unwrap_or_default();
        self.add_url(&mut export);
        export
    }

    fn add_url(&self, export: &mut Export) {
        if export.state() == State::Done {
            let now_us = self.clock.now_us();
            export.download_url = self.config.links.export(&export.id, now_us);
        }
    }
}

fn subject(export: &Export) -> Subject {
    Subject::Export {
        rtstream: export.rtstream_id.clone(),
    }
}

fn position(export: &Export) -> Position {
    Position {
        time_us: export.create_time.as_ref().map_or(0, micros),
        id: export.id.clone(),
    }
}
