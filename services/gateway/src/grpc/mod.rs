//! The gRPC skin: takes requests apart, calls the core, wraps results. No logic lives here.

mod collections;
mod endpoints;
mod events;
mod indexes;
mod keys;
mod recordings;
mod streams;
mod system;
mod watch;

use sightline_proto::FILE_DESCRIPTOR_SET;
use sightline_proto::v1::collection_service_server::CollectionServiceServer;
use sightline_proto::v1::endpoint_service_server::EndpointServiceServer;
use sightline_proto::v1::event_service_server::EventServiceServer;
use sightline_proto::v1::index_service_server::IndexServiceServer;
use sightline_proto::v1::key_service_server::KeyServiceServer;
use sightline_proto::v1::recording_service_server::RecordingServiceServer;
use sightline_proto::v1::rt_stream_service_server::RtStreamServiceServer;
use sightline_proto::v1::system_service_server::SystemServiceServer;
use sightline_proto::v1::watch_service_server::WatchServiceServer;
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

fn answer<T>(message: T) -> Answer<T> {
    Ok(Response::new(message))
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
        .add_service(EndpointServiceServer::new(Grpc).max_decoding_message_size(limit))
        .add_service(RecordingServiceServer::new(Grpc).max_decoding_message_size(limit))
        .add_service(KeyServiceServer::new(Grpc).max_decoding_message_size(limit))
        .add_service(SystemServiceServer::new(Grpc).max_decoding_message_size(limit))
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
            EndpointServiceServer::<Grpc>::NAME,
            RecordingServiceServer::<Grpc>::NAME,
            KeyServiceServer::<Grpc>::NAME,
            SystemServiceServer::<Grpc>::NAME,
            WatchServiceServer::<Grpc>::NAME,
        ] {
            self.0.set_service_status(service, status).await;
        }
    }
}
