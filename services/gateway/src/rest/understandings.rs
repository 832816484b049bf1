//! The newer calls in this skin: an understanding describes a stream's windows, and an index over its output makes that
//! searchable. Here both are one visual index, by two ids: `und-…` and `idx-…` before the same UUID.

use serde::Deserialize;
use serde_json::{Value, json};
use sightline_proto::ids::Kind;
use sightline_proto::internal::subscribed::To;
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::time::duration_micros;
use sightline_proto::v1;

use super::answer::{Answer, Data, Refusal, renaming};
use super::indexes::{self, Stretch};
use super::paging::PageQuery;
use super::request::{Body, Ids, Params, Switch, unsupported};
use super::values::{Number, written, wrong};
use crate::api::Session;

/// The name of an output when the caller gives none.
const OUTPUT: &str = "scene";
/// The longest name of an output.
const MAX_OUTPUT: usize = 64;
/// What an understanding's ids begin with.
const PREFIX: &str = "und-";
/// What fields of the core are called here.
const NAMES: [(&str, &str); 4] = [
    ("sampling.window", "segmentation.window"),
    ("sampling.frame_count", "analyzers.sampling.frame_count"),
    ("model", "analyzers.config.model"),
    ("prompt", "analyzers.config.prompt"),
];

/// What to describe, and how.
#[derive(Deserialize)]
pub(super) struct Understand {
    segmentation: Option<Segmentation>,
    analyzers: Option<Vec<Analyzer>>,
    store: Option<bool>,
    ws_connection_id: Option<String>,
}

#[derive(Deserialize)]
struct Segmentation {
    r#type: Option<String>,
    window: Option<Value>,
}

#[derive(Deserialize)]
struct Analyzer {
    r#type: Option<String>,
    name: Option<String>,
    sampling: Option<Sampling>,
    config: Option<Config>,
}

#[derive(Deserialize)]
struct Sampling {
    frame_count: Option<Number>,
}

#[derive(Deserialize)]
struct Config {
    prompt: Option<String>,
    model: Option<String>,
}

/// `POST /rtstream/{id}/understand`
pub(super) async fn create(session: Session, ids: Ids, Body(body): Body<Understand>) -> Answer {
    if body.store == Some(false) {
        return Err(wrong("store", "true: what is described is always kept").into());
    }
    let connection = session.connection(body.ws_connection_id.as_deref()).await?;
    let (request, output) = request(ids, body.segmentation, body.analyzers)?;
    let created = session.create_understanding(request, &output).await;
    let index = created.map_err(renaming(&NAMES))?;
    let scenes = To::IndexId(index.id.clone());
    session.tell(&connection, scenes).await?;
    Data::of(understanding(&index, &output))
}

/// The index that does it, and the name of its output.
fn request(
    ids: Ids,
    segmentation: Option<Segmentation>,
    analyzers: Option<Vec<Analyzer>>,
) -> Result<(v1::CreateVisualIndexRequest, String), ApiError> {
    let kind = segmentation.as_ref().and_then(|s| s.r#type.as_deref());
    if kind.is_some_and(|kind| kind != "time") {
        return Err(wrong("segmentation.type", "\"time\""));
    }
    let window = segmentation.and_then(|segmentation| segmentation.window);
    let window = window.as_ref().map(window_of).transpose()?;
    let mut analyzers = analyzers.unwrap_or_default();
    let analyzer = analyzers.pop().filter(|_| analyzers.is_empty());
    let analyzer = analyzer.ok_or_else(|| wrong("analyzers", "exactly one"))?;
    if analyzer.r#type.is_some_and(|kind| kind != "vlm") {
        return Err(wrong("analyzers.type", "\"vlm\""));
    }
    let output = analyzer.name.unwrap_or_else(|| OUTPUT.to_owned());
    if !(1..=MAX_OUTPUT).contains(&output.chars().count()) {
        let allowed = format!("1 to {MAX_OUTPUT} characters");
        return Err(wrong("analyzers.name", allowed));
    }
    let frames = analyzer.sampling.and_then(|sampling| sampling.frame_count);
    let (prompt, model) = analyzer
        .config
        .map_or((None, None), |c| (c.prompt, c.model));
    let request = v1::CreateVisualIndexRequest {
        rtstream_id: ids.id,
        prompt: prompt.unwrap_or_else(|| indexes::PROMPT.to_owned()),
        model: indexes::model(model),
        sampling: indexes::sampling(window, frames)?,
        ..Default::default()
    };
    Ok((request, output))
}

/// A window in seconds, as a number or as a text: "10s", "1m".
fn window_of(value: &Value) -> Result<Number, ApiError> {
    let seconds = match value {
        Value::String(text) => {
            let (number, unit) = match text.strip_suffix('m') {
                Some(number) => (number, 60.0),
                None => (text.strip_suffix('s').unwrap_or(text), 1.0),
            };
            let number: Option<f64> = number.trim().parse().ok();
            number.map(|number| number * unit)
        }
        other => other.as_f64(),
    };
    let seconds = seconds.filter(|seconds| seconds.is_finite());
    seconds
        .map(Number)
        .ok_or_else(|| wrong("segmentation.window", "a time such as \"10s\" or \"1m\""))
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

/// Of which output records are listed.
#[derive(Deserialize)]
pub(super) struct Output {
    output: Option<String>,
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

/// What to make searchable.
#[derive(Deserialize)]
pub(super) struct Materialize {
    source: Source,
    name: Option<String>,
    use_for: Option<Vec<String>>,
    #[serde(default)]
    config: Option<Value>,
}

#[derive(Deserialize)]
struct Source {
    understanding_id: String,
    output: Option<String>,
}

/// `POST /rtstream/{id}/indexes`: the index over an understanding's output, which is there already. It can be named.
pub(super) async fn index(session: Session, ids: Ids, Body(body): Body<Materialize>) -> Answer {
    unsupported([("config", &body.config)])?;
    if body
        .use_for
        .is_some_and(|uses| uses.iter().any(|word| word != "semantic"))
    {
        return Err(wrong("use_for", "[\"semantic\"]").into());
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn windows_are_times() {
        for (value, expected) in [
            (json!("10s"), Some(10.0)),
            (json!("1m"), Some(60.0)),
            (json!("2.5"), Some(2.5)),
            (json!(7), Some(7.0)),
            (json!("x"), None),
            (json!("infs"), None),
            (json!(""), None),
            (json!([]), None),
        ] {
            let found = window_of(&value).ok().map(|Number(seconds)| seconds);
            assert_eq!(found, expected, "{value}");
        }
    }
}
