//! A real Chromium that opens pages and says what it saw, led by the scripts of `tests/browser`.

use std::path::Path;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::process::Command;

use crate::repository;

/// How long one look at a player page may take, with the start of the browser.
const DEADLINE: Duration = Duration::from_secs(240);
/// Debian's package.
const CHROMIUM: &str = "/usr/bin/chromium";
/// What of its last words an error repeats.
const LAST_WORDS: usize = 2000;

/// Opens a player page, lets it play for a second, then seeks to `seek_seconds`. See `play.mjs` for what comes back.
///
/// # Errors
/// When `scripts/setup test` has not installed what it takes, or the browser does not come back.
pub async fn play(url: &str, seek_seconds: f64) -> Result<Value> {
    lead("play.mjs", &[url, &seek_seconds.to_string()], DEADLINE).await
}

/// Leads the browser by a script of `tests/browser`; what the script printed.
///
/// # Errors
/// When `scripts/setup test` has not installed what it takes, the script fails, or it takes longer than `longest`.
pub async fn lead(script: &str, arguments: &[&str], longest: Duration) -> Result<Value> {
    let tests = repository().join("tests/browser");
    for needed in [Path::new(CHROMIUM), &tests.join("node_modules")] {
        if !needed.exists() {
            bail!(
                "{} is missing: run `make test`, which installs it",
                needed.display()
            );
        }
    }
    // The browser keeps its profile and caches below its home, which is a new one.
    let home = tempfile::tempdir()?;
    let child = Command::new("node")
        .current_dir(&tests)
        .args([script, CHROMIUM])
        .args(arguments)
        .env("HOME", home.path())
        .env("TMPDIR", home.path())
        .env_remove("XDG_CONFIG_HOME")
        .env_remove("XDG_CACHE_HOME")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .context("cannot start node: run `make test`, which installs it")?;
    let output = tokio::time::timeout(longest, child.wait_with_output())
        .await
        .context("the browser does not come back")??;
    let said = String::from_utf8_lossy(&output.stderr);
    let said = &said[said.floor_char_boundary(said.len().saturating_sub(LAST_WORDS))..];
    if !output.status.success() {
        bail!("the browser test failed ({}): {said}", output.status);
    }
    serde_json::from_slice(&output.stdout).with_context(|| format!("it printed no JSON: {said}"))
}
