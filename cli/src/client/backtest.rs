//! `sightline event backtest`: what would have fired, as it is found.

use std::io::{IsTerminal, stderr};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use sightline_proto::client::Client;
use sightline_proto::time::duration;
use sightline_proto::v1::backtest_request::Label;
use sightline_proto::v1::backtest_response::{Judged, Message, Summary};
use sightline_proto::v1::firing::Basis;
use sightline_proto::v1::{self, BacktestRequest, BacktestResponse, Firing, index};

use super::args::BacktestArgs;
use super::call::{Refused, answer, ask};
use super::moment::Moment;
use super::output::{Output, line};

/// Streams and indexes that are looked through for a name.
const MOST: i32 = 1000;

/// Judges what was, and shows what comes of it.
///
/// # Errors
/// When the server refuses, or is lost on the way.
pub async fn run(mut client: Client, args: BacktestArgs, out: &Output) -> Result<()> {
    let index_id = match (&args.index, &args.stream) {
        (Some(index), _) => index.clone(),
        (None, Some(stream)) => index_of(&mut client, stream).await?,
        (None, None) => bail!("name an index with --index, or a stream with --stream"),
    };
    let request = request(args, index_id, out);
    // The call has no deadline: a day takes hours.
    let mut responses = answer(client.events.backtest(request)).await?;
    let mut finished = false;
    while let Some(response) = responses.message().await.map_err(Refused::from)? {
        finished |= matches!(response.message, Some(Message::Summary(_)));
        show(&response, out)?;
    }
    ensure!(finished, "the server ended it before all was judged");
    Ok(())
}

fn request(args: BacktestArgs, index_id: String, out: &Output) -> BacktestRequest {
    let now_us = out.view.now_us;
    let time = |moment: Moment| Some(moment.timestamp(now_us));
    let cooldown =
        |cooldown: Duration| duration(i64::try_from(cooldown.as_micros()).unwrap_or(i64::MAX));
    BacktestRequest {
        prompt: args.prompt.unwrap_or_default(),
        event_id: args.event.unwrap_or_default(),
        index_id,
        start_time: time(args.from),
        end_time: time(args.to.unwrap_or(Moment::Ago(0))),
        threshold: args.threshold,
        policy: Some(v1::Policy {
            required: args.required.unwrap_or_default(),
            of: args.of.unwrap_or_default(),
            close_after: args.close_after.unwrap_or_default(),
            cooldown: args.cooldown.map(cooldown),
            ..v1::Policy::default()
        }),
        labels: args
            .labels
            .iter()
            .map(|label| Label {
                start_time: time(label.from),
                end_time: time(label.to),
            })
            .collect(),
    }
}

/// The only index of a stream's pictures.
async fn index_of(client: &mut Client, stream: &str) -> Result<String> {
    let rtstream_id = match stream.starts_with("rts-") {
        true => stream.to_owned(),
        false => stream_named(client, stream).await?,
    };
    let request = v1::ListIndexesRequest {
        rtstream_id,
        page_size: MOST,
        ..Default::default()
    };
    let listed = answer(client.indexes.list_indexes(ask(request))).await?;
    let visual = |index: &v1::Index| index.kind() != index::Kind::Audio;
    let mut found = listed.indexes.into_iter().filter(visual);
    match (found.next(), found.next()) {
        (Some(only), None) => Ok(only.id),
        (Some(_), Some(_)) => {
            bail!("{stream} has several indexes: name one of `sightline index list` with --index")
        }
        (None, _) => {
            bail!("{stream} has no index of its pictures: make one with `sightline index create`")
        }
    }
}

async fn stream_named(client: &mut Client, name: &str) -> Result<String> {
    let request = v1::ListRtStreamsRequest {
        name_contains: name.to_owned(),
        page_size: MOST,
        ..Default::default()
    };
    let listed = answer(client.streams.list_rt_streams(ask(request))).await?;
    let mut found = listed.rtstreams.into_iter().filter(|s| s.name == name);
    let only = found.next().with_context(|| {
        format!("there is no stream called {name}: see `sightline stream list`")
    })?;
    ensure!(
        found.next().is_none(),
        "several streams are called {name}: name the id of one"
    );
    Ok(only.id)
}

fn show(response: &BacktestResponse, out: &Output) -> Result<()> {
    if out.json {
        return out.line(&line(response)?);
    }
    match response.message.as_ref() {
        Some(Message::Progress(at)) => {
            if stderr().is_terminal() {
                eprint!("\r{} of {} windows judged ", at.judged, at.windows);
            }
            Ok(())
        }
        Some(Message::Judged(window)) => out.line(&judged(window, out)),
        Some(Message::Firing(firing)) => out.line(&fired(firing, out)),
        Some(Message::Summary(summary)) => summed(summary, out),
        None => Ok(()),
    }
}

fn judged(window: &Judged, out: &Output) -> String {
    let time = out.view.time(window.start_time.as_ref());
    let share = window.probability * 100.0;
    let what = match window.reason.as_str() {
        "" => "fires",
        reason => reason,
    };
    let by = match window.basis() {
        Basis::Similarity => " (by its description alone)",
        Basis::Text => " (by what was said)",
        _ => "",
    };
    let text = match window.text.as_str() {
        "" => String::new(),
        text => format!(": {text}"),
    };
    format!("  {time}  {share:3.0} %{by}  {what}{text}")
}

fn fired(firing: &Firing, out: &Output) -> String {
    let [time, length] = out
        .view
        .stretch(firing.start_time.as_ref(), firing.end_time.as_ref());
    let said = format!(
        "would have fired at {time} for {length}  {}",
        firing.player_url
    );
    said.trim_end().to_owned()
}

fn summed(summary: &Summary, out: &Output) -> Result<()> {
    if stderr().is_terminal() {
        eprintln!();
    }
    out.line(&format!(
        "{} firings; {} windows judged from frames, {} from descriptions, nothing stored of {}",
        summary.firings, summary.from_frames, summary.from_scenes, summary.missing
    ))?;
    if summary.curve.is_empty() {
        return Ok(());
    }
    out.line("threshold  precision  recall")?;
    for point in &summary.curve {
        let suggested = if point.threshold == summary.suggested_threshold {
            "  suggested"
        } else {
            ""
        };
        out.line(&format!(
            "{:9.3}  {:9.2}  {:6.2}{suggested}",
            point.threshold, point.precision, point.recall
        ))?;
    }
    Ok(())
}
