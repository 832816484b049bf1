//! What playback counts: answers by kind and status class, and the bytes that went out.

use std::sync::Arc;

use axum::body::{Body, HttpBody};
use axum::response::Response;
use futures::TryStreamExt;
use http::{HeaderValue, StatusCode, header};
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use sightline_service::metrics::{Metrics, Values};

/// What [`Kind`] says.
const KINDS: Values = Values::These(&[
    "playlist",
    "segment",
    "thumbnail",
    "page",
    "asset",
    "export",
    "other",
]);
/// Classes of HTTP statuses.
const STATUSES: Values = Values::These(&["2xx", "3xx", "4xx", "5xx"]);

/// What was asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    Playlist,
    Segment,
    Thumbnail,
    Page,
    Asset,
    Export,
    Other,
}

impl Kind {
    fn as_str(self) -> &'static str {
        match self {
            Kind::Playlist => "playlist",
            Kind::Segment => "segment",
            Kind::Thumbnail => "thumbnail",
            Kind::Page => "page",
            Kind::Asset => "asset",
            Kind::Export => "export",
            Kind::Other => "other",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    kind: &'static str,
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Sent {
    kind: &'static str,
}

/// Playback's metrics; clones share them.
#[derive(Clone)]
pub(super) struct PlaybackMetrics(Arc<Families>);

struct Families {
    requests: Family<Answered, Counter>,
    bytes: Family<Sent, Counter>,
}

impl PlaybackMetrics {
    pub(super) fn register(metrics: &Metrics) -> Self {
        Self(Arc::new(Families {
            requests: metrics.register_by(
                "sightline_gateway_playback_requests",
                "Requests for recordings by kind and class of their status.",
                &[("kind", KINDS), ("status", STATUSES)],
                Family::default(),
            ),
            bytes: metrics.register_by(
                "sightline_gateway_playback_bytes",
                "Bytes of recordings and pages that were sent.",
                &[("kind", KINDS)],
                Family::default(),
            ),
        }))
    }

    pub(super) fn answered(&self, kind: Kind, status: StatusCode) {
        let status = match status.as_u16() {
            ..=299 => "2xx",
            300..=399 => "3xx",
            400..=499 => "4xx",
            _ => "5xx",
        };
        let answered = Answered {
            kind: kind.as_str(),
            status,
        };
        self.0.requests.get_or_create(&answered).inc();
    }

    /// The same answer, counted as it goes out.
    pub(super) fn counting(&self, kind: Kind, mut response: Response) -> Response {
        let length = response.body().size_hint().exact();
        if length == Some(0) {
            return response;
        }
        if let Some(length) = length {
            let headers = response.headers_mut();
            headers.insert(header::CONTENT_LENGTH, HeaderValue::from(length));
        }
        let kind = kind.as_str();
        let sent = self.0.bytes.get_or_create_owned(&Sent { kind });
        response.map(|body| {
            let stream = body.into_data_stream();
            Body::from_stream(stream.inspect_ok(move |bytes| {
                sent.inc_by(bytes.len() as u64);
            }))
        })
    }
}
