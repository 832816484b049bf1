//! Connects a camera or a file, describes it, and prints what happens: see examples/README.md.

use sightline_proto::client::Client;
use sightline_proto::v1;
use sightline_proto::v1::watch_response::Message;

#[tokio::main]
#[expect(clippy::disallowed_methods, reason = "an example is a whole program")]
async fn main() -> anyhow::Result<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let mut client = Client::connect(&arguments[1], &std::env::var("SIGHTLINE_API_KEY")?).await?;
    let source = v1::ConnectRtStreamRequest {
        url: arguments[2].clone(),
        ..Default::default()
    };
    let stream = client
        .streams
        .connect_rt_stream(source)
        .await?
        .into_inner()
        .rtstream
        .unwrap_or_default();
    let wanted = v1::CreateVisualIndexRequest {
        rtstream_id: stream.id,
        prompt: "Describe activity".to_owned(),
        ..Default::default()
    };
    let index = client
        .indexes
        .create_visual_index(wanted)
        .await?
        .into_inner()
        .index
        .unwrap_or_default();
    let filter = v1::WatchRequest {
        index_ids: vec![index.id],
        ..Default::default()
    };
    let mut watch = client.watch.watch(filter).await?.into_inner();
    while let Some(message) = watch.message().await? {
        if let Some(Message::Scene(scene)) = message.message {
            println!("{}", scene.text);
        }
    }
    Ok(())
}
