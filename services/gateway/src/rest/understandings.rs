//! The newer calls in this skin: an understanding describes a stream's windows, and an index over its output makes that
//! searchable. Here both are one visual index, by two ids: `und-…` and `idx-…` before the same UUID.

use serde_json::{Value, json};
use sightline_proto::ids::Kind;
use sightline_proto::internal::subscribed::To;
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::time::duration_micros;
use sightline_proto::v1;

use super::answer::{Answer, Data, Refusal, renaming};
use super::asked::indexes::Stretch;
use super::asked::understandings::{Materialize, OUTPUT, Output, Understand};
use super::indexes;
use super::paging::PageQuery;
use super::request::{Body, Ids, Params, Switch};
use super::values::{written, wrong};
use crate::api::Session;

/// What an understanding's ids begin with.
const PREFIX: &str = "und-";
/// What fields of the core are called here.
const NAMES: [(&str, &str); 4] = [
    ("sampling.window", "segmentation.window"),
    ("sampling.frame_count", "analyzers.sampling.frame_count"),
    ("model", "analyzers.config.model"),
    ("prompt", "analyzers.config.prompt"),
];

/// `POST /rtstream/{id}/understand`
pub(super) async fn create(session: Session, ids: Ids, Body(body): Body<Understand>) -> Answer {
    let connection = session.connection(body.ws_connection_id.as_deref()).await?;
    let (request, output) = body.request(ids.id)?;
    let created = session.create_understanding(request, &output).await;
    let index = created.map_err(renaming(&NAMES))?;
    let scenes = To::IndexId(index.id.clone());
    session.tell(&connection, scenes).await?;
    Data::of(understanding(&index, &output))
}

/// An understanding, as its calls show it.
fn understanding(index: &v1::Index, output: &str) -> Value {
    let sampling = index.sampling.unwrap_or_default();
    let window_us = sampling.window.as_ref().map_or(0, duration_micros);
    let id = understanding_id(&index.id);
    json!({
        "understanding_id": id,
        "rtstream_id": index.rtstream_id,
        "status": indexes::status(index),
        "store": true,
        "segmentation": {
            "type": "time",
            "window": format!("{}s", written(window_us as f64 / 1e6)),
        },
        "analyzers": [{
            "type": "vlm",
            "name": output,
            "sampling": {"frame_count": sampling.frame_count},
            "config": {"prompt": index.prompt, "model": index.model},
        }],
        "outputs": {output: {"understanding_id": id, "output": output}},
    })
}

/// The same, or any other index, as the calls of indexes show it.
fn shown(session: &Session, index: &v1::Index) -> Value {
    let output = session.output_of(&index.id);
    let of_transcript = index.batching.is_some();
    json!({
        "index_id": index.id,
        "rtstream_id": index.rtstream_id,
        "name": index.name,
        "status": indexes::status(index),
        "use_for": ["semantic"],
        "source_understanding_id": output.as_ref().map(|_| understanding_id(&index.id)),
        "output": output.unwrap_or_else(|| {
            if of_transcript { "transcript" } else { OUTPUT }.to_owned()
        }),
    })
}

fn understanding_id(index_id: &str) -> String {
    index_id.replacen(Kind::Index.prefix(), PREFIX, 1)
}

/// The understanding in the path: its index, and the name of its output.
async fn understood(session: &Session, ids: &Ids) -> Result<(v1::Index, String), ApiError> {
    session.get_rtstream(&ids.id).await?;
    let missing = || {
        let shown: String = ids.index.chars().take(60).collect();
        let message = format!("the stream {} has no understanding {shown}", ids.id);
        ApiError::new(Reason::NotFound, message)
    };
    let uuid = ids.index.strip_prefix(PREFIX).ok_or_else(missing)?;
    let ids = Ids {
        id: ids.id.clone(),
        index: format!("{}{uuid}", Kind::Index.prefix()),
        ..Default::default()
    };
    let index = indexes::index_of(session, &ids).await;
    let index = index.map_err(|error| match error.reason {
        Reason::NotFound => missing(),
        _ => error,
    })?;
    let output = session.output_of(&index.id).ok_or_else(missing)?;
    Ok((index, output))
}

