//! Watch over gRPC.

use futures::StreamExt;
use futures::stream::BoxStream;
use sightline_proto::v1;
use sightline_proto::v1::watch_service_server::WatchService;
use tonic::{Request, Status};

use super::{Answer, Grpc, answer, session};

#[tonic::async_trait]
impl WatchService for Grpc {
    type WatchStream = BoxStream<'static, Result<v1::WatchResponse, Status>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Answer<Self::WatchStream> {
        let watch = session(&request)?.watch(request.into_inner()).await?;
        let responses = watch.map(|response| response.map_err(Status::from));
        answer(responses.boxed())
    }
}
