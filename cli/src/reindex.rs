//! `sightline reindex`: has the vector store built anew, from what the bus has kept and what the old one has. Whoever runs the
//! store does it, beside the old one, and search goes on meanwhile.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Result, bail};
use clap::Args;
use sightline_service::clock::{Clock, SystemClock};
use sightline_vectors::{EdgeStores, Progress, Rebuild, Stores};
use tokio::time::{Instant, sleep};

use crate::args::DataArgs;
use crate::client::moment::Moment;
use crate::files;
use crate::vectors::VectorArgs;

/// How often is looked how far it is.
const LOOK: Duration = Duration::from_millis(500);
/// How often a line says so where no terminal can show a changing one.
const SAY: Duration = Duration::from_secs(5);
/// How long a store on a server may go without anybody who begins.
const PATIENCE: Duration = Duration::from_secs(30);

/// Options of `reindex`.
#[derive(Debug, Args)]
pub struct ReindexArgs {
    /// Take what starts from here on from the bus alone, for example 2h or 2026-11-26T08:00:00Z. Without it, all that the old store
    /// has is taken over as well; with it, what starts before.
    #[arg(long, value_name = "TIME")]
    pub from: Option<Moment>,
    /// End with one JSON object on standard output; everything for people goes to standard error.
    #[arg(long)]
    pub json: bool,
    #[command(flatten)]
    pub data: DataArgs,
    #[command(flatten)]
    pub vectors: VectorArgs,
}

/// How it ended.
enum End {
    /// The new store is in use.
    Done(Option<Progress>),
    /// Nobody runs it: it is done when somebody does.
    Later,
}

/// Asks for it, and shows how far it is until it is done.
///
/// # Errors
/// When there is no store, or it can't be reached.
pub async fn run(args: ReindexArgs) -> Result<ExitCode> {
    let now_us = SystemClock.now_us();
    let from = args.from.map(|from| from.timestamp(now_us));
    let rebuild = Rebuild {
        from_us: from.as_ref().map(sightline_proto::time::micros),
    };
    let mut ends = Vec::new();
    if let Some(server) = args.vectors.server()? {
        server.ask(rebuild).await?;
        ends.push((
            "the qdrant server".to_owned(),
            watch(&server, || true).await?,
        ));
    } else {
        for dir in folders(&args.data)? {
            let stores = EdgeStores::look(&dir);
            stores.ask(rebuild).await?;
            let end = watch(&stores, || stores.in_use()).await?;
            ends.push((dir.display().to_string(), end));
        }
    }
    for (place, end) in &ends {
        say(args.json, place, end);
    }
    Ok(ExitCode::SUCCESS)
}

/// The folders with stores below the data directory: of the platform, and of the embeddings role alone.
fn folders(data: &DataArgs) -> Result<Vec<PathBuf>> {
    let data = files::data_dir(data)?;
    let folders = [data.join("vectors"), data.join("embeddings/vectors")];
    let folders: Vec<_> = folders.into_iter().filter(|dir| dir.exists()).collect();
    if folders.is_empty() {
        bail!(
            "there is no vector store in {}: name another directory with --data-dir, or a server with --qdrant-url",
            data.display()
        );
    }
    Ok(folders)
}

/// Waits until the wish is fulfilled, or nobody is there to do it.
async fn watch(stores: &dyn Stores, is_run: impl Fn() -> bool) -> Result<End> {
    let before = stores.state().await?.current;
    let (mut last, mut said, started) = (None, None::<Instant>, Instant::now());
    loop {
        let state = stores.state().await?;
        if state.rebuild.is_none() && state.current != before {
            eprintln!();
            return Ok(End::Done(last));
        }
        let waited = state.next.is_none() && started.elapsed() > PATIENCE;
        if !is_run() || waited {
            return Ok(End::Later);
        }
        if let Some(progress) = stores.progress().await? {
            last = Some(progress);
            show(progress, &mut said);
        }
        sleep(LOOK).await;
    }
}

/// A bar that changes where a terminal shows it, a line now and then where none does.
fn show(progress: Progress, said: &mut Option<Instant>) {
    const WIDTH: u64 = 30;
    let Progress { done, total } = progress;
    if std::io::stderr().is_terminal() {
        let full = (WIDTH * done / total.max(1)).min(WIDTH) as usize;
        let bar = format!("{}{}", "#".repeat(full), ".".repeat(WIDTH as usize - full));
        eprint!("\r[{bar}] {done} of {total} ");
    } else if said.is_none_or(|said| said.elapsed() > SAY) {
        *said = Some(Instant::now());
        eprintln!("{done} of {total}");
    }
}

fn say(json: bool, place: &str, end: &End) {
    if json {
        let line = match end {
            End::Done(progress) => serde_json::json!({
                "place": place,
                "done": true,
                "records": progress.map(|progress| progress.total),
            }),
            End::Later => serde_json::json!({ "place": place, "done": false }),
        };
        println!("{line}");
        return;
    }
    match end {
        End::Done(_) => println!("The vector store in {place} is built anew and in use."),
        End::Later => println!(
            "Nobody runs the vector store in {place} now: it is built anew as soon as somebody does, and answers meanwhile."
        ),
    }
}
