//! The admin port: `/metrics` for Prometheus, `/livez` and `/readyz` for probes.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::http::{StatusCode, header};
use axum::routing::get;
use tokio::net::TcpListener;

use crate::Shutdown;
use crate::metrics::Metrics;

/// What a process must have before it takes work. Ready when nothing that was named is missing.
#[derive(Clone, Default)]
pub struct Readiness(Arc<Mutex<BTreeMap<&'static str, bool>>>);

impl Readiness {
    /// Of a process that is starting, and needs these parts before it takes work.
    pub fn lacking<'a>(parts: impl IntoIterator<Item = &'a &'static str>) -> Self {
        let missing = parts.into_iter().map(|part| (*part, false));
        Self(Arc::new(Mutex::new(missing.collect())))
    }

    /// Says whether `part` ("bus", "model") is there.
    pub fn set(&self, part: &'static str, ready: bool) {
        self.lock().insert(part, ready);
    }

    /// The parts that are missing.
    pub fn missing(&self) -> Vec<&'static str> {
        self.lock()
            .iter()
            .filter(|(_, ready)| !**ready)
            .map(|(part, _)| *part)
            .collect()
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, BTreeMap<&'static str, bool>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How long requests under way may take to finish at shutdown.
const DRAIN: Duration = Duration::from_secs(2);

/// Serves the admin port until shutdown; whoever takes longer than 2 s then is cut off.
///
/// # Errors
/// When the listener fails.
pub async fn serve(
    listener: TcpListener,
    metrics: Metrics,
    readiness: Readiness,
    shutdown: Shutdown,
) -> std::io::Result<()> {
    let address = listener.local_addr()?;
    tracing::info!(%address, "metrics and probes are served");
    let router = Router::new()
        .route("/metrics", get(move || async move { scrape(&metrics) }))
        .route("/livez", get(|| async { "alive\n" }))
        .route("/readyz", get(move || async move { probe(&readiness) }));
    let draining = shutdown.clone();
    let serving = axum::serve(listener, router)
        .with_graceful_shutdown(async move { draining.cancelled().await })
        .into_future();
    tokio::select! {
        served = serving => served,
        () = async { shutdown.cancelled().await; tokio::time::sleep(DRAIN).await } => Ok(()),
    }
}

fn scrape(metrics: &Metrics) -> ([(header::HeaderName, &'static str); 1], String) {
    let content_type = "application/openmetrics-text; version=1.0.0; charset=utf-8";
    ([(header::CONTENT_TYPE, content_type)], metrics.encode())
}

fn probe(readiness: &Readiness) -> (StatusCode, String) {
    let missing = readiness.missing();
    if missing.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        let text = format!("not ready: {}\n", missing.join(", "));
        (StatusCode::SERVICE_UNAVAILABLE, text)
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use prometheus_client::metrics::counter::Counter;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpStream;
    use tokio::time::timeout;

    use super::*;

    async fn get(address: SocketAddr, path: &str) -> String {
        let mut stream = TcpStream::connect(address).await.expect("connects");
        let request = format!("GET {path} HTTP/1.0\r\n\r\n");
        stream.write_all(request.as_bytes()).await.expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.expect("answered");
        answer
    }

    #[tokio::test]
    async fn probes_and_metrics_are_answered_and_nobody_holds_up_the_end() {
        let (metrics, readiness, shutdown) = (
            Metrics::default(),
            Readiness::lacking(&["bus", "model"]),
            Shutdown::new(),
        );
        metrics.register("sightline_things", "Things.", Counter::<u64>::default());
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a free port");
        let address = listener.local_addr().expect("bound");
        let serving = serve(listener, metrics, readiness.clone(), shutdown.clone());
        let serving = tokio::spawn(serving);

        let answer = get(address, "/readyz").await;
        assert!(
            answer.contains("503") && answer.contains("not ready: bus, model"),
            "{answer}"
        );
        readiness.set("bus", true);
        for (path, status, part) in [
            ("/livez", "200", "alive"),
            ("/readyz", "503", "not ready: model"),
            ("/metrics", "200", "sightline_things_total 0"),
            ("/", "404", ""),
        ] {
            let answer = get(address, path).await;
            let head = answer.lines().next().unwrap_or_default();
            assert!(
                head.contains(status) && answer.contains(part),
                "{path}: {answer}"
            );
        }
        readiness.set("model", true);
        assert!(get(address, "/readyz").await.contains("200 OK"));

        // A client in the middle of its request.
        let mut slow = TcpStream::connect(address).await.expect("connects");
        slow.write_all(b"GET /liv").await.expect("sent");
        shutdown.cancel();
        let ended = timeout(Duration::from_secs(30), serving).await;
        let ended = ended.expect("it ends all the same");
        ended.expect("no panic").expect("no error");
    }
}
