//! `sightline stream` and `sightline transcript`.

use anyhow::Result;
use sightline_proto::client::Client;
use sightline_proto::v1::rt_stream::Playback;
use sightline_proto::v1::stop_transcription_request::Mode;
use sightline_proto::v1::{self, RtStream};

use super::args::{Limit, StreamCommand, Transcribe, TranscriptArgs};
use super::call::{answer, ask, given};
use super::output::Output;

/// Does what was said with streams.
///
/// # Errors
/// When the server refuses.
pub async fn run(mut client: Client, command: StreamCommand, out: &Output) -> Result<()> {
    match command {
        connect @ StreamCommand::Connect { .. } => {
            let call = client.streams.connect_rt_stream(ask(source(connect)));
            out.one(&given(answer(call).await?.rtstream)?)
        }
        StreamCommand::List {
            collection,
            name,
            limit,
        } => list(client, collection, name, limit, out).await,
        StreamCommand::Status { stream } => status(client, stream, out).await,
        StreamCommand::Start {
            stream: rtstream_id,
        } => {
            let request = v1::StartRtStreamRequest { rtstream_id };
            let call = client.streams.start_rt_stream(ask(request));
            out.one(&given(answer(call).await?.rtstream)?)
        }
        StreamCommand::Stop {
            stream: rtstream_id,
        } => {
            let request = v1::StopRtStreamRequest { rtstream_id };
            let call = client.streams.stop_rt_stream(ask(request));
            out.one(&given(answer(call).await?.rtstream)?)
        }
        update @ StreamCommand::Update { .. } => out.one(&given(change(client, update).await?)?),
        StreamCommand::Delete { stream } => {
            let request = v1::DeleteRtStreamRequest {
                rtstream_id: stream.clone(),
            };
            answer(client.streams.delete_rt_stream(ask(request))).await?;
            out.done("deleted", &stream)
        }
    }
}

fn source(command: StreamCommand) -> v1::ConnectRtStreamRequest {
    let StreamCommand::Connect {
        url,
        name,
        collection,
        transcribe,
        record,
        fast,
        stopped,
    } = command
    else {
        return v1::ConnectRtStreamRequest::default();
    };
    let playback = if fast {
        Playback::Fast
    } else {
        Playback::RealTime
    };
    v1::ConnectRtStreamRequest {
        url,
        name: name.unwrap_or_default(),
        collection_id: collection.unwrap_or_default(),
        transcribe,
        playback: playback.into(),
        start_stopped: stopped,
        store: record,
        ..Default::default()
    }
}

async fn list(
    mut client: Client,
    collection: Option<String>,
    name: Option<String>,
    limit: Limit,
    out: &Output,
) -> Result<()> {
    let request = v1::ListRtStreamsRequest {
        collection_id: collection.unwrap_or_default(),
        name_contains: name.unwrap_or_default(),
        ..Default::default()
    };
    out.pages(limit, async |page_size, page_token| {
        let request = v1::ListRtStreamsRequest {
            page_size,
            page_token,
            ..request.clone()
        };
        let page = answer(client.streams.list_rt_streams(ask(request))).await?;
        Ok((page.rtstreams, page.next_page_token))
    })
    .await
}

/// For people with the indexes below; for programs the stream alone.
async fn status(mut client: Client, rtstream_id: String, out: &Output) -> Result<()> {
    let request = v1::GetRtStreamRequest {
        rtstream_id: rtstream_id.clone(),
    };
    let stream = answer(client.streams.get_rt_stream(ask(request))).await?;
    out.one(&given(stream.rtstream)?)?;
    if out.json {
        return Ok(());
    }
    let request = v1::ListIndexesRequest {
        rtstream_id,
        ..Default::default()
    };
    let indexes = answer(client.indexes.list_indexes(ask(request)))
        .await?
        .indexes;
    if indexes.is_empty() {
        return Ok(());
    }
    out.line("")?;
    out.list(&indexes)
}

async fn change(mut client: Client, command: StreamCommand) -> Result<Option<RtStream>> {
    let StreamCommand::Update {
        stream,
        name,
        transcribe,
        language,
        translate,
        keep,
        keep_bytes,
    } = command
    else {
        return Ok(None);
    };
    let mut changed = None;
    if name.is_some() || keep.is_some() || keep_bytes.is_some() {
        let retention = v1::Retention {
            max_age_seconds: keep.map_or(0, |keep| number(keep.as_secs())),
            max_bytes: keep_bytes.map_or(0, number),
        };
        let request = v1::UpdateRtStreamRequest {
            rtstream_id: stream.clone(),
            name,
            retention: (keep.is_some() || keep_bytes.is_some()).then_some(retention),
        };
        changed = answer(client.streams.update_rt_stream(ask(request)))
            .await?
            .rtstream;
    }
    match transcribe {
        None => {}
        Some(Transcribe::On) => {
            let request = v1::StartTranscriptionRequest {
                rtstream_id: stream,
                language: language.unwrap_or_default(),
                translate,
                ..Default::default()
            };
            let call = client.streams.start_transcription(ask(request));
            changed = answer(call).await?.rtstream;
        }
        Some(off) => {
            let mode = if off == Transcribe::Drop {
                Mode::Immediate
            } else {
                Mode::Graceful
            };
            let request = v1::StopTranscriptionRequest {
                rtstream_id: stream,
                mode: mode.into(),
            };
            let call = client.streams.stop_transcription(ask(request));
            changed = answer(call).await?.rtstream;
        }
    }
    Ok(changed)
}

fn number(value: u64) -> i64 {
    i64::try_from(value).unwrap_or(i64::MAX)
}

/// Shows what was said.
///
/// # Errors
/// When the server refuses.
pub async fn transcript(mut client: Client, args: TranscriptArgs, out: &Output) -> Result<()> {
    let time = |moment: super::moment::Moment| moment.timestamp(out.view.now_us);
    let request = v1::ListTranscriptRequest {
        rtstream_id: args.stream,
        start_time: args.between.from.map(time),
        end_time: args.between.to.map(time),
        ..Default::default()
    };
    out.pages(args.limit, async |page_size, page_token| {
        let request = v1::ListTranscriptRequest {
            page_size,
            page_token,
            ..request.clone()
        };
        let page = answer(client.streams.list_transcript(ask(request))).await?;
        Ok((page.segments, page.next_page_token))
    })
    .await
}
