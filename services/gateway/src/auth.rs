//! API keys: kept as SHA-256 hashes, compared in constant time, never logged.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, header};
use sha2::{Digest, Sha256};
pub use sightline_proto::client::ACCESS_TOKEN;
use sightline_proto::reasons::{ApiError, Reason};
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;

/// Whose things are those made with the keys that the server was started with.
pub(crate) const DEFAULT_TENANT: &str = "default";

/// Who calls.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Whose things he sees.
    pub(crate) tenant: Arc<str>,
    /// Whether he may create, list and revoke keys.
    pub(crate) operator: bool,
    /// Cancelled when his key is revoked.
    pub(crate) revoked: CancellationToken,
}

impl Caller {
    /// With a key that the server was started with.
    fn operator() -> Self {
        Self {
            tenant: DEFAULT_TENANT.into(),
            operator: true,
            revoked: CancellationToken::new(),
        }
    }
}

/// The keys that may call, as hashes.
#[derive(Clone, Default)]
pub struct ApiKeys(Vec<[u8; 32]>);

impl ApiKeys {
    /// Takes keys as users send them and keeps their hashes alone.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Self(keys.into_iter().map(hash).collect())
    }

    /// Whether a request with these headers may call.
    pub(crate) fn check(&self, headers: &HeaderMap) -> Result<Caller, ApiError> {
        let how = format!("send it as metadata {ACCESS_TOKEN}: KEY or authorization: Bearer KEY");
        let key = presented(headers).ok_or_else(|| {
            ApiError::new(
                Reason::Unauthenticated,
                format!("this call needs an API key; {how}"),
            )
        })?;
        if self.knows(key) {
            return Ok(Caller::operator());
        }
        let message = "this API key is not known here; use the one that the server was started \
                       with (SIGHTLINE_API_KEY) or that it printed when it started";
        Err(ApiError::new(Reason::Unauthenticated, message))
    }

    /// Every hash is compared, so that the time taken says nothing about which one matched.
    fn knows(&self, key: &str) -> bool {
        let presented = hash(key);
        let found = self.0.iter().fold(0, |found, known| {
            found | known.ct_eq(&presented).unwrap_u8()
        });
        found == 1
    }
}

impl fmt::Debug for ApiKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ApiKeys({} keys)", self.0.len())
    }
}

fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

fn presented(headers: &HeaderMap) -> Option<&str> {
    if let Some(token) = headers.get(ACCESS_TOKEN) {
        return token.to_str().ok();
    }
    let value = headers.get(header::AUTHORIZATION)?.to_str().ok()?;
    let (scheme, key) = value.split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| key.trim())
}

#[cfg(test)]
mod tests {
    use http::{HeaderName, HeaderValue};

    use super::*;

    fn check(name: &str, value: &str) -> Result<(), ApiError> {
        let mut headers = HeaderMap::new();
        headers.insert(
            name.parse::<HeaderName>().expect("a header name"),
            HeaderValue::from_str(value).expect("a header value"),
        );
        ApiKeys::new(["first", "second"])
            .check(&headers)
            .map(|_| ())
    }

    #[test]
    fn a_known_key_passes_by_either_header() {
        for (name, value) in [
            ("x-access-token", "first"),
            ("x-access-token", "second"),
            ("authorization", "Bearer second"),
            ("authorization", "bearer first"),
        ] {
            assert_eq!(check(name, value), Ok(()), "{name}: {value}");
        }
    }

    #[test]
    fn anything_else_is_refused_without_repeating_it() {
        for (name, value) in [
            ("x-access-token", "firs"),
            ("x-access-token", ""),
            ("authorization", "Basic first"),
            ("authorization", "first"),
            ("x-api-key", "first"),
        ] {
            let error = check(name, value).expect_err(value);
            assert_eq!(error.reason, Reason::Unauthenticated, "{name}: {value}");
        }
        let error = check("x-access-token", "s3cret").expect_err("wrong key");
        assert!(!error.message.contains("s3cret"));
        assert!(!format!("{:?}", ApiKeys::new(["s3cret"])).contains("s3cret"));
    }

    #[test]
    fn no_keys_admit_nobody() {
        let mut headers = HeaderMap::new();
        headers.insert(ACCESS_TOKEN, HeaderValue::from_static(""));
        assert!(ApiKeys::default().check(&headers).is_err());
    }
}
