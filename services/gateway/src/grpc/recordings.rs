//! Recordings over gRPC.

use sightline_proto::v1;
use sightline_proto::v1::recording_service_server::RecordingService;
use tonic::Request;

use super::{Answer, Grpc, answer, session};

#[tonic::async_trait]
impl RecordingService for Grpc {
    async fn generate_stream(
        &self,
        request: Request<v1::GenerateStreamRequest>,
    ) -> Answer<v1::GenerateStreamResponse> {
        let session = session(&request)?;
        answer(session.generate_stream(request.into_inner()).await?)
    }

    async fn get_recording(
        &self,
        request: Request<v1::GetRecordingRequest>,
    ) -> Answer<v1::GetRecordingResponse> {
        let session = session(&request)?;
        answer(session.get_recording(request.get_ref()).await?)
    }

    async fn create_export(
        &self,
        request: Request<v1::CreateExportRequest>,
    ) -> Answer<v1::CreateExportResponse> {
        let session = session(&request)?;
        let export = Some(session.create_export(request.into_inner()).await?);
        answer(v1::CreateExportResponse { export })
    }

    async fn get_export(
        &self,
        request: Request<v1::GetExportRequest>,
    ) -> Answer<v1::GetExportResponse> {
        let session = session(&request)?;
        let request = request.into_inner();
        let export = Some(session.get_export(&request.export_id).await?);
        answer(v1::GetExportResponse { export })
    }

    async fn list_exports(
        &self,
        request: Request<v1::ListExportsRequest>,
    ) -> Answer<v1::ListExportsResponse> {
        let session = session(&request)?;
        answer(session.list_exports(request.into_inner()).await?)
    }
}
