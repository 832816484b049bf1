//! Endpoints over gRPC.

use sightline_proto::v1;
use sightline_proto::v1::endpoint_service_server::EndpointService;
use tonic::Request;

use super::{Answer, Grpc, answer, session};

#[tonic::async_trait]
impl EndpointService for Grpc {
    async fn list_endpoints(
        &self,
        request: Request<v1::ListEndpointsRequest>,
    ) -> Answer<v1::ListEndpointsResponse> {
        let session = session(&request)?;
        answer(session.list_endpoints(request.get_ref())?)
    }

    async fn get_endpoint_secret(
        &self,
        request: Request<v1::GetEndpointSecretRequest>,
    ) -> Answer<v1::GetEndpointSecretResponse> {
        let session = session(&request)?;
        let id = request.into_inner().endpoint_id;
        let secret = session.endpoint_secret(&id).await?;
        answer(v1::GetEndpointSecretResponse { secret })
    }

    async fn rotate_endpoint_secret(
        &self,
        request: Request<v1::RotateEndpointSecretRequest>,
    ) -> Answer<v1::RotateEndpointSecretResponse> {
        let session = session(&request)?;
        let id = request.into_inner().endpoint_id;
        answer(session.rotate_endpoint_secret(&id).await?)
    }

    async fn enable_endpoint(
        &self,
        request: Request<v1::EnableEndpointRequest>,
    ) -> Answer<v1::EnableEndpointResponse> {
        let session = session(&request)?;
        let id = request.into_inner().endpoint_id;
        let endpoint = Some(session.enable_endpoint(&id).await?);
        answer(v1::EnableEndpointResponse { endpoint })
    }

    async fn test_endpoint(
        &self,
        request: Request<v1::TestEndpointRequest>,
    ) -> Answer<v1::TestEndpointResponse> {
        let session = session(&request)?;
        let id = request.into_inner().endpoint_id;
        answer(session.test_endpoint(&id).await?)
    }
}
