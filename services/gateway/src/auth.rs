//! API keys: kept as SHA-256 hashes, compared in constant time, never logged.

use std::fmt;
use std::sync::Arc;

use http::{HeaderMap, header};
use sha2::{Digest, Sha256};
pub use sightline_proto::client::ACCESS_TOKEN;
use sightline_proto::ids::Kind;
use subtle::ConstantTimeEq;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

/// Whose things are those made with the keys that the server was started with.
pub(crate) const DEFAULT_TENANT: &str = "default";

/// Letters of the secret after the key's id: base64url of 32 bytes.
const RANDOM_LETTERS: usize = 43;

/// Who calls.
#[derive(Debug, Clone)]
pub(crate) struct Caller {
    /// Whose things he sees.
    pub(crate) tenant: Arc<str>,
    /// Whether he may create, list and revoke keys.
    pub(crate) operator: bool,
    /// The key that he calls with; empty for those that the server was started with.
    pub(crate) key_id: Arc<str>,
    /// Cancelled when his key is revoked.
    pub(crate) revoked: CancellationToken,
}

impl Caller {
    /// With a key that the server was started with.
    pub(crate) fn operator() -> Self {
        Self {
            tenant: DEFAULT_TENANT.into(),
            operator: true,
            key_id: "".into(),
            revoked: CancellationToken::new(),
        }
    }
}

/// The keys that the server is started with, as hashes.
#[derive(Clone, Default)]
pub struct ApiKeys(Vec<[u8; 32]>);

impl ApiKeys {
    /// Takes keys as users send them and keeps their hashes alone.
    pub fn new<'a>(keys: impl IntoIterator<Item = &'a str>) -> Self {
        Self(keys.into_iter().map(hash).collect())
    }

    /// Every hash is compared, so that the time taken says nothing about which one matched.
    pub(crate) fn knows(&self, key: &str) -> bool {
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

/// SHA-256 of a key as users send it.
pub(crate) fn hash(key: &str) -> [u8; 32] {
    Sha256::digest(key.as_bytes()).into()
}

/// Whether a key has this hash; the time taken says nothing about it.
pub(crate) fn matches(key: &str, sha256: &[u8]) -> bool {
    hash(key).ct_eq(sha256).into()
}

/// The id in the secret of a key that was created here: `sl_<its UUID without hyphens>_<43 letters of base64url>`.
pub(crate) fn id_of(secret: &str) -> Option<String> {
    let (uuid, random) = secret.strip_prefix("sl_")?.split_once('_')?;
    let letter = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'-' | b'_');
    let sound = uuid.len() == 32 && random.len() == RANDOM_LETTERS && random.bytes().all(letter);
    let uuid = Uuid::try_parse(uuid).ok().filter(|_| sound)?;
    Some(format!("{}{}", Kind::Key.prefix(), uuid.hyphenated()))
}

/// The key that a request carries, in either header.
pub(crate) fn presented(headers: &HeaderMap) -> Option<&str> {
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

    fn knows(name: &str, value: &str) -> bool {
        let mut headers = HeaderMap::new();
        headers.insert(
            name.parse::<HeaderName>().expect("a header name"),
            HeaderValue::from_str(value).expect("a header value"),
        );
        presented(&headers).is_some_and(|key| ApiKeys::new(["first", "second"]).knows(key))
    }

    #[test]
    fn a_known_key_passes_by_either_header_and_nothing_else_does() {
        for (name, value, expected) in [
            ("x-access-token", "first", true),
            ("x-access-token", "second", true),
            ("authorization", "Bearer second", true),
            ("authorization", "bearer first", true),
            ("x-access-token", "firs", false),
            ("x-access-token", "", false),
            ("authorization", "Basic first", false),
            ("authorization", "first", false),
            ("x-api-key", "first", false),
        ] {
            assert_eq!(knows(name, value), expected, "{name}: {value}");
        }
    }

    #[test]
    fn no_keys_admit_nobody_and_keys_are_not_shown() {
        assert!(!ApiKeys::default().knows(""));
        assert!(!format!("{:?}", ApiKeys::new(["s3cret"])).contains("s3cret"));
    }

    #[test]
    fn a_secret_names_its_key() {
        let random = "a-_".repeat(15)[..43].to_owned();
        let uuid = "0198f0c46f1f7a3bb0e5c8e9d4751c07";
        for (secret, expected) in [
            (format!("sl_{uuid}_{random}"), true),
            (format!("sl_{uuid}_{random}a"), false),
            (format!("sl_{uuid}_"), false),
            (format!("sl_{}_{random}", &uuid[1..]), false),
            (format!("sl_{}_{random}", "z".repeat(32)), false),
            (format!("xx_{uuid}_{random}"), false),
            (format!("sl_{uuid}_{}", random.replace('-', ".")), false),
            (String::new(), false),
        ] {
            let id = expected.then(|| "key-0198f0c4-6f1f-7a3b-b0e5-c8e9d4751c07".to_owned());
            assert_eq!(id_of(&secret), id, "{secret}");
        }
    }
}
