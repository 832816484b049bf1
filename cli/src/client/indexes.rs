//! `sightline index`, `sightline scenes` and `sightline search`.

use std::time::Duration;

use anyhow::Result;
use sightline_proto::client::Client;
use sightline_proto::v1::audio_batching::Batch;
use sightline_proto::v1::{self, AudioBatching, Index, ModelConfig, TimeSampling};

use super::args::{IndexCommand, Limit, ScenesArgs, SearchArgs};
use super::call::{answer, ask, given};
use super::moment::Moment;
use super::output::Output;

/// What a visual index takes where only one of window and frames is named.
const WINDOW: Duration = Duration::from_secs(5);
const FRAMES: u32 = 2;

/// Does what was said with indexes.
///
/// # Errors
/// When the server refuses.
pub async fn run(mut client: Client, command: IndexCommand, out: &Output) -> Result<()> {
    match command {
        create @ IndexCommand::Create { .. } => out.one(&given(made(client, create).await?)?),
        IndexCommand::List { stream, limit } => list(client, stream, limit, out).await,
        IndexCommand::Update {
            index: index_id,
            name,
            prompt,
            max_tokens,
            reuse_below,
        } => {
            let request = v1::UpdateIndexRequest {
                index_id,
                name,
                prompt,
                reuse_below,
                model_config: config(max_tokens),
            };
            let call = client.indexes.update_index(ask(request));
            out.one(&given(answer(call).await?.index)?)
        }
        IndexCommand::Start { index: index_id } => {
            let request = v1::StartIndexRequest { index_id };
            let call = client.indexes.start_index(ask(request));
            out.one(&given(answer(call).await?.index)?)
        }
        IndexCommand::Stop { index: index_id } => {
            let request = v1::StopIndexRequest { index_id };
            let call = client.indexes.stop_index(ask(request));
            out.one(&given(answer(call).await?.index)?)
        }
        IndexCommand::Delete { index } => {
            let request = v1::DeleteIndexRequest {
                index_id: index.clone(),
            };
            answer(client.indexes.delete_index(ask(request))).await?;
            out.done("deleted", &index)
        }
    }
}

async fn made(mut client: Client, command: IndexCommand) -> Result<Option<Index>> {
    let IndexCommand::Create {
        stream: rtstream_id,
        prompt,
        name,
        model,
        max_tokens,
        reuse_below,
        window,
        frames,
        audio,
        words,
        sentences,
        time,
    } = command
    else {
        return Ok(None);
    };
    let (prompt, name) = (prompt.unwrap_or_default(), name.unwrap_or_default());
    let (model, request_id) = (model.unwrap_or_default(), String::new());
    if audio {
        let batch = words
            .map(Batch::Words)
            .or(sentences.map(Batch::Sentences))
            .or(time.map(|time| Batch::Time(span(time))));
        let request = v1::CreateAudioIndexRequest {
            rtstream_id,
            prompt,
            name,
            model,
            batching: batch.map(|batch| AudioBatching { batch: Some(batch) }),
            request_id,
            model_config: config(max_tokens),
        };
        let call = client.indexes.create_audio_index(ask(request));
        return Ok(answer(call).await?.index);
    }
    let sampling = TimeSampling {
        window: Some(span(window.unwrap_or(WINDOW))),
        frame_count: frames.unwrap_or(FRAMES),
    };
    let request = v1::CreateVisualIndexRequest {
        rtstream_id,
        prompt,
        name,
        model,
        sampling: (window.is_some() || frames.is_some()).then_some(sampling),
        request_id,
        reuse_below: reuse_below.unwrap_or_default(),
        model_config: config(max_tokens),
    };
    let call = client.indexes.create_visual_index(ask(request));
    Ok(answer(call).await?.index)
}

fn config(max_tokens: Option<u32>) -> Option<ModelConfig> {
    max_tokens.map(|max_new_tokens| ModelConfig { max_new_tokens })
}

fn span(time: Duration) -> prost_types::Duration {
    sightline_proto::time::duration(i64::try_from(time.as_micros()).unwrap_or(i64::MAX))
}

async fn list(mut client: Client, rtstream_id: String, limit: Limit, out: &Output) -> Result<()> {
    out.pages(limit, async |page_size, page_token| {
        let request = v1::ListIndexesRequest {
            rtstream_id: rtstream_id.clone(),
            page_size,
            page_token,
        };
        let page = answer(client.indexes.list_indexes(ask(request))).await?;
        Ok((page.indexes, page.next_page_token))
    })
    .await
}

/// Shows what an index has described.
///
/// # Errors
/// When the server refuses.
pub async fn scenes(mut client: Client, args: ScenesArgs, out: &Output) -> Result<()> {
    let time = |moment: Moment| moment.timestamp(out.view.now_us);
    let request = v1::ListScenesRequest {
        index_id: args.index,
        start_time: args.between.from.map(time),
        end_time: args.between.to.map(time),
        ..Default::default()
    };
    out.pages(args.limit, async |page_size, page_token| {
        let request = v1::ListScenesRequest {
            page_size,
            page_token,
            ..request.clone()
        };
        let page = answer(client.indexes.list_scenes(ask(request))).await?;
        Ok((page.scenes, page.next_page_token))
    })
    .await
}

/// Searches, and shows what was found, best first.
///
/// # Errors
/// When the server refuses.
pub async fn search(mut client: Client, args: SearchArgs, out: &Output) -> Result<()> {
    let time = |moment: Moment| moment.timestamp(out.view.now_us);
    let everything = args.stream.is_none().then(|| "default".to_owned());
    let request = v1::SearchRequest {
        query: args.query,
        rtstream_id: args.stream.unwrap_or_default(),
        collection_id: args.collection.or(everything).unwrap_or_default(),
        index_id: args.index.unwrap_or_default(),
        limit: args.limit.into(),
        min_score: args.min_score,
        start_time: args.between.from.map(time),
        end_time: args.between.to.map(time),
        stitch: args.stitch,
        ..Default::default()
    };
    out.list(&answer(client.indexes.search(ask(request))).await?.hits)
}
