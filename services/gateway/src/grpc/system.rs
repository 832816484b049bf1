//! The system over gRPC.

use sightline_proto::v1;
use sightline_proto::v1::system_service_server::SystemService;
use tonic::Request;

use super::{Answer, Grpc, answer, session};

#[tonic::async_trait]
impl SystemService for Grpc {
    async fn get_system(
        &self,
        request: Request<v1::GetSystemRequest>,
    ) -> Answer<v1::GetSystemResponse> {
        let session = session(&request)?;
        answer(session.system().await?)
    }
}
