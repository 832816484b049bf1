//! A webhook receiver on a free port that remembers everything, and answers as a test tells it.

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result, ensure};
use axum::Router;
use axum::body::Bytes;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::routing::post;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// A webhook as it came.
#[derive(Debug, Clone)]
pub struct Webhook {
    /// Header `webhook-id`.
    pub id: String,
    /// Header `traceparent`; empty if there is none.
    pub traceparent: String,
    /// The body.
    pub body: Value,
}

#[derive(Clone)]
struct Taken {
    webhooks: Arc<Mutex<Vec<Webhook>>>,
    count: watch::Sender<usize>,
}

/// A running receiver; it stops with the test.
pub struct Receiver {
    address: SocketAddr,
    taken: Taken,
}

impl Receiver {
    /// Starts one.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> Result<Self> {
        Self::start_at(Ipv4Addr::LOCALHOST).await
    }

    /// Starts one at an address of this machine.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start_at(address: Ipv4Addr) -> Result<Self> {
        let listener = TcpListener::bind((address, 0)).await?;
        let address = listener.local_addr()?;
        let taken = Taken {
            webhooks: Arc::default(),
            count: watch::Sender::new(0),
        };
        let router = Router::new()
            .route("/hook", post(take))
            .with_state(taken.clone());
        tokio::spawn(async move { axum::serve(listener, router).await });
        Ok(Self { address, taken })
    }

    /// Where to post.
    pub fn url(&self) -> String {
        format!("http://{}/hook", self.address)
    }

    /// Waits until `count` webhooks have come, and returns all.
    ///
    /// # Errors
    /// When they do not come.
    pub async fn webhooks(&self, count: usize) -> Result<Vec<Webhook>> {
        let mut counted = self.taken.count.subscribe();
        let coming = counted.wait_for(|&have| have >= count);
        crate::soon(&format!("{count} webhooks"), coming).await??;
        Ok(self
            .taken
            .webhooks
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .clone())
    }

    /// Waits until exactly these ids have come, in any order; whatever comes twice counts once.
    ///
    /// # Errors
    /// When others come, or these do not; the error lists what came.
    pub async fn told(&self, ids: &[String]) -> Result<()> {
        let expected: BTreeSet<&str> = ids.iter().map(String::as_str).collect();
        let mut came = Vec::new();
        let told = crate::until("what is told", async || {
            came = self.webhooks(0).await?;
            let told: BTreeSet<&str> = came.iter().map(|webhook| webhook.id.as_str()).collect();
            ensure!(told.is_subset(&expected), "{told:?} instead of {ids:?}");
            Ok((told == expected).then_some(()))
        })
        .await;
        told.with_context(|| format!("{came:?} instead of {ids:?}"))
    }
}

async fn take(State(taken): State<Taken>, headers: HeaderMap, body: Bytes) -> StatusCode {
    let header = |name: &str| {
        let value = headers.get(name).and_then(|value| value.to_str().ok());
        value.unwrap_or_default().to_owned()
    };
    let Ok(body) = serde_json::from_slice(&body) else {
        return StatusCode::BAD_REQUEST;
    };
    let mut webhooks = taken
        .webhooks
        .lock()
        .unwrap_or_else(PoisonError::into_inner);
    webhooks.push(Webhook {
        id: header("webhook-id"),
        traceparent: header("traceparent"),
        body,
    });
    taken.count.send_replace(webhooks.len());
    StatusCode::NO_CONTENT
}
