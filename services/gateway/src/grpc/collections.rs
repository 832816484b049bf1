//! Collections over gRPC.

use sightline_proto::v1;
use sightline_proto::v1::collection_service_server::CollectionService;
use tonic::Request;

use super::{Answer, Grpc, answer, session};

#[tonic::async_trait]
impl CollectionService for Grpc {
    async fn create_collection(
        &self,
        request: Request<v1::CreateCollectionRequest>,
    ) -> Answer<v1::CreateCollectionResponse> {
        let session = session(&request)?;
        let collection = Some(session.create_collection(request.into_inner()).await?);
        answer(v1::CreateCollectionResponse { collection })
    }

    async fn get_collection(
        &self,
        request: Request<v1::GetCollectionRequest>,
    ) -> Answer<v1::GetCollectionResponse> {
        let session = session(&request)?;
        let request = request.into_inner();
        let collection = Some(session.get_collection(&request.collection_id).await?);
        answer(v1::GetCollectionResponse { collection })
    }

    async fn list_collections(
        &self,
        request: Request<v1::ListCollectionsRequest>,
    ) -> Answer<v1::ListCollectionsResponse> {
        let session = session(&request)?;
        answer(session.list_collections(request.get_ref())?)
    }

    async fn update_collection(
        &self,
        request: Request<v1::UpdateCollectionRequest>,
    ) -> Answer<v1::UpdateCollectionResponse> {
        let session = session(&request)?;
        let collection = Some(session.update_collection(request.into_inner()).await?);
        answer(v1::UpdateCollectionResponse { collection })
    }

    async fn delete_collection(
        &self,
        request: Request<v1::DeleteCollectionRequest>,
    ) -> Answer<v1::DeleteCollectionResponse> {
        let session = session(&request)?;
        let request = request.into_inner();
        session.delete_collection(&request.collection_id).await?;
        answer(v1::DeleteCollectionResponse {})
    }
}
