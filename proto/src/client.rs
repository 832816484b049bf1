//! A client of the public API for Rust programs: the services on one connection, with the key on every call.

use std::time::Duration;

use tonic::codegen::InterceptedService;
use tonic::metadata::AsciiMetadataValue;
use tonic::service::Interceptor;
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Status};

use crate::v1::collection_service_client::CollectionServiceClient;
use crate::v1::endpoint_service_client::EndpointServiceClient;
use crate::v1::event_service_client::EventServiceClient;
use crate::v1::index_service_client::IndexServiceClient;
use crate::v1::key_service_client::KeyServiceClient;
use crate::v1::recording_service_client::RecordingServiceClient;
use crate::v1::rt_stream_service_client::RtStreamServiceClient;
use crate::v1::system_service_client::SystemServiceClient;
use crate::v1::watch_service_client::WatchServiceClient;

/// The metadata key that carries the API key.
pub const ACCESS_TOKEN: &str = "x-access-token";

/// How long connecting may take.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// A connection that sends the key with every call.
pub type Authorized = InterceptedService<Channel, WithKey>;

/// The services of the public API.
#[derive(Clone)]
pub struct Client {
    /// Collections.
    pub collections: CollectionServiceClient<Authorized>,
    /// RtStreams and transcripts.
    pub streams: RtStreamServiceClient<Authorized>,
    /// Indexes, scenes and search.
    pub indexes: IndexServiceClient<Authorized>,
    /// Events, alerts, firings and deliveries.
    pub events: EventServiceClient<Authorized>,
    /// Receivers of webhooks.
    pub endpoints: EndpointServiceClient<Authorized>,
    /// Recordings: links that play them, and exports.
    pub recordings: RecordingServiceClient<Authorized>,
    /// API keys, for operators.
    pub keys: KeyServiceClient<Authorized>,
    /// Workers and queues, for operators.
    pub system: SystemServiceClient<Authorized>,
    /// What happens, as it happens.
    pub watch: WatchServiceClient<Authorized>,
}

/// Puts the key into the metadata of a call.
#[derive(Clone)]
pub struct WithKey(AsciiMetadataValue);

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// The key can't be sent.
    #[error("the API key holds characters other than visible ASCII")]
    Key,
    /// The server can't be reached.
    #[error("cannot connect to {url}: check that `sightline up` runs there")]
    Connect {
        /// Where to.
        url: String,
        /// Why.
        source: tonic::transport::Error,
    },
}

impl Client {
    /// Connects to a server such as `http://127.0.0.1:7700`.
    ///
    /// # Errors
    /// When the server is not there, or the key can't be sent.
    pub async fn connect(url: &str, api_key: &str) -> Result<Self, ClientError> {
        let failed = |source| ClientError::Connect {
            url: url.to_owned(),
            source,
        };
        let endpoint = Endpoint::from_shared(url.to_owned()).map_err(failed)?;
        let endpoint = endpoint.connect_timeout(CONNECT_DEADLINE);
        Self::on(endpoint.connect().await.map_err(failed)?, api_key)
    }

    /// A client on a connection.
    ///
    /// # Errors
    /// When the key can't be sent.
    pub fn on(channel: Channel, api_key: &str) -> Result<Self, ClientError> {
        let mut key = AsciiMetadataValue::try_from(api_key).map_err(|_| ClientError::Key)?;
        key.set_sensitive(true);
        let channel = InterceptedService::new(channel, WithKey(key));
        Ok(Self {
            collections: CollectionServiceClient::new(channel.clone()),
            streams: RtStreamServiceClient::new(channel.clone()),
            indexes: IndexServiceClient::new(channel.clone()),
            events: EventServiceClient::new(channel.clone()),
            endpoints: EndpointServiceClient::new(channel.clone()),
            recordings: RecordingServiceClient::new(channel.clone()),
            keys: KeyServiceClient::new(channel.clone()),
            system: SystemServiceClient::new(channel.clone()),
            watch: WatchServiceClient::new(channel),
        })
    }
}

impl Interceptor for WithKey {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert(ACCESS_TOKEN, self.0.clone());
        Ok(request)
    }
}
