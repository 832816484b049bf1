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
