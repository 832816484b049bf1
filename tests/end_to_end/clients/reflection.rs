//! A client that knows no proto: it asks the server for its descriptors, as grpcurl does, and builds every message from them.

use anyhow::{Context, Result, ensure};
use prost::Message;
use prost::bytes::{Buf, BufMut};
use prost_reflect::{DescriptorPool, DynamicMessage, SerializeOptions};
use serde_json::{Value, json};
use sightline_testkit::platform::clip_url;
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::codegen::http::uri::PathAndQuery;
use tonic::codegen::tokio_stream;
use tonic::metadata::AsciiMetadataValue;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Status};
use tonic_reflection::pb::v1::ServerReflectionRequest;
use tonic_reflection::pb::v1::server_reflection_client::ServerReflectionClient;
use tonic_reflection::pb::v1::server_reflection_request::MessageRequest;
use tonic_reflection::pb::v1::server_reflection_response::MessageResponse;
use tonic_types::StatusExt;

/// Connects, describes, lists and is refused, by what reflection tells alone.
pub async fn calls(url: &str, key: &str) -> Result<()> {
    let client = Client::connect(url, key).await?;
    let source = json!({"url": clip_url()?, "name": "by reflection", "start_stopped": true});
    let connected = client
        .call("RtStreamService/ConnectRtStream", source)
        .await?;
    let id = &connected["rtstream"]["id"];
    let index = json!({"rtstream_id": id, "prompt": "Describe activity"});
    let index = client.call("IndexService/CreateVisualIndex", index).await?;
    assert_eq!(&index["index"]["rtstream_id"], id);
    let listed = json!({"name_contains": "reflection"});
    let listed = client.call("RtStreamService/ListRtStreams", listed).await?;
    let streams = listed["rtstreams"].as_array().context("streams")?;
    ensure!(streams.len() == 1 && &streams[0]["id"] == id, "{listed}");
    assert_eq!(streams[0]["state"], "STATE_STOPPED");
    let unknown = json!({"rtstream_id": "rts-unknown"});
    let unknown = client.call("RtStreamService/GetRtStream", unknown).await;
    let status = unknown.err().context("a refusal")?.downcast::<Status>()?;
    let info = status.get_error_details().error_info().cloned();
    let reason = info.map(|info| info.reason);
    assert_eq!(
        (status.code(), reason.as_deref()),
        (Code::NotFound, Some("NOT_FOUND"))
    );
    Ok(())
}

struct Client {
    channel: Channel,
    key: AsciiMetadataValue,
    pool: DescriptorPool,
}

impl Client {
    async fn connect(url: &str, key: &str) -> Result<Self> {
        let mut client = Self {
            channel: Endpoint::from_shared(url.to_owned())?.connect().await?,
            key: key.parse()?,
            pool: DescriptorPool::new(),
        };
        let ask = MessageRequest::ListServices(String::new());
        let MessageResponse::ListServicesResponse(listed) = client.reflect(ask).await? else {
            anyhow::bail!("no list of services");
        };
        for service in listed.service {
            if service.name.starts_with("sightline.v1.") {
                let ask = MessageRequest::FileContainingSymbol(service.name);
                client.learn(ask).await?;
            }
        }
        Ok(client)
    }

    /// Takes in the files of an answer, after what they import.
    async fn learn(&mut self, ask: MessageRequest) -> Result<()> {
        let MessageResponse::FileDescriptorResponse(files) = self.reflect(ask).await? else {
            anyhow::bail!("no file");
        };
        for file in files.file_descriptor_proto {
            let file = prost_types::FileDescriptorProto::decode(file.as_slice())?;
            for import in &file.dependency {
                if self.pool.get_file_by_name(import).is_none() {
                    Box::pin(self.learn(MessageRequest::FileByFilename(import.clone()))).await?;
                }
            }
            self.pool.add_file_descriptor_proto(file)?;
        }
        Ok(())
    }

    async fn reflect(&self, ask: MessageRequest) -> Result<MessageResponse> {
        let ask = ServerReflectionRequest {
            host: String::new(),
            message_request: Some(ask),
        };
        let asking = self.with_key(tokio_stream::once(ask));
        let mut reflection = ServerReflectionClient::new(self.channel.clone());
        let mut answers = reflection
            .server_reflection_info(asking)
            .await?
            .into_inner();
        let answer = answers
            .message()
            .await?
            .and_then(|answer| answer.message_response);
        answer.context("an answer of reflection")
    }

    /// Calls `SERVICE/METHOD` with a message as JSON.
    async fn call(&self, method: &str, request: Value) -> Result<Value> {
        let (service, name) = method.split_once('/').context("SERVICE/METHOD")?;
        let service = self
            .pool
            .get_service_by_name(&format!("sightline.v1.{service}"));
        let service = service.context("a service")?;
        let described = service.methods().find(|method| method.name() == name);
        let described = described.context("a method")?;
        let request = DynamicMessage::deserialize(described.input(), request)?;
        let mut grpc = Grpc::new(self.channel.clone());
        grpc.ready().await?;
        let path = PathAndQuery::try_from(format!("/sightline.v1.{method}"))?;
        let request = self.with_key(request.encode_to_vec());
        let answer = grpc.unary(request, path, Bytes).await?.into_inner();
        let answer = DynamicMessage::decode(described.output(), answer.as_slice())?;
        let names = SerializeOptions::new().use_proto_field_name(true);
        Ok(answer.serialize_with_options(serde_json::value::Serializer, &names)?)
    }

    fn with_key<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request
            .metadata_mut()
            .insert("x-access-token", self.key.clone());
        request
    }
}

/// Messages as the bytes that they are.
#[derive(Debug, Clone, Copy)]
struct Bytes;

impl Codec for Bytes {
    type Encode = Vec<u8>;
    type Decode = Vec<u8>;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn encode(&mut self, item: Vec<u8>, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Bytes {
    type Item = Vec<u8>;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Vec<u8>>, Status> {
        let all = from.remaining();
        Ok(Some(from.copy_to_bytes(all).to_vec()))
    }
}
