//! Playback over HTTP: playlists, segments, pictures, player pages and exports, for whoever has a link.
//!
//! No key is asked for: the link is the permission. What stands in a path is checked to be an id, a token or a name exactly
//! as this platform writes them before anything is looked up by it.

mod answer;
mod assets;
mod exports;
mod metrics;
mod pages;
mod playlists;
mod range;
mod segments;
mod thumbnails;

use std::sync::Arc;

use axum::Router;
use axum::body::Body;
use axum::extract::{RawPathParams, RawQuery, Request, State};
use axum::middleware::{Next, from_fn};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use sightline_proto::ids::Kind as IdKind;
use sightline_recordings::Segment;
use sightline_recordings::links::Clip;
use sightline_service::metrics::Metrics;
use tokio::sync::Semaphore;

use self::answer::Refusal;
use self::metrics::{Kind, PlaybackMetrics};
use crate::api::{Core, well_formed};

/// What ended longer ago than this is recorded by now, or never will be, in microseconds: segments are cut after 120 s at the latest.
pub(crate) const LATE_US: i64 = 150_000_000;
/// Pictures that are asked for at once, by this gateway; others are told to come again.
const THUMBNAILS: usize = 8;
/// The longest token or slug; those that are made here are much shorter.
const MAX_TOKEN: usize = 300;

/// What playing needs.
pub(crate) struct Playback {
    core: Arc<Core>,
    thumbnails: Semaphore,
    metrics: PlaybackMetrics,
}

type Shared = State<Arc<Playback>>;

/// Registers all metrics of playback.
pub(crate) fn register_metrics(metrics: &Metrics) {
    let _ = PlaybackMetrics::register(metrics);
}

impl Playback {
    pub(crate) fn new(core: Arc<Core>, metrics: &Metrics) -> Self {
        Self {
            core,
            thumbnails: Semaphore::new(THUMBNAILS),
            metrics: PlaybackMetrics::register(metrics),
        }
    }

    /// Everything that is played, and the pages that play it.
    pub(crate) fn routes(self) -> Router {
        let pages = Router::new()
            .route("/watch", get(watch))
            .route("/embed", get(embed));
        Router::new()
            .route("/manifests/{rtstream}/{token}/{file}", get(manifest))
            .route("/exports/{token}/{file}", get(export))
            .route("/assets/{file}", get(asset))
            .layer(from_fn(cross_origin))
            .merge(pages)
            .with_state(Arc::new(self))
    }

    /// Bounds the time to the head of the answer, and counts it.
    async fn answer(
        &self,
        kind: Kind,
        answering: impl Future<Output = Result<Response, Refusal>>,
    ) -> Response {
        let deadline = self.core.config.limits.deadline;
        let answered = tokio::time::timeout(deadline, answering).await;
        let response = match answered.unwrap_or(Err(Refusal::Unavailable)) {
            Ok(response) => response,
            Err(refusal) if kind == Kind::Page => pages::refused(&refusal),
            Err(refusal) => refusal.into_response(),
        };
        self.metrics.answered(kind, response.status());
        self.metrics.counting(kind, response)
    }

    /// The clip that a token allows.
    fn clip(&self, rtstream: &str, token: &str) -> Result<Clip, Refusal> {
        if !well_formed(IdKind::RtStream, rtstream) || !is_token(token) {
            return Err(Refusal::NotFound("there is nothing here"));
        }
        let now_us = self.core.clock.now_us();
        let clip = self.core.config.links.check_clip(rtstream, token, now_us)?;
        Ok(clip)
    }
}

/// Whether it has the letters of a token or slug.
fn is_token(text: &str) -> bool {
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_' | b'.' | b'~');
    (1..=MAX_TOKEN).contains(&text.len()) && text.bytes().all(plain)
}

/// A part of the path that the route names.
fn part<'a>(path: &'a RawPathParams, name: &str) -> &'a str {
    path.iter()
        .find(|(key, _)| *key == name)
        .map_or("", |(_, value)| value)
}

async fn manifest(State(playback): Shared, path: RawPathParams, headers: HeaderMap) -> Response {
    let (rtstream, token, file) = (
        part(&path, "rtstream"),
        part(&path, "token"),
        part(&path, "file"),
    );
    if file == "stream.m3u8" {
        let playing = async { playback.playlist(&playback.clip(rtstream, token)?).await };
        return playback.answer(Kind::Playlist, playing).await;
    }
    if let Some(segment) = Segment::parse(file) {
        let playing = async {
            let clip = playback.clip(rtstream, token)?;
            playback.segment(&clip, segment, &headers).await
        };
        return playback.answer(Kind::Segment, playing).await;
    }
    if let Some(at_us) = thumbnails::parse(file) {
        let playing = async {
            let clip = playback.clip(rtstream, token)?;
            playback.thumbnail(&clip, at_us, &headers).await
        };
        return playback.answer(Kind::Thumbnail, playing).await;
    }
    let nothing = async { Err(Refusal::NotFound("there is nothing here")) };
    playback.answer(Kind::Other, nothing).await
}

async fn export(State(playback): Shared, path: RawPathParams, headers: HeaderMap) -> Response {
    let (token, file) = (part(&path, "token"), part(&path, "file"));
    let answering = playback.export(token, file, &headers);
    playback.answer(Kind::Export, answering).await
}

async fn asset(State(playback): Shared, path: RawPathParams, headers: HeaderMap) -> Response {
    let answering = async { assets::answer(part(&path, "file"), &headers) };
    playback.answer(Kind::Asset, answering).await
}

async fn watch(State(playback): Shared, RawQuery(query): RawQuery) -> Response {
    let answering = playback.page(query.as_deref().unwrap_or(""), pages::Frame::Own);
    playback.answer(Kind::Page, answering).await
}

async fn embed(State(playback): Shared, RawQuery(query): RawQuery) -> Response {
    let answering = playback.page(query.as_deref().unwrap_or(""), pages::Frame::Any);
    playback.answer(Kind::Page, answering).await
}

/// Lets players on pages of any origin play: links travel in addresses and never in cookies, so an origin proves nothing.
async fn cross_origin(request: Request<Body>, next: Next) -> Response {
    const HEADERS: [(HeaderName, &str); 4] = [
        (header::ACCESS_CONTROL_ALLOW_ORIGIN, "*"),
        (
            header::ACCESS_CONTROL_EXPOSE_HEADERS,
            "content-length, content-range, etag, retry-after",
        ),
        (
            HeaderName::from_static("cross-origin-resource-policy"),
            "cross-origin",
        ),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
    ];
    const PREFLIGHT: [(HeaderName, &str); 4] = [
        (header::ALLOW, "GET, HEAD, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD, OPTIONS"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "*"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    let mut response = if request.method() == Method::OPTIONS {
        let mut response = StatusCode::NO_CONTENT.into_response();
        insert(&mut response, PREFLIGHT);
        response
    } else {
        next.run(request).await
    };
    insert(&mut response, HEADERS);
    response
}

fn insert<const N: usize>(response: &mut Response, headers: [(HeaderName, &'static str); N]) {
    for (name, value) in headers {
        let value = HeaderValue::from_static(value);
        response.headers_mut().insert(name, value);
    }
}
