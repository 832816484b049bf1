//! Where the bus is, who asks there, and how streams are kept.

use std::fmt;
use std::path::PathBuf;

/// Where the bus is and how it is used.
#[derive(Clone, Default)]
pub struct BusConfig {
    /// The servers, separated by commas, for example `nats://127.0.0.1:4222`; `tls://` encrypts.
    pub url: String,
    /// What this connection is called in the server's monitoring, for example "caption".
    pub name: String,
    /// Who asks.
    pub login: Login,
    /// Certificates (PEM) of who signed the server's, beside those that the machine trusts.
    pub ca_file: Option<PathBuf>,
    /// This client's certificate and its key (PEM), where the server asks for one.
    pub client_certificate: Option<(PathBuf, PathBuf)>,
    /// On how many servers each stream is kept that is made from now on: 1, 3 or 5; 0 is 1.
    pub replicas: usize,
}

/// How a client says who it is.
#[derive(Clone, Default, PartialEq, Eq)]
pub enum Login {
    /// It does not, or by a user and a password in the address.
    #[default]
    None,
    /// A token.
    Token(String),
    /// The seed of an nkey ("SU…").
    Nkey(String),
    /// The content of a credentials file, as `nsc` writes it.
    Credentials(String),
}

impl Login {
    /// The token, if it is one.
    pub fn token(&self) -> Option<&str> {
        match self {
            Self::Token(token) => Some(token),
            _ => None,
        }
    }
}

impl From<Option<String>> for Login {
    fn from(token: Option<String>) -> Self {
        token.map_or(Self::None, Self::Token)
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "None",
            Self::Token(_) => "Token",
            Self::Nkey(_) => "Nkey",
            Self::Credentials(_) => "Credentials",
        })
    }
}

impl fmt::Debug for BusConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("BusConfig")
            .field("url", &self.safe_url())
            .field("name", &self.name)
            .field("login", &self.login)
            .field("replicas", &self.replicas)
            .finish_non_exhaustive()
    }
}

impl BusConfig {
    /// The addresses without credentials.
    pub(crate) fn safe_url(&self) -> String {
        let safe = |url: &str| match (url.split_once("://"), url.rsplit_once('@')) {
            (Some((scheme, _)), Some((_, host))) => format!("{scheme}://{host}"),
            _ => url.to_owned(),
        };
        let safe: Vec<String> = self.url.split(',').map(safe).collect();
        safe.join(",")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_secret_is_shown() {
        let config = BusConfig {
            url: "nats://me:secret@a:1,nats://b:2".to_owned(),
            name: "caption".to_owned(),
            login: Login::Nkey("secret".to_owned()),
            ..BusConfig::default()
        };
        let shown = format!("{config:?}");
        assert!(!shown.contains("secret"), "{shown}");
        assert!(shown.contains("nats://a:1,nats://b:2"), "{shown}");
    }
}
