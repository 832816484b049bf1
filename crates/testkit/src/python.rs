//! The Python packages of tests, as `scripts/setup test` installs them, and scripts that use them.

use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use sha2::{Digest, Sha256};
use tokio::process::Command;

use crate::repository;

/// How long a script may take: each of its steps may on a slow machine, and nextest ends a test after 300 s.
const LONGEST: Duration = Duration::from_secs(280);

/// Runs a script of `tests/` with these arguments; what it prints. Its standard error is the error when it fails.
///
/// # Errors
/// When it is not installed, fails or takes too long.
pub async fn run(script: &str, arguments: &[&str]) -> Result<String> {
    let python = interpreter()?;
    let child = Command::new(&python)
        .arg(repository().join("tests").join(script))
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| missing(&python))?;
    let output = tokio::time::timeout(LONGEST, child.wait_with_output()).await;
    let output = output.with_context(|| format!("{script} takes too long"))??;
    let said = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "{script}: {}\n{said}",
        output.status
    );
    Ok(String::from_utf8(output.stdout)?)
}

/// The interpreter that has the packages of `scripts/requirements-test.txt`.
///
/// # Errors
/// When `scripts/setup test` has not installed it.
#[expect(
    clippy::disallowed_methods,
    reason = "scripts/setup installs tools below the user's cache directory, as the Makefile says"
)]
pub fn interpreter() -> Result<PathBuf> {
    let cache = std::env::var_os("XDG_CACHE_HOME")
        .filter(|dir| !dir.is_empty())
        .map(PathBuf::from)
        .or_else(|| Some(PathBuf::from(std::env::var_os("HOME")?).join(".cache")))
        .context("neither XDG_CACHE_HOME nor HOME is set")?;
    let pins = std::fs::read(repository().join("scripts/requirements-test.txt"))?;
    let hash = Sha256::digest(&pins);
    let name: String = hash
        .iter()
        .take(8)
        .map(|byte| format!("{byte:02x}"))
        .collect();
    let python = cache.join(format!("sightline/tools/python-{name}/bin/python"));
    ensure!(python.exists(), missing(&python));
    Ok(python)
}

pub(crate) fn missing(python: &Path) -> String {
    format!(
        "cannot start {}: run `make test` or `scripts/setup test`, which installs it",
        python.display()
    )
}
