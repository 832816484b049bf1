//! RtStreams over gRPC.

use sightline_proto::v1;
use sightline_proto::v1::rt_stream_service_server::RtStreamService;
use tonic::Request;

use super::{Answer, Grpc, answer, session};

#[tonic::async_trait]
impl RtStreamService for Grpc {
    async fn connect_rt_stream(
        &self,
        request: Request<v1::ConnectRtStreamRequest>,
    ) -> Answer<v1::ConnectRtStreamResponse> {
        let session = session(&request)?;
        let rtstream = Some(session.connect_rtstream(request.into_inner()).await?);
        answer(v1::ConnectRtStreamResponse { rtstream })
    }

    async fn get_rt_stream(
        &self,
        request: Request<v1::GetRtStreamRequest>,
    ) -> Answer<v1::GetRtStreamResponse> {
        let session = session(&request)?;
        let request = request.into_inner();
        let rtstream = Some(session.get_rtstream(&request.rtstream_id).await?);
        answer(v1::GetRtStreamResponse { rtstream })
    }

    async fn list_rt_streams(
        &self,
        request: Request<v1::ListRtStreamsRequest>,
    ) -> Answer<v1::ListRtStreamsResponse> {
        let session = session(&request)?;
        answer(session.list_rtstreams(request.into_inner()).await?)
    }

    async fn start_rt_stream(
        &self,
        request: Request<v1::StartRtStreamRequest>,
    ) -> Answer<v1::StartRtStreamResponse> {
        let session = session(&request)?;
        let request = request.into_inner();
        let rtstream = Some(session.start_rtstream(&request.rtstream_id).await?);
        answer(v1::StartRtStreamResponse { rtstream })
    }

    async fn stop_rt_stream(
        &self,
        request: Request<v1::StopRtStreamRequest>,
    ) -> Answer<v1::StopRtStreamResponse> {
        let session = session(&request)?;
        let request = request.into_inner();
        let rtstream = Some(session.stop_rtstream(&request.rtstream_id).await?);
        answer(v1::StopRtStreamResponse { rtstream })
    }

    async fn update_rt_stream(
        &self,
        request: Request<v1::UpdateRtStreamRequest>,
    ) -> Answer<v1::UpdateRtStreamResponse> {
        let session = session(&request)?;
        let rtstream = Some(session.update_rtstream(request.into_inner()).await?);
        answer(v1::UpdateRtStreamResponse { rtstream })
    }

    async fn delete_rt_stream(
        &self,
        request: Request<v1::DeleteRtStreamRequest>,
    ) -> Answer<v1::DeleteRtStreamResponse> {
        let session = session(&request)?;
        let request = request.into_inner();
        session.delete_rtstream(&request.rtstream_id).await?;
        answer(v1::DeleteRtStreamResponse {})
    }

    async fn start_transcription(
        &self,
        request: Request<v1::StartTranscriptionRequest>,
    ) -> Answer<v1::StartTranscriptionResponse> {
        let session = session(&request)?;
        let rtstream = Some(session.start_transcription(request.get_ref()).await?);
        answer(v1::StartTranscriptionResponse { rtstream })
    }

    async fn stop_transcription(
        &self,
        request: Request<v1::StopTranscriptionRequest>,
    ) -> Answer<v1::StopTranscriptionResponse> {
        let session = session(&request)?;
        let rtstream = Some(session.stop_transcription(request.get_ref()).await?);
        answer(v1::StopTranscriptionResponse { rtstream })
    }

    async fn list_transcript(
        &self,
        request: Request<v1::ListTranscriptRequest>,
    ) -> Answer<v1::ListTranscriptResponse> {
        let session = session(&request)?;
        answer(session.list_transcript(request.into_inner()).await?)
    }
}
