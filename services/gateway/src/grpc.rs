//! The gRPC skin: takes requests apart, calls the core, wraps results. No logic lives here.

use futures::StreamExt;
use futures::stream::BoxStream;
use sightline_proto::FILE_DESCRIPTOR_SET;
use sightline_proto::v1::collection_service_server::{CollectionService, CollectionServiceServer};
use sightline_proto::v1::event_service_server::{EventService, EventServiceServer};
use sightline_proto::v1::index_service_server::{IndexService, IndexServiceServer};
use sightline_proto::v1::recording_service_server::{RecordingService, RecordingServiceServer};
use sightline_proto::v1::rt_stream_service_server::{RtStreamService, RtStreamServiceServer};
use sightline_proto::v1::watch_service_server::{WatchService, WatchServiceServer};
use sightline_proto::v1::{self, alert, index};
use tonic::server::NamedService;
use tonic::service::Routes;
use tonic::{Request, Response, Status};
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::api::Session;

#[derive(Clone)]
struct Grpc;

type Answer<T> = Result<Response<T>, Status>;

fn session<T>(request: &Request<T>) -> Result<Session, Status> {
    Ok(Session::of(request.extensions())?)
}

/// The services with health and reflection, and what tells health whether they serve. `limit` is the size of a request in bytes.
pub(crate) fn routes(limit: usize) -> (Routes, Health) {
    let (reporter, health) = tonic_health::server::health_reporter();
    let reflection = || {
        tonic_reflection::server::Builder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    let sound = "the build wrote these descriptor sets";
    let routes = Routes::new(RtStreamServiceServer::new(Grpc).max_decoding_message_size(limit))
        .add_service(CollectionServiceServer::new(Grpc).max_decoding_message_size(limit))
        .add_service(IndexServiceServer::new(Grpc).max_decoding_message_size(limit))
        .add_service(EventServiceServer::new(Grpc).max_decoding_message_size(limit))
        .add_service(RecordingServiceServer::new(Grpc).max_decoding_message_size(limit))
        .add_service(WatchServiceServer::new(Grpc).max_decoding_message_size(limit))
        .add_service(health.max_decoding_message_size(limit))
        .add_service(
            reflection()
                .build_v1()
                .expect(sound)
                .max_decoding_message_size(limit),
        )
        .add_service(
            reflection()
                .build_v1alpha()
                .expect(sound)
                .max_decoding_message_size(limit),
        );
    (routes, Health(reporter))
}

/// Says by the gRPC health protocol whether the services serve.
pub(crate) struct Health(HealthReporter);

impl Health {
    pub(crate) async fn set(&self, serving: bool) {
        let status = if serving {
            ServingStatus::Serving
        } else {
            ServingStatus::NotServing
        };
        for service in [
            "",
            CollectionServiceServer::<Grpc>::NAME,
            RtStreamServiceServer::<Grpc>::NAME,
            IndexServiceServer::<Grpc>::NAME,
            EventServiceServer::<Grpc>::NAME,
            RecordingServiceServer::<Grpc>::NAME,
            WatchServiceServer::<Grpc>::NAME,
        ] {
            self.0.set_service_status(service, status).await;
        }
    }
}

#[tonic::async_trait]
impl CollectionService for Grpc {
    async fn create_collection(
        &self,
        request: Request<v1::CreateCollectionRequest>,
    ) -> Answer<v1::CreateCollectionResponse> {
        let collection = Some(
            session(&request)?
                .create_collection(request.into_inner())
                .await?,
        );
        Ok(Response::new(v1::CreateCollectionResponse { collection }))
    }

    async fn get_collection(
        &self,
        request: Request<v1::GetCollectionRequest>,
    ) -> Answer<v1::GetCollectionResponse> {
        let id = &request.get_ref().collection_id;
        let collection = Some(session(&request)?.get_collection(id).await?);
        Ok(Response::new(v1::GetCollectionResponse { collection }))
    }

    async fn list_collections(
        &self,
        request: Request<v1::ListCollectionsRequest>,
    ) -> Answer<v1::ListCollectionsResponse> {
        let page = session(&request)?.list_collections(request.get_ref())?;
        Ok(Response::new(page))
    }

    async fn update_collection(
        &self,
        request: Request<v1::UpdateCollectionRequest>,
    ) -> Answer<v1::UpdateCollectionResponse> {
        let collection = Some(
            session(&request)?
                .update_collection(request.into_inner())
                .await?,
        );
        Ok(Response::new(v1::UpdateCollectionResponse { collection }))
    }

    async fn delete_collection(
        &self,
        request: Request<v1::DeleteCollectionRequest>,
    ) -> Answer<v1::DeleteCollectionResponse> {
        session(&request)?
            .delete_collection(&request.get_ref().collection_id)
            .await?;
        Ok(Response::new(v1::DeleteCollectionResponse {}))
    }
}

#[tonic::async_trait]
impl RtStreamService for Grpc {
    async fn connect_rt_stream(
        &self,
        request: Request<v1::ConnectRtStreamRequest>,
    ) -> Answer<v1::ConnectRtStreamResponse> {
        let rtstream = Some(
            session(&request)?
                .connect_rtstream(request.into_inner())
                .await?,
        );
        Ok(Response::new(v1::ConnectRtStreamResponse { rtstream }))
    }

    async fn get_rt_stream(
        &self,
        request: Request<v1::GetRtStreamRequest>,
    ) -> Answer<v1::GetRtStreamResponse> {
        let rtstream = Some(
            session(&request)?
                .get_rtstream(&request.get_ref().rtstream_id)
                .await?,
        );
        Ok(Response::new(v1::GetRtStreamResponse { rtstream }))
    }

    async fn list_rt_streams(
        &self,
        request: Request<v1::ListRtStreamsRequest>,
    ) -> Answer<v1::ListRtStreamsResponse> {
        let page = session(&request)?
            .list_rtstreams(request.into_inner())
            .await?;
        Ok(Response::new(page))
    }

    async fn start_rt_stream(
        &self,
        request: Request<v1::StartRtStreamRequest>,
    ) -> Answer<v1::StartRtStreamResponse> {
        let rtstream = Some(
            session(&request)?
                .start_rtstream(&request.get_ref().rtstream_id)
                .await?,
        );
        Ok(Response::new(v1::StartRtStreamResponse { rtstream }))
    }

    async fn stop_rt_stream(
        &self,
        request: Request<v1::StopRtStreamRequest>,
    ) -> Answer<v1::StopRtStreamResponse> {
        let rtstream = Some(
            session(&request)?
                .stop_rtstream(&request.get_ref().rtstream_id)
                .await?,
        );
        Ok(Response::new(v1::StopRtStreamResponse { rtstream }))
    }

    async fn list_transcript(
        &self,
        request: Request<v1::ListTranscriptRequest>,
    ) -> Answer<v1::ListTranscriptResponse> {
        let page = session(&request)?
            .list_transcript(request.into_inner())
            .await?;
        Ok(Response::new(page))
    }
}

#[tonic::async_trait]
impl IndexService for Grpc {
    async fn create_visual_index(
        &self,
        request: Request<v1::CreateVisualIndexRequest>,
    ) -> Answer<v1::CreateVisualIndexResponse> {
        let index = Some(
            session(&request)?
                .create_visual_index(request.into_inner())
                .await?,
        );
        Ok(Response::new(v1::CreateVisualIndexResponse { index }))
    }

    async fn get_index(
        &self,
        request: Request<v1::GetIndexRequest>,
    ) -> Answer<v1::GetIndexResponse> {
        let index = Some(
            session(&request)?
                .get_index(&request.get_ref().index_id)
                .await?,
        );
        Ok(Response::new(v1::GetIndexResponse { index }))
    }

    async fn list_indexes(
        &self,
        request: Request<v1::ListIndexesRequest>,
    ) -> Answer<v1::ListIndexesResponse> {
        let page = session(&request)?
            .list_indexes(request.into_inner())
            .await?;
        Ok(Response::new(page))
    }

    async fn start_index(
        &self,
        request: Request<v1::StartIndexRequest>,
    ) -> Answer<v1::StartIndexResponse> {
        let id = &request.get_ref().index_id;
        let index = Some(
            session(&request)?
                .set_index_state(id, index::State::Running)
                .await?,
        );
        Ok(Response::new(v1::StartIndexResponse { index }))
    }

    async fn stop_index(
        &self,
        request: Request<v1::StopIndexRequest>,
    ) -> Answer<v1::StopIndexResponse> {
        let id = &request.get_ref().index_id;
        let index = Some(
            session(&request)?
                .set_index_state(id, index::State::Stopped)
                .await?,
        );
        Ok(Response::new(v1::StopIndexResponse { index }))
    }

    async fn list_scenes(
        &self,
        request: Request<v1::ListScenesRequest>,
    ) -> Answer<v1::ListScenesResponse> {
        let page = session(&request)?.list_scenes(request.into_inner()).await?;
        Ok(Response::new(page))
    }

    async fn search(&self, request: Request<v1::SearchRequest>) -> Answer<v1::SearchResponse> {
        let found = session(&request)?.search(request.into_inner()).await?;
        Ok(Response::new(found))
    }
}

#[tonic::async_trait]
impl EventService for Grpc {
    async fn create_event(
        &self,
        request: Request<v1::CreateEventRequest>,
    ) -> Answer<v1::CreateEventResponse> {
        let event = Some(
            session(&request)?
                .create_event(request.into_inner())
                .await?,
        );
        Ok(Response::new(v1::CreateEventResponse { event }))
    }

    async fn list_events(
        &self,
        request: Request<v1::ListEventsRequest>,
    ) -> Answer<v1::ListEventsResponse> {
        let page = session(&request)?.list_events(request.get_ref())?;
        Ok(Response::new(page))
    }

    async fn create_alert(
        &self,
        request: Request<v1::CreateAlertRequest>,
    ) -> Answer<v1::CreateAlertResponse> {
        let alert = Some(
            session(&request)?
                .create_alert(request.into_inner())
                .await?,
        );
        Ok(Response::new(v1::CreateAlertResponse { alert }))
    }

    async fn list_alerts(
        &self,
        request: Request<v1::ListAlertsRequest>,
    ) -> Answer<v1::ListAlertsResponse> {
        let page = session(&request)?.list_alerts(request.into_inner()).await?;
        Ok(Response::new(page))
    }

    async fn enable_alert(
        &self,
        request: Request<v1::EnableAlertRequest>,
    ) -> Answer<v1::EnableAlertResponse> {
        let id = &request.get_ref().alert_id;
        let alert = Some(
            session(&request)?
                .set_alert_state(id, alert::State::Enabled)
                .await?,
        );
        Ok(Response::new(v1::EnableAlertResponse { alert }))
    }

    async fn disable_alert(
        &self,
        request: Request<v1::DisableAlertRequest>,
    ) -> Answer<v1::DisableAlertResponse> {
        let id = &request.get_ref().alert_id;
        let alert = Some(
            session(&request)?
                .set_alert_state(id, alert::State::Disabled)
                .await?,
        );
        Ok(Response::new(v1::DisableAlertResponse { alert }))
    }

    async fn list_firings(
        &self,
        request: Request<v1::ListFiringsRequest>,
    ) -> Answer<v1::ListFiringsResponse> {
        let page = session(&request)?
            .list_firings(request.into_inner())
            .await?;
        Ok(Response::new(page))
    }

    async fn list_deliveries(
        &self,
        request: Request<v1::ListDeliveriesRequest>,
    ) -> Answer<v1::ListDeliveriesResponse> {
        let page = session(&request)?
            .list_deliveries(request.into_inner())
            .await?;
        Ok(Response::new(page))
    }
}

#[tonic::async_trait]
impl RecordingService for Grpc {
    async fn generate_stream(
        &self,
        request: Request<v1::GenerateStreamRequest>,
    ) -> Answer<v1::GenerateStreamResponse> {
        let links = session(&request)?
            .generate_stream(request.into_inner())
            .await?;
        Ok(Response::new(links))
    }

    async fn get_recording(
        &self,
        request: Request<v1::GetRecordingRequest>,
    ) -> Answer<v1::GetRecordingResponse> {
        let recording = session(&request)?.get_recording(request.get_ref()).await?;
        Ok(Response::new(recording))
    }

    async fn create_export(
        &self,
        request: Request<v1::CreateExportRequest>,
    ) -> Answer<v1::CreateExportResponse> {
        let export = Some(
            session(&request)?
                .create_export(request.into_inner())
                .await?,
        );
        Ok(Response::new(v1::CreateExportResponse { export }))
    }

    async fn get_export(
        &self,
        request: Request<v1::GetExportRequest>,
    ) -> Answer<v1::GetExportResponse> {
        let export = Some(
            session(&request)?
                .get_export(&request.get_ref().export_id)
                .await?,
        );
        Ok(Response::new(v1::GetExportResponse { export }))
    }

    async fn list_exports(
        &self,
        request: Request<v1::ListExportsRequest>,
    ) -> Answer<v1::ListExportsResponse> {
        let page = session(&request)?
            .list_exports(request.into_inner())
            .await?;
        Ok(Response::new(page))
    }
}

#[tonic::async_trait]
impl WatchService for Grpc {
    type WatchStream = BoxStream<'static, Result<v1::WatchResponse, Status>>;

    async fn watch(&self, request: Request<v1::WatchRequest>) -> Answer<Self::WatchStream> {
        let watch = session(&request)?.watch(request.into_inner()).await?;
        let responses = watch.map(|response| response.map_err(Status::from));
        Ok(Response::new(responses.boxed()))
    }
}
