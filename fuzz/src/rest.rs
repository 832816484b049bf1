//! Bodies and queries of the VideoDB-compatible skin, as far as the core's requests that they stand for.

use axum::extract::{FromRequest, FromRequestParts};
use axum::response::IntoResponse;
use futures_executor::block_on;
use http::Request;
use prost::Message;
use serde::de::DeserializeOwned;
use serde_json::Value;
use sightline_proto::v1;

use self::answer::Refusal;
use self::asked::{events, indexes, search, streams, transcripts, understandings};
use self::paging::PageQuery;
use self::request::{Body, Params, Switch};

#[path = "../../services/gateway/src/rest/answer.rs"]
mod answer;
#[path = "../../services/gateway/src/rest/asked/mod.rs"]
mod asked;
#[path = "../../services/gateway/src/rest/filters.rs"]
mod filters;
#[path = "../../services/gateway/src/rest/paging.rs"]
mod paging;
#[path = "../../services/gateway/src/rest/request.rs"]
mod request;
#[path = "../../services/gateway/src/rest/values.rs"]
mod values;

/// What a call takes: a query and a body.
type Call = fn(&str, &[u8]) -> Result<(), Refusal>;

/// In this order the gateway's test sends them too.
const CALLS: [Call; 19] = [
    |_, sent| {
        let (request, rate, types) = body::<streams::Connect>(sent)?.request()?;
        assert!(rate.is_none_or(|rate| rate > 0) && !types.is_empty());
        encoded(&request)
    },
    |_, sent| encoded(&body::<streams::Rename>(sent)?.request("rts-1".into())?.0),
    |sent, _| {
        let (request, limit, offset) = query::<streams::ListQuery>(sent)?.request()?;
        assert!((1..=1000).contains(&limit) && offset >= 0);
        let address = streams::address(sent, limit, offset + limit);
        assert!(address.ends_with(&format!("limit={limit}&offset={}", offset + limit)));
        encoded(&request)
    },
    |sent, _| encoded(&query::<streams::StreamQuery>(sent)?.request("rts-1".into())?),
    |_, sent| encoded(&body::<indexes::Create>(sent)?.visual("rts-1".into())?),
    |_, sent| encoded(&body::<indexes::Create>(sent)?.audio("rts-1".into())?),
    |_, sent| encoded(&body::<indexes::Change>(sent)?.request("idx-1".into())?),
    |sent, _| {
        let page = query::<PageQuery>(sent)?.check()?;
        assert!(page.number > 0 && page.size > 0 && page.number * page.size <= 100_000);
        query::<indexes::Stretch>(sent)?.times()?;
        Ok(())
    },
    |_, sent| {
        let (request, output) =
            body::<understandings::Understand>(sent)?.request("rts-1".into())?;
        assert!((1..=64).contains(&output.chars().count()));
        encoded(&request)
    },
    |_, sent| Ok(body::<understandings::Materialize>(sent)?.check()?),
    |sent, _| query::<understandings::Output>(sent).map(drop),
    |_, sent| {
        let request = v1::SearchRequest::default();
        encoded(&body::<search::Query>(sent)?.added_to(request)?)
    },
    |_, sent| {
        let body = body::<transcripts::Transcription>(sent)?;
        let (starts, mode) = (body.starts(), body.mode());
        if let Some(config) = body.model_config {
            encoded(&config.request("rts-1".into())?)?;
        }
        (starts?, mode?);
        Ok(())
    },
    |sent, _| encoded(&query::<transcripts::Stretch>(sent)?.request("rts-1".into())?),
    |_, sent| encoded(&body::<events::Create>(sent)?.request()),
    |_, sent| encoded(&body::<events::CreateAlert>(sent)?.request("idx-1".into())),
    |_, sent| encoded(&body::<asked::CreateCollection>(sent)?.request()?),
    |_, sent| encoded(&body::<asked::UpdateCollection>(sent)?.request("c-1".into())),
    |_, sent| {
        body::<asked::Export>(sent)?;
        body::<Switch>(sent)?.is_on(["start", "running"], ["stop", "stopped"])?;
        Ok(())
    },
];

/// The first byte chooses a call, the first line behind it is a query, the rest a body: taken, or refused in the envelope as the
/// caller's fault.
pub fn rest_requests(data: &[u8]) {
    let Some((kind, rest)) = data.split_first() else {
        return;
    };
    let mut parts = rest.splitn(2, |byte| *byte == b'\n');
    let (query, body) = (
        parts.next().unwrap_or_default(),
        parts.next().unwrap_or_default(),
    );
    let query = String::from_utf8_lossy(query);
    let Err(refusal) = CALLS[usize::from(*kind) % CALLS.len()](&query, body) else {
        return;
    };
    let response = refusal.into_response();
    assert!(response.status().is_client_error(), "{}", response.status());
    let bytes = block_on(axum::body::to_bytes(response.into_body(), 1 << 20));
    let envelope: Value = serde_json::from_slice(&bytes.expect("a body")).expect("JSON");
    assert_eq!(envelope["success"], Value::Bool(false));
    assert!(
        envelope["message"]
            .as_str()
            .is_some_and(|told| !told.is_empty())
    );
    assert!(envelope["error_code"].is_string());
}

fn body<T: DeserializeOwned>(sent: &[u8]) -> Result<T, Refusal> {
    let request = Request::new(axum::body::Body::from(sent.to_vec()));
    block_on(Body::<T>::from_request(request, &())).map(|Body(body)| body)
}

/// What is no URI does not come so far, and asks for nothing.
fn query<T: DeserializeOwned>(sent: &str) -> Result<T, Refusal> {
    let uri = format!("/?{sent}")
        .parse()
        .unwrap_or(http::Uri::from_static("/"));
    let (mut parts, ()) = Request::new(()).into_parts();
    parts.uri = uri;
    block_on(Params::<T>::from_request_parts(&mut parts, &())).map(|Params(query)| query)
}

/// What is asked of the core travels.
fn encoded<M: Message + Default + PartialEq>(request: &M) -> Result<(), Refusal> {
    let again = M::decode(request.encode_to_vec().as_slice()).expect("what was encoded is decoded");
    assert!(again == *request);
    Ok(())
}
