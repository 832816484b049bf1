//! `RecordsService`: what is stored, for the gateway.

use std::sync::Arc;
use std::time::Duration;

use prost::Message;
use sightline_proto::internal::records_service_server::{RecordsService, RecordsServiceServer};
use sightline_proto::internal::search_records_response::Hit;
use sightline_proto::internal::{
    CountWindowsRequest, CountWindowsResponse, DeleteRecordsRequest, DeleteRecordsResponse,
    ListRecordsRequest, ListRecordsResponse, Record, RecordFilter, RecordKind,
    SearchRecordsRequest, SearchRecordsResponse,
};
use sightline_service::trace::TraceRequests;
use sightline_service::{Shutdown, chain};
use sightline_vectors::{ListQuery, Owner, Position, SearchQuery, VectorError};
use tokio::net::TcpListener;
use tokio::time::{Instant, sleep};
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tonic::{Request, Response, Status};

use crate::Parts;
use crate::deleting::Deleting;
use crate::serving::{Open, Serving, Shared};

/// Records of one answer at most.
const MAX_LIMIT: u32 = 1000;
/// Characters of a query at most; the model reads some 1000 of them.
const MAX_QUERY: usize = 10_000;
/// Streams that one filter may name.
const MAX_STREAMS: usize = 1000;
/// An answer is cut at this many bytes; the gateway takes 64 MiB.
const MAX_BYTES: usize = 32 << 20;
/// How long one call may take; a shorter deadline of the caller wins.
const DEADLINE: Duration = Duration::from_secs(10);
/// Calls of one connection that are worked on at once; further ones wait.
const CONCURRENCY: usize = 32;
/// How often an idle connection is asked for a sign of life, and how long that may take.
const KEEPALIVE: Duration = Duration::from_secs(20);
/// How long calls in flight get to finish at shutdown.
const DRAIN: Duration = Duration::from_secs(5);

/// Answers on `listener` until shutdown.
pub(crate) async fn serve(
    parts: Parts,
    deleting: Deleting,
    serving: Arc<Serving>,
    listener: TcpListener,
    shutdown: Shutdown,
) -> Result<(), tonic::transport::Error> {
    let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
    let records = Records {
        parts,
        deleting,
        serving,
    };
    let serving = Server::builder()
        .layer(TraceRequests::Server)
        .timeout(DEADLINE)
        .concurrency_limit_per_connection(CONCURRENCY)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE))
        .add_service(RecordsServiceServer::new(records))
        .serve_with_incoming_shutdown(incoming, shutdown.clone().cancelled_owned());
    let drained = async {
        shutdown.cancelled().await;
        sleep(DRAIN).await;
    };
    tokio::select! {
        served = serving => served,
        () = drained => Ok(()),
    }
}

struct Records {
    parts: Parts,
    deleting: Deleting,
    serving: Arc<Serving>,
}

#[tonic::async_trait]
impl RecordsService for Records {
    async fn list_records(
        &self,
        request: Request<ListRecordsRequest>,
    ) -> Result<Response<ListRecordsResponse>, Status> {
        let request = request.into_inner();
        let limit = checked_limit(request.limit)?;
        let query = ListQuery {
            filter: checked_filter(request.filter)?,
            // One more tells whether there are more.
            limit: limit + 1,
            newest_first: request.newest_first,
            after: match request.after_id.as_str() {
                "" => None,
                id => Some(Position::of(request.after_start_us, id).map_err(failed)?),
            },
        };
        let open = self.open()?;
        let listing = open.list(&query);
        let mut records = self.timed("ListRecords", listing).await?;
        let fits = fitting(records.iter()).min(limit);
        let more = records.len() > fits;
        records.truncate(fits);
        Ok(Response::new(ListRecordsResponse { records, more }))
    }

    async fn search_records(
        &self,
        request: Request<SearchRecordsRequest>,
    ) -> Result<Response<SearchRecordsResponse>, Status> {
        let request = request.into_inner();
        check_query(&request.query)?;
        if !(0.0..=1.0).contains(&request.min_score) {
            let message = format!("min_score must be 0 to 1; got {}", request.min_score);
            return Err(Status::invalid_argument(message));
        }
        let limit = checked_limit(request.limit)?;
        let filter = checked_filter(request.filter)?;
        let shared = self.open()?.search;
        let query = SearchQuery {
            vector: self.vector(&shared, request.query).await?,
            filter,
            limit,
            min_score: request.min_score,
        };
        let searching = shared.store.search(&query);
        let mut hits = self.timed("SearchRecords", searching).await?;
        hits.truncate(fitting(hits.iter().map(|hit| &hit.record)));
        let hits = hits
            .into_iter()
            .map(|hit| Hit {
                record: Some(hit.record),
                score: hit.score,
            })
            .collect();
        Ok(Response::new(SearchRecordsResponse { hits }))
    }

