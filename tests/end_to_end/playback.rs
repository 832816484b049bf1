//! What a player gets to see: playlists and files read by ffmpeg, which must have nothing to complain about.

use std::path::Path;

use anyhow::{Context, Result, ensure};
use sightline_proto::client::Client;
use sightline_proto::time::micros;
use sightline_proto::v1;
use sightline_testkit::until;
use tokio::process::Command;

/// By how much a recording may miss the ends of what it is of, in microseconds.
const EDGE_US: i64 = 100_000;

/// Runs a program that has to succeed and to say nothing on standard error; what it wrote.
async fn quiet(program: &str, arguments: &[&str]) -> Result<Vec<u8>> {
    let output = Command::new(program).args(arguments).output().await?;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success() && said.is_empty(),
        "{program} {arguments:?}: {} {said}",
        output.status
    );
    Ok(output.stdout)
}

/// Where the pictures of a playlist, segment or file start and end, in seconds of its own time, as ffprobe reads them without
/// a warning.
pub async fn probed(source: &str) -> Result<(f64, f64)> {
    let arguments = [
        "-v",
        "warning",
        "-select_streams",
        "v",
        "-show_entries",
        "packet=pts_time,duration_time",
        "-of",
        "csv=p=0",
        source,
    ];
    let packets = String::from_utf8(quiet("ffprobe", &arguments).await?)?;
    let mut span: Option<(f64, f64)> = None;
    for packet in packets.lines().filter(|line| !line.is_empty()) {
        let mut fields = packet
            .split(',')
            .map(|field| field.parse::<f64>().unwrap_or(0.0));
        let (pts, duration) = (fields.next().unwrap_or(0.0), fields.next().unwrap_or(0.0));
        let (start, end) = span.unwrap_or((pts, pts));
        span = Some((start.min(pts), end.max(pts + duration)));
    }
    span.with_context(|| format!("{source} has pictures"))
}

/// The hashes of all pictures, decoded, in the order in which they are shown.
pub async fn pictures(source: &str) -> Result<Vec<String>> {
    let arguments = [
        "-v",
        "warning",
        "-i",
        source,
        "-map",
        "0:v",
        "-fps_mode",
        "passthrough",
        "-f",
        "framemd5",
        "-",
    ];
    let listed = String::from_utf8(quiet("ffmpeg", &arguments).await?)?;
    let hashes = listed
        .lines()
        .filter(|line| !line.starts_with('#'))
        .filter_map(|line| line.rsplit(',').next());
    Ok(hashes.map(|hash| hash.trim().to_owned()).collect())
}

/// What a GET answers: the status and the body.
pub async fn get(url: &str) -> Result<(u16, Vec<u8>)> {
    let mut body = quiet(
        "curl",
        &["-sS", "--max-time", "60", "-w", "%{http_code}", url],
    )
    .await?;
    let status = body.split_off(body.len().saturating_sub(3));
    let status = std::str::from_utf8(&status)?.parse();
    Ok((status.with_context(|| url.to_owned())?, body))
}

/// Links to a stretch of a stream, in microseconds.
pub async fn links(
    client: &mut Client,
    rtstream_id: &str,
    start_us: i64,
    end_us: Option<i64>,
    player_config: Option<v1::PlayerConfig>,
) -> Result<v1::GenerateStreamResponse> {
    let request = v1::GenerateStreamRequest {
        rtstream_id: rtstream_id.to_owned(),
        start_time: Some(sightline_proto::time::timestamp(start_us)),
        end_time: end_us.map(sightline_proto::time::timestamp),
        player_config,
    };
    Ok(client
        .recordings
        .generate_stream(request)
        .await?
        .into_inner())
}

/// What of a stream is recorded: stretches in microseconds, and the number of segments.
pub async fn recorded(client: &mut Client, rtstream_id: &str) -> Result<(Vec<(i64, i64)>, i64)> {
    let request = v1::GetRecordingRequest {
        rtstream_id: rtstream_id.to_owned(),
        ..Default::default()
    };
    let recording = client.recordings.get_recording(request).await?.into_inner();
    let us = |time: &Option<prost_types::Timestamp>| time.as_ref().map_or(0, micros);
    let stretches = recording
        .stretches
        .iter()
        .map(|stretch| (us(&stretch.start_time), us(&stretch.end_time)));
    Ok((stretches.collect(), recording.segments))
}

/// A file that was played to its end is recorded as one stretch that covers it, and plays back picture for picture.
pub async fn recorded_whole(client: &mut Client, rtstream_id: &str, file: &Path) -> Result<()> {
    let request = v1::GetRtStreamRequest {
        rtstream_id: rtstream_id.to_owned(),
    };
    let stream = client
        .streams
        .get_rt_stream(request)
        .await?
        .into_inner()
        .rtstream;
    let epoch = stream.and_then(|s| s.epoch).context("media arrived")?;
    let file = file.to_str().context("a name")?;
    let (from, to) = probed(file).await?;
    let near =
        |us: i64, seconds: f64| (us - micros(&epoch) - (seconds * 1e6) as i64).abs() <= EDGE_US;
    // What is stored is known a second later.
    let whole = format!("one stretch from {from} to {to} s after {epoch:?} to be recorded");
    let (start_us, end_us) = until(&whole, async || {
        let (stretches, _) = recorded(client, rtstream_id).await?;
        Ok(match stretches[..] {
            [(start_us, end_us)] if near(start_us, from) && near(end_us, to) => {
                Some((start_us, end_us))
            }
            _ => None,
        })
    })
    .await?;
    let links = links(client, rtstream_id, start_us, Some(end_us), None).await?;
    let (first, last) = probed(&links.stream_url).await?;
    ensure!(
        (last - first - (to - from)).abs() <= 0.1,
        "{first} to {last} s are played"
    );
    assert_eq!(pictures(&links.stream_url).await?, pictures(file).await?);
    Ok(())
}
