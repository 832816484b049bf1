//! A real server of RTMP, HLS and files over HTTP: Debian's nginx with its RTMP module.

use std::fs;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tempfile::TempDir;

use crate::LONG;
use crate::nats::free_ports;

/// Where Debian's packages put the program, which an ordinary user's PATH may lack, and the module.
const PROGRAM: &str = "/usr/sbin/nginx";
const MODULE: &str = "/usr/lib/nginx/modules/ngx_rtmp_module.so";

/// How many pairs of ports are tried.
const TRIES: u32 = 5;

/// A server on two free ports of 127.0.0.1. What is published to its RTMP application `live` is also cut into HLS.
pub struct Nginx {
    dir: TempDir,
    running: Option<Child>,
    rtmp: u16,
    http: u16,
}

impl Nginx {
    /// Starts it.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn start() -> Result<Self> {
        let mut tries = 0;
        loop {
            tries += 1;
            match Self::start_once() {
                // Somebody else may have taken a port that was free.
                Err(error) if tries < TRIES && format!("{error}").contains("bind()") => {}
                started => return started,
            }
        }
    }

    fn start_once() -> Result<Self> {
        let [rtmp, http] = free_ports()?;
        let mut nginx = Self {
            dir: tempfile::tempdir()?,
            running: None,
            rtmp,
            http,
        };
        fs::create_dir_all(nginx.folder().join("live"))?;
        fs::write(nginx.dir.path().join("nginx.conf"), nginx.config())?;
        nginx.restart()?;
        Ok(nginx)
    }

    /// Starts it again on the same ports.
    ///
    /// # Errors
    /// When it does not come up.
    pub fn restart(&mut self) -> Result<()> {
        self.kill();
        let started = Command::new(PROGRAM)
            .arg("-p")
            .arg(self.dir.path())
            .args(["-c", "nginx.conf"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn();
        self.running = Some(started.context("cannot start nginx: run scripts/setup test")?);
        let deadline = Instant::now() + LONG;
        for port in [self.rtmp, self.http] {
            while std::net::TcpStream::connect(("127.0.0.1", port)).is_err() {
                let ended = self
                    .running
                    .as_mut()
                    .and_then(|c| c.try_wait().ok())
                    .flatten();
                let log = fs::read_to_string(self.dir.path().join("error.log"));
                let log = log.unwrap_or_default();
                ensure!(ended.is_none() && Instant::now() < deadline, "nginx: {log}");
                std::thread::park_timeout(Duration::from_millis(10));
            }
        }
        Ok(())
    }

    /// Kills it, which breaks all connections.
    pub fn kill(&mut self) {
        if let Some(mut running) = self.running.take() {
            let _ = running.kill();
            let _ = running.wait();
        }
    }

    /// Where a stream of this name is published and played.
    pub fn rtmp_url(&self, name: &str) -> String {
        format!("rtmp://127.0.0.1:{}/live/{name}", self.rtmp)
    }

    /// Where what lies in the folder is fetched: `live/NAME.m3u8` for what is published as NAME.
    pub fn http_url(&self, path: &str) -> String {
        format!("http://127.0.0.1:{}/{path}", self.http)
    }

    /// The folder that is served.
    pub fn folder(&self) -> PathBuf {
        self.dir.path().join("www")
    }

    fn config(&self) -> String {
        let (rtmp, http) = (self.rtmp, self.http);
        let folder = self.folder().display().to_string();
        let work = self.dir.path().display().to_string();
        let temporary: String = ["client_body", "proxy", "fastcgi", "uwsgi", "scgi"]
            .map(|kind| format!("{kind}_temp_path {work}/{kind};"))
            .concat();
        // One process without rights to lose: it runs as whoever runs the tests.
        format!(
            "daemon off; master_process off; load_module {MODULE};
             error_log {work}/error.log; pid {work}/nginx.pid;
             events {{ worker_connections 128; }}
             rtmp {{ server {{ listen 127.0.0.1:{rtmp};
                 application live {{
                     live on; wait_video on; idle_streams off;
                     hls on; hls_path {folder}/live; hls_fragment 1s; hls_playlist_length 12s;
                 }} }} }}
             http {{ access_log off; {temporary}
                 server {{ listen 127.0.0.1:{http}; root {folder};
                     location /moved/ {{ rewrite ^/moved/(.*)$ /$1 redirect; }}
                     location /private/ {{ auth_basic here; auth_basic_user_file {work}/users; alias {folder}/; }}
                 }} }}
             "
        )
    }

    /// Lets these into `/private/`, and nobody else.
    ///
    /// # Errors
    /// When that can't be written down.
    pub fn allow(&self, user: &str, password: &str) -> Result<()> {
        let users = self.dir.path().join("users");
        Ok(fs::write(users, format!("{user}:{{PLAIN}}{password}\n"))?)
    }
}

impl Drop for Nginx {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A port of 127.0.0.1 that nobody listens on, for servers that have to be told one.
///
/// # Errors
/// When there is none.
pub fn free_port() -> Result<u16> {
    let [port] = free_ports()?;
    Ok(port)
}
