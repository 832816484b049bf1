//! Receivers that misbehave in every way: what is for them is kept, and nobody else waits for it.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use sightline_bus::StreamName;
use sightline_proto::ids;
use sightline_proto::internal::{Attempt, DeadLetter};
use sightline_proto::v1::delivery::Outcome;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::interval;

use crate::harness::{Answer, Platform, Receiver};

#[derive(Clone)]
enum Behaviour {
    /// Drips its answer's head, a byte a second.
    Drips,
    /// Answers with success and 10 GB, and counts what was taken of them.
    Floods(Arc<AtomicUsize>),
    /// Sends away.
    Redirects(String),
    /// Breaks off at once.
    Resets,
}

impl Behaviour {
    async fn start(self) -> Result<String> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}/hook", listener.local_addr()?);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let behaviour = self.clone();
                // Whom it hangs up on is an error here.
                tokio::spawn(async move { behaviour.answer(stream).await });
            }
        });
        Ok(url)
    }

    async fn answer(self, mut stream: TcpStream) -> Result<()> {
        if matches!(self, Self::Resets) {
            // With bytes that nobody read the kernel resets the connection.
            stream.readable().await?;
            return Ok(());
        }
        let mut request = vec![0; 64 * 1024];
        let _ = stream.read(&mut request).await?;
        match self {
            Self::Resets => {}
            Self::Redirects(to) => {
                let head =
                    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
            }
            Self::Drips => {
                let mut ticks = interval(Duration::from_secs(1));
                for byte in b"HTTP/1.1 200 OK\r\nx-never: ending".iter().cycle() {
                    ticks.tick().await;
                    stream.write_all(&[*byte]).await?;
                }
            }
            Self::Floods(taken) => {
                let size = 10_000_000_000_usize;
                let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n");
                stream.write_all(head.as_bytes()).await?;
                for _ in 0..size / request.len() {
                    stream.write_all(&request).await?;
                    taken.fetch_add(request.len(), Ordering::Relaxed);
                }
            }
        }
        Ok(())
    }
}

/// What the attempts at an endpoint said.
async fn attempts(platform: &Platform, url: &str, count: usize) -> Result<Vec<Attempt>> {
    let subject = format!("attempt.{}", ids::endpoint_id("", url));
    platform.held(StreamName::Attempts, &subject, count).await
}

/// This process's resident memory in bytes.
fn resident() -> Result<usize> {
    let status = std::fs::read_to_string("/proc/self/statm")?;
    let pages = status.split(' ').nth(1).context("resident pages")?;
    Ok(pages.parse::<usize>()? * 4096)
}

#[tokio::test(flavor = "multi_thread")]
async fn hostile_receivers_delay_nobody_and_nothing_is_lost() -> Result<()> {
    let platform = Platform::start().await?;
    let mut good = Receiver::start([]).await?;
    let mut private = Receiver::start([]).await?;
    let hanging = Receiver::start((0..20).map(|_| Answer::Hang)).await?;
    let busy = Receiver::start([Answer::Later(1)]).await?;
    let gone = Receiver::start([Answer::Status(410)]).await?;
    let taken = Arc::new(AtomicUsize::new(0));
    let flooding = Behaviour::Floods(Arc::clone(&taken)).start().await?;
    let redirecting = Behaviour::Redirects(private.url.clone()).start().await?;
    let hostile = [
        ("hanging", hanging.url.clone(), 3, 0, Outcome::Failed),
        (
            "dripping",
            Behaviour::Drips.start().await?,
            3,
            0,
            Outcome::Failed,
        ),
        ("flooding", flooding, 1, 200, Outcome::Delivered),
        ("redirecting", redirecting, 3, 302, Outcome::Failed),
        (
            "resetting",
            Behaviour::Resets.start().await?,
            3,
            0,
            Outcome::Failed,
        ),
        ("busy", busy.url.clone(), 2, 204, Outcome::Delivered),
        ("gone", gone.url.clone(), 1, 410, Outcome::Failed),
    ];
    platform.alert("good", &good.url).await?;
    for (name, url, ..) in &hostile {
        platform.alert(name, url).await?;
    }
    let before = resident()?;
    for (name, ..) in &hostile {
        platform.verdict(name, 0, 0.9).await?;
    }
    for firing in 0..100 {
        platform.verdict("good", 2 * firing, 0.9).await?;
        platform.verdict("good", 2 * firing + 1, 0.1).await?;
        good.next().await?;
    }
    let mut took: Vec<i64> = attempts(&platform, &good.url, 100)
        .await?
        .iter()
        .map(|attempt| attempt.decision_to_2xx_us)
        .collect();
    took.sort_unstable();
    println!(
        "decision to 2xx beside them: p50 {} us, p99 {} us",
        took[50], took[98]
    );
    // Who waited for one that hangs would wait for 2.5 s.
    assert!(took[90] <= 1_000_000, "{took:?}");

    let mut failed = 0;
    for (name, url, count, status, outcome) in hostile {
        let attempts = attempts(&platform, &url, count).await?;
        assert_eq!(attempts.len(), count, "{name}: {attempts:?}");
        let last = &attempts[count - 1];
        assert_eq!(
            (last.status_code, last.outcome()),
            (status, outcome),
            "{name}: {last:?}"
        );
        failed += usize::from(outcome == Outcome::Failed);
    }
    let letters: Vec<DeadLetter> = platform.held(StreamName::Dlq, "dlq.*", failed).await?;
    assert_eq!(letters.len(), failed, "{letters:?}");
    assert!(private.seen.try_recv().is_err(), "nobody is sent there");
    let taken = taken.load(Ordering::Relaxed);
    assert!(taken < 50_000_000, "{taken} bytes were taken");
    let grown = resident()?.saturating_sub(before);
    assert!(grown < 100_000_000, "{grown} bytes");
    Ok(())
}
