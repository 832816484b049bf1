//! Keys over gRPC.

use sightline_proto::v1;
use sightline_proto::v1::key_service_server::KeyService;
use tonic::Request;

use super::{Answer, Grpc, answer, session};

#[tonic::async_trait]
impl KeyService for Grpc {
    async fn create_key(
        &self,
        request: Request<v1::CreateKeyRequest>,
    ) -> Answer<v1::CreateKeyResponse> {
        let session = session(&request)?;
        answer(session.create_key(request.into_inner()).await?)
    }

    async fn list_keys(
        &self,
        request: Request<v1::ListKeysRequest>,
    ) -> Answer<v1::ListKeysResponse> {
        let session = session(&request)?;
        answer(session.list_keys(request.get_ref())?)
    }

    async fn revoke_key(
        &self,
        request: Request<v1::RevokeKeyRequest>,
    ) -> Answer<v1::RevokeKeyResponse> {
        let session = session(&request)?;
        let request = request.into_inner();
        session.revoke_key(&request.key_id).await?;
        answer(v1::RevokeKeyResponse {})
    }
}
