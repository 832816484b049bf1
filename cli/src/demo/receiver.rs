//! A webhook receiver: takes what alerts post and hands it on.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::{Context, Result};
use axum::Json;
use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use axum::routing::post;
use serde::Deserialize;
use tokio::net::TcpListener;
use tokio::sync::mpsc;

/// Webhooks that may wait to be looked at; when there are more, the sender is asked to come back later.
const WAITING: usize = 256;

/// What an alert posts, as far as the demo shows it.
#[derive(Debug, Deserialize)]
pub struct Webhook {
    /// The event's label.
    pub label: String,
    /// The verdict's probability.
    pub confidence: f64,
    /// Why it fired.
    pub explanation: String,
    /// A page that plays it.
    pub player_url: Option<String>,
}

/// A running receiver on this machine.
pub struct Receiver {
    address: SocketAddr,
    webhooks: mpsc::Receiver<Webhook>,
}

impl Receiver {
    /// Starts it on a free port.
    ///
    /// # Errors
    /// When no port can be had.
    pub async fn start() -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await;
        let listener = listener.context("cannot listen for webhooks")?;
        let address = listener.local_addr()?;
        let (sender, webhooks) = mpsc::channel(WAITING);
        let router = Router::new()
            .route("/alerts", post(take))
            .with_state(sender);
        tokio::spawn(async move {
            if let Err(error) = axum::serve(listener, router).await {
                tracing::error!(%error, "the webhook receiver is gone");
            }
        });
        Ok(Self { address, webhooks })
    }

    /// Where to post.
    pub fn url(&self) -> String {
        format!("http://{}/alerts", self.address)
    }

    /// The next webhook.
    pub async fn next(&mut self) -> Option<Webhook> {
        self.webhooks.recv().await
    }

    /// A webhook that has come already.
    pub fn waiting(&mut self) -> Option<Webhook> {
        self.webhooks.try_recv().ok()
    }
}

async fn take(
    State(sender): State<mpsc::Sender<Webhook>>,
    Json(webhook): Json<Webhook>,
) -> StatusCode {
    match sender.try_send(webhook) {
        Ok(()) => StatusCode::NO_CONTENT,
        Err(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
