//! Who asks an HTTP server: said in the way in which it asks for it, Digest (RFC 7616) before Basic (RFC 7617), and not before.

use std::sync::{Mutex, PoisonError};

use digest_auth::{AuthContext, WwwAuthenticateHeader};
use gstreamer::glib;
use http::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use percent_encoding::percent_decode_str;
use url::Url;

/// The credentials of a source, and how its server wants to hear of them.
pub(crate) struct Proof {
    user: String,
    password: String,
    asked: Mutex<Option<Asked>>,
}

/// How a server has asked.
enum Asked {
    Basic,
    Digest(WwwAuthenticateHeader),
}

impl Proof {
    /// From the credentials in a URL, if there are some.
    pub(crate) fn of(url: &Url) -> Option<Self> {
        if url.username().is_empty() && url.password().is_none() {
            return None;
        }
        let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
        Some(Self {
            user: decoded(url.username()),
            password: decoded(url.password().unwrap_or_default()),
            asked: Mutex::new(None),
        })
    }

    /// Takes in how the server asks, from the headers of its refusal; false if in no way that is known.
    pub(crate) fn asked(&self, refusal: &HeaderMap) -> bool {
        let ways = || {
            let values = refusal.get_all(WWW_AUTHENTICATE).iter();
            values.filter_map(|value| value.to_str().ok())
        };
        let digest = ways().find_map(|way| WwwAuthenticateHeader::parse(way).ok());
        let basic = || ways().any(|way| way.to_ascii_lowercase().starts_with("basic"));
        let asked = digest
            .map(Asked::Digest)
            .or_else(|| basic().then_some(Asked::Basic));
        let is_known = asked.is_some();
        *self.asked.lock().unwrap_or_else(PoisonError::into_inner) = asked;
        is_known
    }

    /// The header that answers, for a GET of this URL; none while nobody has asked.
    pub(crate) fn header(&self, url: &Url) -> Option<HeaderValue> {
        let mut asked = self.asked.lock().unwrap_or_else(PoisonError::into_inner);
        let text = match asked.as_mut()? {
            Asked::Basic => {
                let pair = format!("{}:{}", self.user, self.password);
                format!("Basic {}", glib::base64_encode(pair.as_bytes()))
            }
            Asked::Digest(challenge) => {
                let path = &url[url::Position::BeforePath..url::Position::AfterQuery];
                let context = AuthContext::new(&self.user, &self.password, path);
                challenge.respond(&context).ok()?.to_header_string()
            }
        };
        let mut value = HeaderValue::from_str(&text).ok()?;
        value.set_sensitive(true);
        Some(value)
    }
}

#[cfg(test)]
mod tests {
    use anyhow::{Context, Result};

    use super::*;

    fn refusal(ways: &[&'static str]) -> HeaderMap {
        let values = ways.iter().map(|way| HeaderValue::from_static(way));
        values.map(|value| (WWW_AUTHENTICATE, value)).collect()
    }

    #[test]
    fn is_said_as_the_server_asks_and_not_before() -> Result<()> {
        let url = Url::parse("http://Mufasa:Circle%20of%20Life@127.0.0.1/dir/index.html?a=b")?;
        let proof = Proof::of(&url).context("there are credentials")?;
        assert_eq!(proof.header(&url), None);
        assert!(!proof.asked(&refusal(&["Negotiate", "Bearer realm=\"a\""])));
        assert_eq!(proof.header(&url), None);
        assert!(proof.asked(&refusal(&["BASIC realm=\"a\""])));
        let basic = proof.header(&url).context("said")?;
        assert_eq!(basic, "Basic TXVmYXNhOkNpcmNsZSBvZiBMaWZl");
        let digest = "Digest realm=\"http-auth@example.org\", qop=\"auth, auth-int\", algorithm=SHA-256, nonce=\"7ypf\", opaque=\"FQh\"";
        assert!(proof.asked(&refusal(&["Basic realm=\"a\"", digest])));
        for count in ["nc=00000001", "nc=00000002"] {
            let said = proof.header(&url).context("said")?;
            let said = said.to_str()?;
            assert!(
                said.starts_with("Digest ") && said.contains(count),
                "{said}"
            );
            assert!(said.contains("uri=\"/dir/index.html?a=b\""), "{said}");
            assert!(!said.contains("Circle"), "{said}");
        }
        Ok(())
    }

    #[test]
    fn there_is_none_without_credentials() -> Result<()> {
        assert!(Proof::of(&Url::parse("http://127.0.0.1/a")?).is_none());
        Ok(())
    }
}
