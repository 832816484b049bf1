//! Understandings, and indexes over their outputs.

use serde::Deserialize;
use serde_json::Value;
use sightline_proto::reasons::ApiError;
use sightline_proto::v1;

use super::indexes;
use crate::rest::request::unsupported;
use crate::rest::values::{Number, wrong};

/// The name of an output when the caller gives none.
pub(crate) const OUTPUT: &str = "scene";
/// The longest name of an output.
const MAX_OUTPUT: usize = 64;

/// What to describe, and how.
#[derive(Deserialize)]
pub(crate) struct Understand {
    segmentation: Option<Segmentation>,
    analyzers: Option<Vec<Analyzer>>,
    store: Option<bool>,
    pub(crate) ws_connection_id: Option<String>,
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

impl Understand {
    /// The index that does it, and the name of its output.
    pub(crate) fn request(
        self,
        rtstream_id: String,
    ) -> Result<(v1::CreateVisualIndexRequest, String), ApiError> {
        if self.store == Some(false) {
            return Err(wrong("store", "true: what is described is always kept"));
        }
        let segmentation = self.segmentation;
        let kind = segmentation.as_ref().and_then(|s| s.r#type.as_deref());
        if kind.is_some_and(|kind| kind != "time") {
            return Err(wrong("segmentation.type", "\"time\""));
        }
        let window = segmentation.and_then(|segmentation| segmentation.window);
        let window = window.as_ref().map(window_of).transpose()?;
        let mut analyzers = self.analyzers.unwrap_or_default();
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
            rtstream_id,
            prompt: prompt.unwrap_or_else(|| indexes::PROMPT.to_owned()),
            model: indexes::model(model),
            sampling: indexes::sampling(window, frames)?,
            ..Default::default()
        };
        Ok((request, output))
    }
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

/// Of which output records are listed.
#[derive(Deserialize)]
pub(crate) struct Output {
    pub(crate) output: Option<String>,
}

/// What to make searchable.
#[derive(Deserialize)]
pub(crate) struct Materialize {
    pub(crate) source: Source,
    pub(crate) name: Option<String>,
    use_for: Option<Vec<String>>,
    #[serde(default)]
    config: Option<Value>,
}

#[derive(Deserialize)]
pub(crate) struct Source {
    pub(crate) understanding_id: String,
    pub(crate) output: Option<String>,
}

impl Materialize {
    /// Refuses what an index over an output is not.
    pub(crate) fn check(&self) -> Result<(), ApiError> {
        unsupported([("config", &self.config)])?;
        let mut uses = self.use_for.iter().flatten();
        if uses.any(|word| word != "semantic") {
            return Err(wrong("use_for", "[\"semantic\"]"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

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
