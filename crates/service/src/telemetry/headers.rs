//! What every request to the collector carries besides: how a hosted one knows whose telemetry it is.

use std::fmt;
use std::str::FromStr;

use percent_encoding::percent_decode_str;
use tonic::metadata::{Ascii, AsciiMetadataValue, MetadataKey};
use tonic::service::Interceptor;
use tonic::{Request, Status};

/// Headers of requests to the collector. Their values are secrets and never shown.
#[derive(Clone, Default, PartialEq)]
pub struct Headers(Vec<(MetadataKey<Ascii>, AsciiMetadataValue)>);

impl fmt::Debug for Headers {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list()
            .entries(self.0.iter().map(|(name, _)| name))
            .finish()
    }
}

/// As `OTEL_EXPORTER_OTLP_HEADERS` has them: NAME=VALUE, with commas between several and values percent-encoded
/// (<https://opentelemetry.io/docs/specs/otel/protocol/exporter/>).
impl FromStr for Headers {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let pairs = text
            .split(',')
            .map(str::trim)
            .filter(|pair| !pair.is_empty());
        // What is wrong is not repeated: it may be a key.
        pairs.map(header).collect::<Option<_>>().map(Self).ok_or_else(|| {
            "write NAME=VALUE, commas between several, and values percent-encoded: authorization=Bearer%20KEY".to_owned()
        })
    }
}

fn header(pair: &str) -> Option<(MetadataKey<Ascii>, AsciiMetadataValue)> {
    let (name, value) = pair.split_once('=')?;
    let name = MetadataKey::from_str(&name.trim().to_ascii_lowercase()).ok()?;
    let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
    let mut value = AsciiMetadataValue::try_from(&*value).ok()?;
    value.set_sensitive(true);
    Some((name, value))
}

impl Interceptor for Headers {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        for (name, value) in &self.0 {
            request.metadata_mut().insert(name.clone(), value.clone());
        }
        Ok(request)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn are_read_as_the_variable_has_them_and_never_shown() {
        let headers: Headers = " Authorization = Bearer%20s3cret ,x-team=a=b,"
            .parse()
            .expect("understood");
        let request = headers.clone().call(Request::new(())).expect("always");
        let told = |name| request.metadata().get(name).map(|value| value.as_bytes());
        assert_eq!(told("authorization"), Some(&b"Bearer s3cret"[..]));
        assert_eq!(told("x-team"), Some(&b"a=b"[..]));
        let shown = format!("{headers:?} {:?}", request.metadata());
        assert!(
            shown.contains("x-team") && !shown.contains("s3cret"),
            "{shown}"
        );
        assert_eq!("".parse(), Ok(Headers::default()));
        for wrong in [
            "s3cret",
            "a b=s3cret",
            "a=s3cret%0a",
            "=s3cret",
            "a-bin=s3cret",
        ] {
            let refused = wrong.parse::<Headers>().expect_err(wrong);
            assert!(!refused.contains("s3cret"), "{refused}");
        }
    }
}
