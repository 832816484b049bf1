//! The filter of a search: a list of objects, all of which must hold.

use serde_json::{Map, Value};
use sightline_proto::reasons::ApiError;
use sightline_proto::v1::SearchRequest;
use sightline_proto::v1::search_hit::Kind;

use super::values::{Number, time, wrong};

/// As clients send it.
pub(super) type Filter = Vec<Map<String, Value>>;

/// What may be asked for.
const KEYS: &str = "rtstream_id, scene_index_id, kind, start, end";

/// The request with the conditions added.
pub(super) fn apply(
    filter: Option<Filter>,
    mut request: SearchRequest,
) -> Result<SearchRequest, ApiError> {
    for (key, value) in merged(filter.unwrap_or_default())? {
        match key.as_str() {
            "rtstream_id" => set(&mut request.rtstream_id, &value, "filter.rtstream_id")?,
            "scene_index_id" => set(&mut request.index_id, &value, "filter.scene_index_id")?,
            "kind" => request.kinds = vec![kind(&value)?.into()],
            "start" => request.start_time = Some(time("filter.start", seconds(&value)?)?),
            "end" => request.end_time = Some(time("filter.end", seconds(&value)?)?),
            _ => {
                let shown: String = key.chars().take(40).collect();
                let allowed = format!("objects with the keys {KEYS}; got {shown:?}");
                return Err(wrong("filter", allowed));
            }
        }
    }
    Ok(request)
}

/// All objects in one: there is no "or", so no key has two values.
fn merged(filter: Filter) -> Result<Map<String, Value>, ApiError> {
    let mut all = Map::new();
    for (key, value) in filter.into_iter().flatten() {
        let before = all.insert(key, value.clone());
        if before.is_some_and(|before| before != value) {
            return Err(wrong("filter", "every key with one value"));
        }
    }
    Ok(all)
}

/// Two different ids in one request find nothing, which is not what was meant.
fn set(field: &mut String, value: &Value, name: &'static str) -> Result<(), ApiError> {
    let id = value.as_str().filter(|id| !id.is_empty());
    let id = id.ok_or_else(|| wrong(name, "an id"))?;
    if !field.is_empty() && field != id {
        return Err(wrong(name, "the same id as elsewhere in the search"));
    }
    id.clone_into(field);
    Ok(())
}

fn kind(value: &Value) -> Result<Kind, ApiError> {
    match value.as_str() {
        Some("scene") => Ok(Kind::Scene),
        Some("transcript") => Ok(Kind::Transcript),
        Some("audio") => Ok(Kind::AudioScene),
        _ => Err(wrong(
            "filter.kind",
            "\"scene\", \"transcript\" or \"audio\"",
        )),
    }
}

fn seconds(value: &Value) -> Result<f64, ApiError> {
    let number = serde_json::from_value::<Number>(value.clone());
    let number = number.map_err(|_| wrong("filter", "start and end in Unix seconds"));
    number.map(|Number(seconds)| seconds)
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use sightline_proto::time::timestamp;

    use super::*;

    fn check(filter: Value, expected: Result<SearchRequest, &str>) {
        let filter: Filter = serde_json::from_value(filter).expect("a list of objects");
        let told = format!("{filter:?}");
        let request = SearchRequest {
            rtstream_id: "rts-1".to_owned(),
            ..Default::default()
        };
        match (apply(Some(filter), request), expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{told}"),
            (Err(found), Err(part)) => assert!(found.message.contains(part), "{told}: {found}"),
            (found, _) => panic!("{told}: {found:?}"),
        }
    }

    #[test]
    fn conditions_hold_all_together() {
        let stream = || SearchRequest {
            rtstream_id: "rts-1".to_owned(),
            ..Default::default()
        };
        check(json!([]), Ok(stream()));
        check(
            json!([{"kind": "audio", "start": 1.5}, {"end": "2", "rtstream_id": "rts-1"}]),
            Ok(SearchRequest {
                kinds: vec![Kind::AudioScene.into()],
                start_time: Some(timestamp(1_500_000)),
                end_time: Some(timestamp(2_000_000)),
                ..stream()
            }),
        );
        check(
            json!([{"scene_index_id": "idx-1"}, {"scene_index_id": "idx-1"}]),
            Ok(SearchRequest {
                index_id: "idx-1".to_owned(),
                ..stream()
            }),
        );
        check(
            json!([{"kind": "scene"}, {"kind": "audio"}]),
            Err("one value"),
        );
        check(json!([{"rtstream_id": "rts-2"}]), Err("the same id"));
        check(
            json!([{"rtstream_id": ""}]),
            Err("filter.rtstream_id: an id"),
        );
        check(json!([{"kind": 1}]), Err("filter.kind: "));
        check(json!([{"start": []}]), Err("Unix seconds"));
        check(json!([{"start": -1}]), Err("filter.start: "));
        check(
            json!([{"color": "red"}]),
            Err("rtstream_id, scene_index_id, kind, start, end; got \"color\""),
        );
    }
}
