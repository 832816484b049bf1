//! Measures how long a playlist of a week takes from a local directory: `cargo run --release -p sightline-recordings --example
//! measure_week`. The last line is one JSON object, in milliseconds.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sightline_recordings::playlist::{Ending, playlist};
use sightline_recordings::{Library, Retention, Segment, Store, enforce};

const STREAM: &str = "rts-01900000-0000-7000-8000-000000000001";
const HOUR_US: i64 = 3_600_000_000;
const WEEK_HOURS: i64 = 168;
const SEGMENT_US: i64 = 4_000_000;
const BEGIN_US: i64 = 490_000 * HOUR_US;
const END_US: i64 = BEGIN_US + WEEK_HOURS * HOUR_US;
const ROUNDS: usize = 5;

#[tokio::main]
async fn main() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let store = Store::open(&format!("file://{}", dir.path().display()), [])?;
    println!("writing {} segments", (END_US - BEGIN_US) / SEGMENT_US);
    write_week(dir.path())?;
    let unsealed = measure(&store, BEGIN_US, END_US).await?;
    println!(
        "the week, listed: first {:.1?}, again {:.1?}",
        unsealed.0, unsealed.1
    );

    let sealing = Instant::now();
    let over_us = END_US + HOUR_US;
    let library = Library::new(store.clone());
    let round = async || enforce(&library, STREAM, Retention::default(), over_us, over_us).await;
    round().await?;
    println!("sealing: {:.1?}", sealing.elapsed());
    let idle = Instant::now();
    round().await?;
    println!("a round with nothing to do: {:.1?}", idle.elapsed());

    let mut fields = Vec::new();
    for (name, seconds) in [("minute", 60), ("hour", 3600), ("week", 604_800)] {
        let from_us = (END_US - seconds * 1_000_000 - HOUR_US).max(BEGIN_US);
        let (first, again) = measure(&store, from_us, from_us + seconds * 1_000_000).await?;
        println!("{name}: first {first:.2?}, again {again:.2?}");
        for (which, time) in [("first", first), ("again", again)] {
            fields.push(format!(
                "\"{name}_{which}_ms\":{:.3}",
                time.as_secs_f64() * 1e3
            ));
        }
    }
    println!("{{{}}}", fields.join(","));
    Ok(())
}

/// The median of the first request to a library of its own, and of one after it.
async fn measure(store: &Store, from_us: i64, to_us: i64) -> Result<(Duration, Duration)> {
    let (mut first, mut again) = (Vec::new(), Vec::new());
    for _ in 0..ROUNDS {
        let library = Library::new(store.clone());
        first.push(request(&library, from_us, to_us).await?);
        again.push(request(&library, from_us, to_us).await?);
    }
    Ok((median(first)?, median(again)?))
}

async fn request(library: &Library, from_us: i64, to_us: i64) -> Result<Duration> {
    let started = Instant::now();
    let segments = library.segments(STREAM, from_us, to_us).await?;
    let text = playlist(&segments, from_us, Ending::Complete);
    let took = started.elapsed();
    let expected = (to_us - from_us) / SEGMENT_US;
    ensure!(
        text.matches("#EXTINF").count() as i64 == expected,
        "a segment is missing"
    );
    Ok(took)
}

fn median(mut times: Vec<Duration>) -> Result<Duration> {
    times.sort_unstable();
    times
        .get(times.len() / 2)
        .copied()
        .context("measured once at least")
}

/// Straight into the directory: through the store each would be flushed to the disk.
fn write_week(dir: &Path) -> Result<()> {
    for hour in 0..WEEK_HOURS {
        let start_us = BEGIN_US + hour * HOUR_US;
        let name = jiff::Timestamp::from_microsecond(start_us)?
            .strftime("%Y-%m-%dT%H")
            .to_string();
        let folder = dir.join("recordings").join(STREAM).join(name);
        std::fs::create_dir_all(&folder)?;
        for at in (start_us..start_us + HOUR_US).step_by(SEGMENT_US as usize) {
            let segment = Segment {
                start_us: at,
                duration_us: SEGMENT_US,
                bytes: 0,
            };
            std::fs::write(folder.join(segment.file_name()), "segment")?;
        }
    }
    Ok(())
}
