//! What servers say: about their models, as JSON, and when they refuse.

use serde_json::Value;
use sightline_egress::Answer;

use super::error::RemoteError;

/// Most characters of a complaint that are repeated.
const MAX_COMPLAINT: usize = 300;
/// Most models that are named.
const MAX_NAMES: usize = 20;
/// What stays the same about a model for as long as it is the same model. Servers also say when they were asked, and how
/// they are configured.
const LASTING: [&str; 5] = ["/id", "/root", "/owned_by", "/meta/n_params", "/meta/size"];

/// What lasts of what is said about `model`; None if it is not there. Ollama's names may lack their `:latest`.
pub(super) fn about(models: &[Value], model: &str) -> Option<String> {
    let latest = format!("{model}:latest");
    let named = |name: &str| models.iter().find(|m| m["id"] == name);
    let said = named(model).or_else(|| named(&latest))?;
    let lasting = LASTING.map(|field| said.pointer(field).cloned().unwrap_or_default());
    Some(Value::from(lasting.to_vec()).to_string())
}

/// Which models there are, in words.
pub(super) fn names(models: &[Value]) -> String {
    let names: Vec<_> = models.iter().filter_map(|m| m["id"].as_str()).collect();
    match names.len() {
        0 => "it names no model".to_owned(),
        1..=MAX_NAMES => format!("it has: {}", names.join(", ")),
        all => {
            let shown = names[..MAX_NAMES].join(", ");
            format!("it has {all}, among them: {shown}")
        }
    }
}

/// The body of an answer as JSON.
pub(super) fn json(url: &str, answer: &Answer) -> Result<Value, RemoteError> {
    serde_json::from_slice(&answer.body).map_err(|error| {
        let content_type = &answer.content_type;
        let problem = format!("it is not JSON but {content_type:?} ({error})");
        RemoteError::answer(url, problem)
    })
}

/// Why a server refuses, in its words, without `secret`: some repeat the key that they refuse.
pub(super) fn complaint(answer: &Answer, secret: Option<&str>) -> String {
    let body = serde_json::from_slice::<Value>(&answer.body).unwrap_or_default();
    let places = ["/error/message", "/error", "/message", "/detail"];
    let found = places
        .iter()
        .filter_map(|place| body.pointer(place))
        .find_map(Value::as_str);
    let words = match found {
        Some(message) => message.to_owned(),
        None => String::from_utf8_lossy(&answer.body).into_owned(),
    };
    let words = match secret {
        Some(secret) => words.replace(secret, "…"),
        None => words,
    };
    let visible = words.split_whitespace().collect::<Vec<_>>().join(" ");
    match visible.char_indices().nth(MAX_COMPLAINT) {
        Some((end, _)) => format!("{}…", &visible[..end]),
        None if visible.is_empty() => "it does not say why".to_owned(),
        None => visible,
    }
}