/// `GET /rtstream/{id}/understand`: all of them.
pub(super) async fn list(session: Session, ids: Ids) -> Answer {
    let all = indexes::all(&session, &ids.id).await?;
    let all = all.iter().filter_map(|index| {
        let output = session.output_of(&index.id)?;
        Some(understanding(index, &output))
    });
    Data::of(json!({ "understandings": all.collect::<Vec<_>>() }))
}

/// `GET /rtstream/{id}/understand/{understanding}`
pub(super) async fn get(session: Session, ids: Ids) -> Answer {
    let (index, output) = understood(&session, &ids).await?;
    Data::of(understanding(&index, &output))
}

/// `PATCH /rtstream/{id}/understand/{understanding}/status`
pub(super) async fn set_status(session: Session, ids: Ids, Body(body): Body<Switch>) -> Answer {
    let (index, output) = understood(&session, &ids).await?;
    let ids = Ids {
        index: index.id,
        ..ids
    };
    let index = indexes::switch(&session, &ids, &body).await?;
    Data::of(understanding(&index, &output))
}

/// `GET /rtstream/{id}/understand/{understanding}/records`
pub(super) async fn records(
    session: Session,
    ids: Ids,
    Params(asked): Params<Output>,
    Params(page): Params<PageQuery>,
    Params(stretch): Params<Stretch>,
) -> Answer {
    let (index, output) = understood(&session, &ids).await?;
    if asked.output.is_some_and(|asked| asked != output) {
        let allowed = format!("the output of this understanding, which is {output:?}");
        return Err(wrong("output", allowed).into());
    }
    let ids = Ids {
        index: index.id,
        ..ids
    };
    listed(&session, &ids, &page, stretch).await
}

/// `POST /rtstream/{id}/indexes`: the index over an understanding's output, which is there already. It can be named.
pub(super) async fn index(session: Session, ids: Ids, Body(body): Body<Materialize>) -> Answer {
    body.check()?;
    let of = Ids {
        id: ids.id.clone(),
        index: body.source.understanding_id,
        ..Default::default()
    };
    let (mut index, output) = understood(&session, &of).await?;
    if body.source.output.is_some_and(|asked| asked != output) {
        let allowed = format!("the output of this understanding, which is {output:?}");
        return Err(wrong("source.output", allowed).into());
    }
    if let Some(name) = body.name {
        let request = v1::UpdateIndexRequest {
            index_id: index.id,
            name: Some(name),
            ..Default::default()
        };
        index = session.update_index(request).await?;
    }
    Data::of(shown(&session, &index))
}

/// `GET /rtstream/{id}/indexes`: all of them.
pub(super) async fn list_indexes(session: Session, ids: Ids) -> Answer {
    let all = indexes::all(&session, &ids.id).await?;
    let all = all.iter().map(|index| shown(&session, index));
    Data::of(json!({ "indexes": all.collect::<Vec<_>>() }))
}

/// `GET /rtstream/{id}/indexes/{index}`
pub(super) async fn get_index(session: Session, ids: Ids) -> Answer {
    let index = indexes::index_of(&session, &ids).await?;
    Data::of(shown(&session, &index))
}

/// `PATCH /rtstream/{id}/indexes/{index}/status`
pub(super) async fn set_index_status(
    session: Session,
    ids: Ids,
    Body(body): Body<Switch>,
) -> Answer {
    let index = indexes::switch(&session, &ids, &body).await?;
    Data::of(shown(&session, &index))
}

/// `GET /rtstream/{id}/indexes/{index}/records`
pub(super) async fn index_records(
    session: Session,
    ids: Ids,
    Params(page): Params<PageQuery>,
    Params(stretch): Params<Stretch>,
) -> Answer {
    listed(&session, &ids, &page, stretch).await
}

async fn listed(
    session: &Session,
    ids: &Ids,
    page: &PageQuery,
    stretch: Stretch,
) -> Result<Data, Refusal> {
    let (records, next_page) = indexes::described(session, ids, page, stretch).await?;
    Data::of(json!({"records": records, "next_page": next_page}))
}
