//! What was acknowledged is there after `kill -9`. The test runs itself again as the process that is killed.

use std::io::{BufRead, BufReader, Lines, Write};
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

use anyhow::{Context, Result};
use sightline_vectors::{EdgeStore, ListQuery, Point, VectorError, VectorStore};

use crate::support::{model, scene};

const DIR: &str = "SIGHTLINE_TEST_STORE_TO_FILL";
const FIRST: &str = "SIGHTLINE_TEST_FIRST_POINT";
const TEST: &str = "killed::what_was_acknowledged_survives_kill_9";
const ACKNOWLEDGED: &str = "acknowledged up to ";
/// Points of one upsert.
const BATCH: u64 = 7;

#[tokio::test(flavor = "multi_thread")]
async fn what_was_acknowledged_survives_kill_9() -> Result<()> {
    if let Some(dir) = variable(DIR) {
        let first = variable(FIRST).context("no first point")?.parse()?;
        return fill(Path::new(&dir), first).await;
    }
    let dir = tempfile::tempdir()?;
    let mut acknowledged = 0;
    for batches in [1, 2, 5, 13, 3, 8] {
        let mut filler = Filler::start(dir.path(), acknowledged)?;
        for _ in 0..batches {
            acknowledged = filler.next_acknowledged()?.context("the child ended")?;
        }
        let refused = EdgeStore::open(dir.path(), model()).await;
        let holder = format!("process {}", filler.child.id());
        assert!(matches!(refused, Err(VectorError::Locked { holder: by, .. }) if by == holder));
        // SIGKILL, while the child is at its next batch.
        filler.child.kill()?;
        filler.child.wait()?;
        while let Some(more) = filler.next_acknowledged()? {
            acknowledged = more;
        }
        check(dir.path(), acknowledged).await?;
    }
    Ok(())
}

/// The child: stores points and says so, until it is killed.
async fn fill(dir: &Path, first: u64) -> Result<()> {
    let store = EdgeStore::open(dir, model()).await?;
    let mut next = first;
    loop {
        store
            .upsert((next..next + BATCH).map(point).collect())
            .await?;
        next += BATCH;
        writeln!(std::io::stdout(), "\n{ACKNOWLEDGED}{next}")?;
    }
}

/// All that was acknowledged is stored as it was given, and nothing that was not given.
async fn check(dir: &Path, acknowledged: u64) -> Result<()> {
    let store = EdgeStore::open(dir, model()).await?;
    let query = ListQuery {
        limit: usize::try_from(acknowledged + BATCH + 1)?,
        ..ListQuery::default()
    };
    let records = store.list(&query).await?;
    let expected: Vec<_> = (0..acknowledged + BATCH).map(|n| point(n).record).collect();
    assert!(records.len() >= usize::try_from(acknowledged)?);
    assert!(records.len() <= expected.len());
    for record in &records {
        assert!(expected.contains(record), "{record:?}");
    }
    for (n, record) in expected.iter().take(acknowledged as usize).enumerate() {
        assert_eq!(record, &records[n]);
    }
    Ok(())
}

fn point(n: u64) -> Point {
    scene(u128::from(n) + 1, n)
}

/// The running child.
struct Filler {
    child: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Filler {
    fn start(dir: &Path, first: u64) -> Result<Self> {
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--exact", TEST, "--nocapture"])
            .env(DIR, dir)
            .env(FIRST, first.to_string())
            .stdout(Stdio::piped())
            .spawn()?;
        let output = child.stdout.take().context("no output")?;
        let lines = BufReader::new(output).lines();
        Ok(Self { child, lines })
    }

    /// Waits for the next acknowledgement; none when the child is gone.
    fn next_acknowledged(&mut self) -> Result<Option<u64>> {
        for line in &mut self.lines {
            if let Some(number) = number_in(&line?) {
                return Ok(Some(number));
            }
        }
        Ok(None)
    }
}

impl Drop for Filler {
    /// A test that fails leaves no child behind.
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn number_in(line: &str) -> Option<u64> {
    line.strip_prefix(ACKNOWLEDGED)?.parse().ok()
}

#[expect(clippy::disallowed_methods, reason = "how the test speaks to itself")]
fn variable(name: &str) -> Option<String> {
    std::env::var(name).ok()
}
