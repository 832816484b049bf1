//! Stored scenes and transcripts, asked of the embeddings service.

use std::time::Duration;

use prost::Message;
use sightline_proto::internal::records_service_client::RecordsServiceClient;
use sightline_proto::internal::{
    CountWindowsRequest, DeleteRecordsRequest, ListRecordsRequest, Observation, Record,
    RecordFilter, SearchRecordsRequest, SearchRecordsResponse,
};
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::v1;
use sightline_service::trace::{TraceRequests, Traced};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};
use tower::Layer;

use super::paging::Position;

/// How long lists and searches may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// How long removing records may take: it is tried again.
const DELETE_DEADLINE: Duration = Duration::from_secs(5);
/// How long an index waits for its counts, which it can do without.
const COUNT_DEADLINE: Duration = Duration::from_secs(2);
/// A page is cut at this many bytes: clients take messages of 4 MB by default.
const PAGE_BYTES: usize = 2 << 20;
/// A list's answer at most, from a service of our own.
const ANSWER_BYTES: usize = 64 << 20;

/// The embeddings service as the gateway sees it.
#[derive(Clone)]
pub(crate) struct Records(RecordsServiceClient<Traced<Channel>>);

/// A page of records.
pub(crate) struct RecordPage {
    records: Vec<Record>,
    /// Where the next page starts; `None` on the last.
    pub(crate) next: Option<Position>,
}

impl RecordPage {
    /// The observations in the records; what can't be read is left out with a warning.
    pub(crate) fn observations(&self) -> impl Iterator<Item = Observation> {
        self.records.iter().filter_map(|record| {
            Observation::decode(record.observation.as_ref())
                .inspect_err(|error| {
                    tracing::warn!(id = record.id, %error, "stored observation is unreadable");
                })
                .ok()
        })
    }
}

impl Records {
    pub(crate) fn new(channel: Channel) -> Self {
        let client = RecordsServiceClient::new(TraceRequests::Client.layer(channel));
        Self(client.max_decoding_message_size(ANSWER_BYTES))
    }

    pub(crate) async fn list(
        &self,
        filter: RecordFilter,
        limit: usize,
        newest_first: bool,
        after: Option<Position>,
    ) -> Result<RecordPage, ApiError> {
        let (after_start_us, after_id) = after.map_or((0, String::new()), |p| (p.time_us, p.id));
        let request = ListRecordsRequest {
            filter: Some(filter),
            limit: limit as u32,
            newest_first,
            after_start_us,
            after_id,
        };
        let mut client = self.0.clone();
        let call = client.list_records(request_within(request, DEADLINE));
        let answer = call.await.map_err(failed)?.into_inner();
        Ok(fitting(answer.records, answer.more, PAGE_BYTES))
    }

    pub(crate) async fn search(
        &self,
        request: SearchRecordsRequest,
    ) -> Result<SearchRecordsResponse, ApiError> {
        let mut client = self.0.clone();
        let call = client.search_records(request_within(request, DEADLINE));
        Ok(call.await.map_err(failed)?.into_inner())
    }

    /// Removes the records of a stream or of an index. Whether they are gone.
    pub(crate) async fn delete(&self, request: DeleteRecordsRequest) -> bool {
        let mut client = self.0.clone();
        let call = client.delete_records(request_within(request, DELETE_DEADLINE));
        match call.await {
            Ok(_) => true,
            Err(status) => {
                tracing::debug!(%status, "records of what was deleted are removed later");
                false
            }
        }
    }

    /// An index's counts; `None` while the service does not answer.
    pub(crate) async fn count(&self, index_id: &str) -> Option<v1::IndexStats> {
        let request = CountWindowsRequest {
            index_id: index_id.to_owned(),
        };
        let mut client = self.0.clone();
        let call = client.count_windows(request_within(request, COUNT_DEADLINE));
        match call.await {
            Ok(answer) => {
                let counts = answer.into_inner();
                Some(v1::IndexStats {
                    described: counts.described,
                    missing: counts.missing,
                })
            }
            Err(status) => {
                tracing::debug!(%status, "an index is shown without its counts");
                None
            }
        }
    }
}

/// The channel ends the call at this deadline.
fn request_within<T>(message: T, deadline: Duration) -> Request<T> {
    let mut request = Request::new(message);
    request.set_timeout(deadline);
    request
}

/// As many records as fit, one at least.
fn fitting(mut records: Vec<Record>, more: bool, bytes: usize) -> RecordPage {
    let mut total = 0;
    let fits = records
        .iter()
        .take_while(|record| {
            total += record.observation.len();
            total <= bytes
        })
        .count()
        .max(1);
    let more = more || records.len() > fits;
    records.truncate(fits);
    let next = records.last().filter(|_| more).map(|last| Position {
        time_us: last.start_us,
        id: last.id.clone(),
    });
    RecordPage { records, next }
}

fn failed(status: Status) -> ApiError {
    match status.code() {
        Code::InvalidArgument => ApiError::new(Reason::InvalidArgument, status.message()),
        Code::Unavailable | Code::DeadlineExceeded | Code::Cancelled | Code::Unknown => {
            tracing::warn!(%status, "the embeddings service failed a call");
            let message = "the embeddings service does not answer, and scenes, transcripts and \
                           search come from there; nothing is lost: try again shortly";
            ApiError::new(Reason::Unavailable, message)
        }
        _ => {
            tracing::error!(%status, "the embeddings service failed a call");
            let message = "the embeddings service failed; the server's log says why";
            ApiError::new(Reason::Internal, message)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(sizes: &[usize], more: bool, expected: usize, expected_next: Option<&str>) {
        let records = sizes
            .iter()
            .enumerate()
            .map(|(number, &size)| Record {
                id: number.to_string(),
                observation: vec![0; size].into(),
                ..Default::default()
            })
            .collect();
        let page = fitting(records, more, 10);
        assert_eq!(page.records.len(), expected, "{sizes:?}");
        let next = page.next.map(|position| position.id);
        assert_eq!(next.as_deref(), expected_next, "{sizes:?}");
    }

    #[test]
    fn pages_are_cut_by_bytes_and_go_on_after_the_cut() {
        check(&[], false, 0, None);
        check(&[4, 4], false, 2, None);
        check(&[4, 4], true, 2, Some("1"));
        check(&[4, 4, 4], false, 2, Some("1"));
        check(&[40, 4], false, 1, Some("0"));
        check(&[40], false, 1, None);
    }

    #[test]
    fn an_absent_service_is_told_from_a_broken_one() {
        for (status, expected) in [
            (
                Status::unavailable("connection refused"),
                Reason::Unavailable,
            ),
            (Status::unknown("transport error"), Reason::Unavailable),
            (Status::internal("bug"), Reason::Internal),
            (Status::invalid_argument("bad"), Reason::InvalidArgument),
        ] {
            assert_eq!(failed(status).reason, expected);
        }
    }
}