    async fn count_windows(
        &self,
        request: Request<CountWindowsRequest>,
    ) -> Result<Response<CountWindowsResponse>, Status> {
        let index_id = request.into_inner().index_id;
        if index_id.is_empty() {
            return Err(Status::invalid_argument("index_id must be given"));
        }
        let open = self.open()?;
        let counting = open.count_windows(&index_id);
        let counts = self.timed("CountWindows", counting).await?;
        Ok(Response::new(CountWindowsResponse {
            described: counts.described,
            missing: counts.missing,
        }))
    }

    async fn delete_records(
        &self,
        request: Request<DeleteRecordsRequest>,
    ) -> Result<Response<DeleteRecordsResponse>, Status> {
        let DeleteRecordsRequest {
            rtstream_id,
            index_id,
        } = request.into_inner();
        let owner = match (rtstream_id.as_str(), index_id.as_str()) {
            (_, "") => Owner::RtStream(rtstream_id),
            ("", _) => Owner::Index(index_id),
            _ => {
                let message = "one of rtstream_id and index_id must be given, not both";
                return Err(Status::invalid_argument(message));
            }
        };
        let open = self.open()?;
        let deleting = self.deleting.delete(&open, &owner);
        self.timed("DeleteRecords", deleting).await?;
        tracing::info!(?owner, "records are deleted");
        Ok(Response::new(DeleteRecordsResponse {}))
    }
}

impl Records {
    fn open(&self) -> Result<Open, Status> {
        let starting = || Status::unavailable("the vector store is not open; try again shortly");
        self.serving.get().ok_or_else(starting)
    }

    async fn timed<T>(
        &self,
        method: &'static str,
        call: impl Future<Output = Result<T, VectorError>>,
    ) -> Result<T, Status> {
        let started = Instant::now();
        let answer = call.await.map_err(failed)?;
        self.parts.metrics.answered(method, started.elapsed());
        Ok(answer)
    }

    async fn vector(&self, shared: &Shared, query: String) -> Result<Vec<f32>, Status> {
        let started = Instant::now();
        match shared.queries.embed(&shared.model, query).await {
            Ok(vector) => {
                self.parts.metrics.embedded("query", started.elapsed());
                Ok(vector.to_vec())
            }
            Err(error) => {
                tracing::warn!(error = chain(&error), "a query could not be embedded");
                let message = "the embedding model could not read the query; try again shortly";
                Err(Status::unavailable(message))
            }
        }
    }
}

fn checked_limit(limit: u32) -> Result<usize, Status> {
    if !(1..=MAX_LIMIT).contains(&limit) {
        let message = format!("limit must be 1 to {MAX_LIMIT}; got {limit}");
        return Err(Status::invalid_argument(message));
    }
    Ok(limit as usize)
}

fn check_query(query: &str) -> Result<(), Status> {
    if query.trim().is_empty() {
        return Err(Status::invalid_argument("query must hold some words"));
    }
    let length = query.chars().count();
    if length > MAX_QUERY {
        let message = format!("query may hold {MAX_QUERY} characters; got {length}");
        return Err(Status::invalid_argument(message));
    }
    Ok(())
}

fn checked_filter(filter: Option<RecordFilter>) -> Result<RecordFilter, Status> {
    let filter = filter.unwrap_or_default();
    let unknown = |kind: &&i32| RecordKind::try_from(**kind).is_err();
    if let Some(kind) = filter.kinds.iter().find(unknown) {
        let message = format!("filter.kinds names {kind}, which is not known");
        return Err(Status::invalid_argument(message));
    }
    if filter.rtstream_ids.len() > MAX_STREAMS {
        let message = format!(
            "filter.rtstream_ids may name {MAX_STREAMS} streams; got {}",
            filter.rtstream_ids.len()
        );
        return Err(Status::invalid_argument(message));
    }
    Ok(filter)
}

/// How many of the records fit into an answer, one at least.
fn fitting<'a>(records: impl Iterator<Item = &'a Record>) -> usize {
    let mut bytes = 0;
    records
        .take_while(|record| {
            bytes += record.encoded_len();
            bytes <= MAX_BYTES
        })
        .count()
        .max(1)
}

fn failed(error: VectorError) -> Status {
    if let VectorError::Invalid(message) = error {
        return Status::invalid_argument(message);
    }
    tracing::warn!(error = chain(&error), "the store failed a call");
    Status::unavailable("the vector store failed; try again shortly")
}
