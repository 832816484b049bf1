//! Indexes, scenes and search over gRPC.

use sightline_proto::v1;
use sightline_proto::v1::index::State;
use sightline_proto::v1::index_service_server::IndexService;
use tonic::Request;

use super::{Answer, Grpc, answer, session};

#[tonic::async_trait]
impl IndexService for Grpc {
    async fn create_visual_index(
        &self,
        request: Request<v1::CreateVisualIndexRequest>,
    ) -> Answer<v1::CreateVisualIndexResponse> {
        let session = session(&request)?;
        let index = Some(session.create_visual_index(request.into_inner()).await?);
        answer(v1::CreateVisualIndexResponse { index })
    }

    async fn create_audio_index(
        &self,
        request: Request<v1::CreateAudioIndexRequest>,
    ) -> Answer<v1::CreateAudioIndexResponse> {
        let session = session(&request)?;
        let index = Some(session.create_audio_index(request.into_inner()).await?);
        answer(v1::CreateAudioIndexResponse { index })
    }

    async fn get_index(
        &self,
        request: Request<v1::GetIndexRequest>,
    ) -> Answer<v1::GetIndexResponse> {
        let session = session(&request)?;
        let request = request.into_inner();
        let index = Some(session.get_index(&request.index_id).await?);
        answer(v1::GetIndexResponse { index })
    }

    async fn list_indexes(
        &self,
        request: Request<v1::ListIndexesRequest>,
    ) -> Answer<v1::ListIndexesResponse> {
        let session = session(&request)?;
        answer(session.list_indexes(request.into_inner()).await?)
    }

    async fn start_index(
        &self,
        request: Request<v1::StartIndexRequest>,
    ) -> Answer<v1::StartIndexResponse> {
        let session = session(&request)?;
        let request = request.into_inner();
        let index = Some(
            session
                .set_index_state(&request.index_id, State::Running)
                .await?,
        );
        answer(v1::StartIndexResponse { index })
    }

    async fn stop_index(
        &self,
        request: Request<v1::StopIndexRequest>,
    ) -> Answer<v1::StopIndexResponse> {
        let session = session(&request)?;
        let request = request.into_inner();
        let index = Some(
            session
                .set_index_state(&request.index_id, State::Stopped)
                .await?,
        );
        answer(v1::StopIndexResponse { index })
    }

    async fn update_index(
        &self,
        request: Request<v1::UpdateIndexRequest>,
    ) -> Answer<v1::UpdateIndexResponse> {
        let session = session(&request)?;
        let index = Some(session.update_index(request.into_inner()).await?);
        answer(v1::UpdateIndexResponse { index })
    }

    async fn delete_index(
        &self,
        request: Request<v1::DeleteIndexRequest>,
    ) -> Answer<v1::DeleteIndexResponse> {
        let session = session(&request)?;
        let request = request.into_inner();
        session.delete_index(&request.index_id).await?;
        answer(v1::DeleteIndexResponse {})
    }

    async fn list_scenes(
        &self,
        request: Request<v1::ListScenesRequest>,
    ) -> Answer<v1::ListScenesResponse> {
        let session = session(&request)?;
        answer(session.list_scenes(request.into_inner()).await?)
    }

    async fn search(&self, request: Request<v1::SearchRequest>) -> Answer<v1::SearchResponse> {
        let session = session(&request)?;
        answer(session.search(request.into_inner()).await?)
    }
}
