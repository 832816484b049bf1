//! Servers that ask for a Digest, as cameras do over HTTP: Debian's lighttpd, which knows what MD5 and SHA-256 make of a password.

use std::fs;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use sightline_testkit::nginx::free_port;
use tempfile::TempDir;
use url::Url;

use crate::camera::camera;
use crate::support::*;

/// Far above what anything here takes.
const LONG: Duration = Duration::from_secs(40);
/// Somebody else may have taken the port that was free: then another one is tried.
const TRIES: usize = 5;

struct Lighttpd {
    // Killed before its folder goes.
    running: Child,
    url: Url,
    _dir: TempDir,
}

impl Lighttpd {
    /// One that gives the sample clip, in a file with its index at the end, to a viewer who answers in this way.
    fn start(algorithm: &str) -> Result<Self> {
        let dir = tempfile::tempdir()?;
        let path = dir.path().join("www");
        fs::create_dir(&path)?;
        fs::copy(demo_clip(), path.join("clip.mp4"))?;
        fs::write(dir.path().join("users"), "viewer:p@ss/w?rd\n")?;
        for _ in 0..TRIES {
            let port = free_port()?;
            if let Some(running) = run(&dir, algorithm, port)? {
                let url = Url::parse(&format!("http://127.0.0.1:{port}/clip.mp4?channel=1"))?;
                return Ok(Self {
                    running,
                    url,
                    _dir: dir,
                });
            }
        }
        anyhow::bail!("lighttpd does not start: run scripts/setup test")
    }
}

impl Drop for Lighttpd {
    fn drop(&mut self) {
        let _ = self.running.kill();
        let _ = self.running.wait();
    }
}

/// Starts it there; none if it ended, as it does when the port is taken.
fn run(dir: &TempDir, algorithm: &str, port: u16) -> Result<Option<Child>> {
    let work = dir.path().display();
    let config = dir.path().join("lighttpd.conf");
    let text = format!(
        r#"server.document-root = "{work}/www"
           server.bind = "127.0.0.1"
           server.port = {port}
           server.modules = ("mod_auth", "mod_authn_file")
           auth.backend = "plain"
           auth.backend.plain.userfile = "{work}/users"
           auth.require = ("/" => ("method" => "digest", "realm" => "a camera", "require" => "valid-user", "algorithm" => "{algorithm}"))
        "#
    );
    fs::write(&config, text)?;
    let started = Command::new("/usr/sbin/lighttpd")
        .arg("-D")
        .arg("-f")
        .arg(&config)
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn();
    let mut running = started.context("cannot start lighttpd: run scripts/setup test")?;
    let deadline = Instant::now() + LONG;
    while running.try_wait()?.is_none() {
        if std::net::TcpStream::connect(("127.0.0.1", port)).is_ok() {
            return Ok(Some(running));
        }
        ensure!(Instant::now() < deadline, "lighttpd never answers");
        std::thread::park_timeout(Duration::from_millis(10));
    }
    Ok(None)
}

#[test]
fn who_is_asked_for_a_digest_answers_with_one() -> Result<()> {
    for algorithm in ["MD5", "SHA-256", "SHA-256|MD5"] {
        let server = Lighttpd::start(algorithm)?;
        let mut url = server.url.clone();
        for password in [None, Some("wrong")] {
            if password.is_some() {
                url.set_username("viewer").expect("it has a host");
            }
            url.set_password(password).expect("it has a host");
            let failure = play_all(&camera(url.as_str()), take(&[(USUAL, 0)])).end;
            let failure = failure.err().context("it is let in")?;
            ensure!(
                failure.permanent && failure.reason.contains("user name"),
                "{failure}"
            );
        }
        url.set_password(Some("p@ss/w?rd")).expect("it has a host");
        // Its index is fetched from the end, then all of it from the beginning: several answers to one question.
        let playing = Playing::start(camera(url.as_str()), take(&[(USUAL, 0)]));
        playing.reports.recv_timeout(LONG).context(algorithm)?;
        playing.stop().expect("stopped");
    }
    Ok(())
}
