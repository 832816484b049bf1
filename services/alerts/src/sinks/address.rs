//! Where a sink is, as its URL says.

use std::borrow::Cow;

use percent_encoding::percent_decode_str;
use url::Url;

/// A host with who asks.
#[derive(Clone)]
pub(super) struct Address {
    pub(super) host: String,
    pub(super) port: Option<u16>,
    /// Whether the scheme says that everything is encrypted.
    pub(super) encrypted: bool,
    /// Empty: nobody in particular.
    pub(super) user: String,
    pub(super) secret: Option<String>,
    /// Behind the first slash.
    pub(super) path: String,
}

impl Address {
    pub(super) fn of(url: &Url, secret: Option<String>) -> Result<Self, String> {
        if url.password().is_some() {
            return Err(
                "a password does not belong into the URL, where others see it: name a file that has it, --sink-secret NAME=FILE"
                    .to_owned(),
            );
        }
        let host = url.host_str().filter(|host| !host.is_empty());
        let host =
            host.ok_or("write the host behind the scheme, for example mqtt://10.0.0.5/alerts")?;
        let user = decoded(url.username())?;
        if !user.is_empty() && secret.is_none() {
            return Err(
                "it has a user, but no secret: name a file that has the password, --sink-secret NAME=FILE"
                    .to_owned(),
            );
        }
        Ok(Self {
            host: host.trim_matches(['[', ']']).to_owned(),
            port: url.port(),
            encrypted: matches!(url.scheme(), "tls" | "smtps" | "mqtts"),
            user,
            secret,
            path: decoded(url.path().trim_start_matches('/'))?,
        })
    }

    /// The user's password.
    pub(super) fn password(&self) -> Result<Option<&str>, String> {
        match &self.secret {
            Some(_) if self.user.is_empty() => Err(
                "its secret is a password: write the user, for example mqtt://USER@HOST/…"
                    .to_owned(),
            ),
            secret => Ok(secret.as_deref()),
        }
    }

    /// As parts of URLs have it.
    pub(super) fn bracketed_host(&self) -> Cow<'_, str> {
        if self.host.contains(':') {
            Cow::Owned(format!("[{}]", self.host))
        } else {
            Cow::Borrowed(&self.host)
        }
    }
}

fn decoded(part: &str) -> Result<String, String> {
    let text = percent_decode_str(part).decode_utf8();
    let text = text.map_err(|_| "its URL has escaped bytes that are no text".to_owned())?;
    Ok(text.into_owned())
}
