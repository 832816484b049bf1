//! An S3 service for tests: moto, as `scripts/setup test` installs it.

use std::process::Stdio;

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader, Lines};
use tokio::net::TcpStream;
use tokio::process::{Child, ChildStderr, Command};

use crate::{python, soon};

/// The bucket that is there from the beginning.
pub const BUCKET: &str = "recordings";

/// A running S3 service with an empty bucket, in memory. Dropping it kills it.
pub struct S3Server {
    child: Child,
    host: String,
}

impl S3Server {
    /// Starts one on a free port of 127.0.0.1.
    ///
    /// # Errors
    /// When moto is not installed or does not come up; the error says what to do.
    pub async fn start() -> Result<Self> {
        let python = python::interpreter()?;
        let mut child = Command::new(&python)
            .args(["-m", "moto.server", "-H", "127.0.0.1", "-p", "0"])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| python::missing(&python))?;
        let stderr = child.stderr.take().context("it has a standard error")?;
        let mut lines = BufReader::new(stderr).lines();
        let host = soon("the S3 service", port(&mut lines)).await??;
        // It logs every request: somebody has to read that, or it stops.
        tokio::spawn(async move { while let Ok(Some(_)) = lines.next_line().await {} });
        let server = Self { child, host };
        soon("the bucket", server.make_bucket()).await??;
        Ok(server)
    }

    /// The address of a store in its bucket.
    pub fn address(&self) -> String {
        format!("s3://{BUCKET}/below/here")
    }

    /// What a client of it needs, by the names of environment variables.
    pub fn options(&self) -> Vec<(String, String)> {
        let options = [
            ("AWS_ENDPOINT", format!("http://{}", self.host)),
            ("AWS_ALLOW_HTTP", "true".to_owned()),
            ("AWS_REGION", "us-east-1".to_owned()),
            ("AWS_ACCESS_KEY_ID", "test".to_owned()),
            ("AWS_SECRET_ACCESS_KEY", "test".to_owned()),
        ];
        options.map(|(name, value)| (name.to_owned(), value)).into()
    }

    /// Stops it, as an outage does; what it holds is lost.
    ///
    /// # Errors
    /// When it can't be waited for.
    pub async fn stop(&mut self) -> Result<()> {
        self.child.kill().await.context("cannot stop moto")
    }

    async fn make_bucket(&self) -> Result<()> {
        let mut connection = TcpStream::connect(&self.host).await?;
        let request = format!(
            "PUT /{BUCKET} HTTP/1.1\r\nHost: {}\r\nContent-Length: 0\r\nConnection: close\r\n\r\n",
            self.host
        );
        connection.write_all(request.as_bytes()).await?;
        let mut answer = String::new();
        connection.read_to_string(&mut answer).await?;
        ensure!(
            answer.starts_with("HTTP/1.1 200"),
            "moto made no bucket: {answer}"
        );
        Ok(())
    }
}

/// It takes a free port and says which.
async fn port(lines: &mut Lines<BufReader<ChildStderr>>) -> Result<String> {
    let mut said = Vec::new();
    while let Some(line) = lines.next_line().await? {
        if let Some((_, address)) = line.split_once("Running on http://") {
            let end = address.find(|c: char| !c.is_ascii_digit() && !".:".contains(c));
            return Ok(address[..end.unwrap_or(address.len())].to_owned());
        }
        said.push(line);
    }
    bail!("moto ended at once: {}", said.join("\n"))
}
