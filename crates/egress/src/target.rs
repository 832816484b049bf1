//! A URL to post to, parsed once.

use std::net::IpAddr;

use http::Uri;
use url::{Host, Url};

use crate::EgressError;

/// The longest URL taken.
/// Of the URLs that users name.
const MAX_LENGTH: usize = 2048;

/// A URL in the canonical spelling of the WHATWG URL standard: odd spellings of an address (decimal, octal, hexadecimal,
/// short, full-width, with a trailing dot) have become the address that every other program reads them as.
#[derive(Debug)]
pub(crate) struct Target {
    /// What the HTTP client is given.
    pub(crate) uri: Uri,
    /// The address, if the host is one and not a name.
    pub(crate) literal: Option<IpAddr>,
}

impl Target {
    /// The URL itself is in no error: its path and query may hold a secret.
    pub(crate) fn parse(text: &str) -> Result<Self, EgressError> {
        let bad = |reason: &str| EgressError::Url {
            reason: reason.to_owned(),
        };
        if text.len() > MAX_LENGTH {
            return Err(bad("it is longer than 2048 characters"));
        }
        Self::parse_long(text)
    }

    /// The same for one of any length: signed links to stores, which servers of the operator send us on to.
    pub(crate) fn parse_long(text: &str) -> Result<Self, EgressError> {
        let bad = |reason: &str| EgressError::Url {
            reason: reason.to_owned(),
        };
        // The standard drops tabs and line breaks silently; here they only ever hide something.
        if text.chars().any(|c| c.is_control() || c.is_whitespace()) {
            return Err(bad("it contains white space or control characters"));
        }
        let mut url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
        if !matches!(url.scheme(), "http" | "https") {
            return Err(bad("it must begin with http:// or https://"));
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err(bad("it must not contain a user name or password"));
        }
        if url.port() == Some(0) {
            return Err(bad("port 0 cannot be connected to"));
        }
        url.set_fragment(None);
        let literal = match url.host() {
            Some(Host::Ipv4(address)) => Some(IpAddr::V4(address)),
            Some(Host::Ipv6(address)) => Some(IpAddr::V6(address)),
            Some(Host::Domain(_)) => None,
            None => return Err(bad("it has no host")),
        };
        let uri = url.as_str().parse();
        let uri = uri.map_err(|error: http::uri::InvalidUri| bad(&error.to_string()))?;
        Ok(Self { uri, literal })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::Policy;

    /// `expected`: "ok", "refused", or a part of the reason why the URL is not usable.
    fn check(url: &str, expected: &str) {
        let found = match Policy::default().check_url(url) {
            Ok(()) => "ok".to_owned(),
            Err(EgressError::Refused(_)) => "refused".to_owned(),
            Err(error) => error.to_string(),
        };
        assert!(found.contains(expected), "{url}: {found}");
    }

    #[test]
    fn names_and_public_addresses_pass_until_they_are_connected_to() {
        for url in [
            "http://example.com/hook",
            "https://example.com:8443/hook?token=a|b{c}\"d^e%20f#fragment",
            "HTTPS://EXAMPLE.com.",
            "https://bücher.example/ü",
            "http://8.8.8.8/",
            "http://[2606:4700::1111]:81/x",
            "http://localhost/decided-when-it-is-resolved",
        ] {
            check(url, "ok");
        }
    }

    #[test]
    fn every_spelling_of_a_refused_address_is_refused() {
        for host in [
            "127.0.0.1",
            "127.0.0.1.",
            "127.1",
            "127.0.1",
            "2130706433",
            "0x7f000001",
            "0x7f.1",
            "0x7F.0x0.0x0.0x1",
            "0177.0.0.1",
            "017700000001",
            "127.0.0.0x1",
            "127%2e0%2E0%2e1",
            "127。0。0。1",
            "127.0.0.1",
            "①②⑦.0.0.1",
            "0",
            "0.0.0.0",
            "169.254.169.254",
            "0xa9fea9fe",
            "10.0.0.1",
            "[::1]",
            "[::]",
            "[0:0:0:0:0:0:0:1]",
            "[::ffff:127.0.0.1]",
            "[::ffff:7f00:1]",
            "[::127.0.0.1]",
            "[64:ff9b::7f00:1]",
            "[2002:7f00:1::]",
            "[fe80::1]",
            "[fd00:ec2::254]",
        ] {
            check(&format!("http://{host}/"), "refused");
            check(&format!("https://{host}:8080/x?y"), "refused");
        }
        // What stands before a backslash is the host, as browsers read it.
        check("http://127.0.0.1\\.example.com/", "refused");
    }

    #[test]
    fn urls_that_mislead_or_are_not_http_are_not_usable() {
        check("", "relative URL");
        check("example.com/hook", "relative URL");
        check("ftp://example.com/", "http://");
        check("file:///etc/passwd", "http://");
        check("gopher://127.0.0.1/", "http://");
        check("http://", "empty host");
        check("http://user@example.com/", "user name");
        check("http://example.com:secret@127.0.0.1/", "user name");
        check("http://exam\nple.com/", "white space");
        check("http://127.0.0.1\t.example.com/", "white space");
        check(" http://example.com/", "white space");
        check("http://example.com\u{0}/", "white space");
        check("http://[fe80::1%25eth0]/", "IPv6");
        check("http://[fe80::1%eth0]/", "IPv6");
        check("http://[::1/", "IPv6");
        check("http://256.256.256.256/", "IPv4");
        check("http://1.2.3.4.5/", "IPv4");
        check("http://0x100000000/", "IPv4");
        check("http://exa mple.com/", "white space");
        check("http://exa<mple.com/", "domain");
        check("http://example.com:99999/", "port");
        check("http://example.com:0/", "port 0");
        check(&format!("http://example.com/{}", "a".repeat(2048)), "2048");
    }
}
