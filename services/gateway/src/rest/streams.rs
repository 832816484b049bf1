//! RtStreams in this skin.

use axum::extract::rejection::QueryRejection;
use axum::extract::{Path, Query, State};
use serde::{Deserialize, Serialize};
use sightline_proto::v1;

use super::Shared;
use super::answer::{Answer, Data};
use super::values::time;

/// The stretch to play, and how its page looks.
#[derive(Deserialize)]
pub(super) struct StreamQuery {
    start: f64,
    end: Option<f64>,
    #[serde(default)]
    player_title: String,
    #[serde(default)]
    player_description: String,
    #[serde(default)]
    player_slug_prefix: String,
}

#[derive(Serialize)]
struct StreamLinks {
    stream_url: String,
    player_url: String,
}

/// `GET /rtstream/{id}/stream`: links that play a stretch of a recording.
pub(super) async fn stream(
    State(core): Shared,
    Path(id): Path<String>,
    query: Result<Query<StreamQuery>, QueryRejection>,
) -> Answer {
    let Query(query) = query?;
    let request = v1::GenerateStreamRequest {
        rtstream_id: id,
        start_time: Some(time("start", query.start)?),
        // Clients cut the times of a short shot to whole seconds.
        end_time: query
            .end
            .map(|end| time("end", end.max(query.start + 1.0)))
            .transpose()?,
        player_config: Some(v1::PlayerConfig {
            title: query.player_title,
            description: query.player_description,
            slug: query.player_slug_prefix,
        }),
    };
    let links = core.generate_stream(request).await?;
    Data::of(StreamLinks {
        stream_url: links.stream_url,
        player_url: links.player_url,
    })
}
