//! The embedded server: clear errors, nothing left behind.

use std::io::{BufRead, BufReader};
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use sightline_bus::Bus;
use sightline_bus::embedded::EmbeddedServer;

use crate::harness::{LONG, Platform, eventually};

/// How starting this program fails.
fn check(program: &str, parts: &[&str]) {
    let dir = tempfile::tempdir().expect("a temporary directory");
    let Err(error) = EmbeddedServer::start(Path::new(program), dir.path()) else {
        panic!("{program} started");
    };
    for part in parts {
        assert!(error.to_string().contains(part), "{error}");
    }
}

#[test]
fn a_program_that_is_missing_or_fails_is_named_with_what_to_do() {
    let todo = ["apt-get install nats-server", "--nats-url"];
    check(
        "no-such-nats-server",
        &["no-such-nats-server", todo[0], todo[1]],
    );
    check(
        "/nowhere/nats-server",
        &["/nowhere/nats-server", todo[0], todo[1]],
    );
    check("/bin/false", &["did not come up", "no log"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_dies_comes_back_and_one_that_is_dropped_does_not() -> Result<()> {
    let platform = Platform::start().await?;
    platform.observe("a").await?;
    let before = platform.server.pid().context("it runs")?;
    platform.kill_server()?;
    let another = || async { Ok(platform.server.pid().filter(|pid| *pid != before)) };
    let after = eventually(another).await?;
    let taken = || async { Ok(platform.observe("b").await.ok()) };
    assert_eq!(eventually(taken).await?, 2, "what was confirmed is there");
    let Platform { server, dir, .. } = platform;
    drop(server);
    assert!(!Path::new(&format!("/proc/{after}")).exists());
    assert!(!dir.path().join("nats-server.pid").exists());
    Ok(())
}

#[tokio::test]
async fn a_server_that_was_left_behind_is_stopped_and_nothing_else() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let (pid_file, config) = (
        dir.path().join("nats-server.pid"),
        dir.path().canonicalize()?.join("nats-server.conf"),
    );
    drop(EmbeddedServer::start(Path::new("nats-server"), dir.path())?);

    let program = [
        "/usr/sbin/nats-server",
        "/usr/bin/nats-server",
        "/usr/local/bin/nats-server",
    ];
    let program = program.into_iter().find(|path| Path::new(path).is_file());
    let mut left_behind = Command::new(program.context("nats-server")?)
        .arg("-c")
        .arg(&config)
        .stderr(Stdio::null())
        .spawn()?;
    std::fs::write(&pid_file, left_behind.id().to_string())?;
    let ports = dir.path().join("ports");
    let is_up = || async { Ok(std::fs::read_dir(&ports)?.next().map(drop)) };
    eventually(is_up).await?;
    let server = EmbeddedServer::start(Path::new("nats-server"), dir.path())?;
    let ended = left_behind.try_wait()?.context("it still runs")?;
    assert_ne!(ended.signal(), Some(9), "it was asked to end");
    Bus::connect(&server.config("test")).await?;
    drop(server);

    // A process that has got the number since.
    let mut innocent = Command::new("tail")
        .arg("-f")
        .arg(&config)
        .stdout(Stdio::null())
        .spawn()?;
    std::fs::write(&pid_file, innocent.id().to_string())?;
    let server = EmbeddedServer::start(Path::new("nats-server"), dir.path())?;
    assert!(innocent.try_wait()?.is_none(), "it still runs");
    innocent.kill()?;
    innocent.wait()?;
    drop(server);
    Ok(())
}

/// Started in a directory with this file, the test below is the parent that is killed.
const PARENT: &str = "be-the-parent";

#[test]
fn a_server_dies_with_its_parent() -> Result<()> {
    if Path::new(PARENT).exists() {
        let server = EmbeddedServer::start(Path::new("nats-server"), Path::new("nats"))?;
        println!("\npid {}", server.pid().context("it runs")?);
        loop {
            std::thread::park();
        }
    }
    let dir = tempfile::tempdir()?;
    std::fs::write(dir.path().join(PARENT), "")?;
    let mut parent = Command::new(std::env::current_exe()?)
        .args([
            "embedded::a_server_dies_with_its_parent",
            "--exact",
            "--nocapture",
        ])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()?;
    let lines = BufReader::new(parent.stdout.take().context("piped")?).lines();
    let pid = lines
        .map_while(Result::ok)
        .find_map(|line| line.strip_prefix("pid ").map(str::to_owned))
        .context("the parent started no server")?;
    let command_line = format!("/proc/{pid}/cmdline");
    assert!(!std::fs::read(&command_line)?.is_empty());
    parent.kill()?;
    parent.wait()?;
    let killed = Instant::now();
    while std::fs::read(&command_line).is_ok_and(|words| !words.is_empty()) {
        assert!(killed.elapsed() < LONG, "the server lives on");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    Ok(())
}
