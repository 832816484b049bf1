//! Where nobody may connect to: the table of refused ranges, and the operator's exceptions.

use std::net::IpAddr;
use std::sync::LazyLock;

use ipnet::IpNet;
use thiserror::Error;

use crate::EgressError;
use crate::target::Target;

/// Which addresses may be connected to: every public one, and what the operator allows besides.
#[derive(Debug, Clone, Default)]
pub struct Policy {
    /// Ranges that are allowed although they are in the table of refused ones, for example `192.168.0.0/16`.
    pub allow: Vec<IpNet>,
}

/// An address that may not be connected to.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error(
    "connecting to {address} is not allowed: it is a {what} address; an operator can allow it with --allow-egress {address}"
)]
pub struct Refused {
    /// The address.
    pub address: IpAddr,
    /// What kind of range it is in, for example "loopback".
    pub what: &'static str,
}

impl Policy {
    /// Every address is allowed: for servers that the operator names, never for URLs of users.
    pub fn anywhere() -> Self {
        let all = ["0.0.0.0/0", "::/0"];
        Self {
            allow: all.map(|net| net.parse().expect("a range")).to_vec(),
        }
    }

    /// Decides on an address, as it is about to be connected to.
    ///
    /// # Errors
    /// When the address is in a refused range and in none that the operator allows.
    pub fn check_addr(&self, address: IpAddr) -> Result<(), Refused> {
        if self.allow.iter().any(|net| net.contains(&address)) {
            return Ok(());
        }
        match refused_range(address) {
            Some(what) => Err(Refused { address, what }),
            None => Ok(()),
        }
    }

    /// Early refusal of what can never work: a URL that is not plain http or https, or a literal address that is refused.
    /// A URL that passes may still be refused when its name is resolved: the decision falls when connecting.
    ///
    /// # Errors
    /// When the URL is not usable or its literal address is refused.
    pub fn check_url(&self, url: &str) -> Result<(), EgressError> {
        match Target::parse(url)?.literal {
            Some(address) => Ok(self.check_addr(address)?),
            None => Ok(()),
        }
    }
}

/// The kind of refused range that an address is in.
fn refused_range(address: IpAddr) -> Option<&'static str> {
    static RANGES: LazyLock<Vec<(IpNet, &str)>> = LazyLock::new(|| {
        let parsed = |(net, what): &(&str, &'static str)| (net.parse().expect("a range"), *what);
        REFUSED.iter().map(parsed).collect()
    });
    let mut ranges = RANGES.iter();
    ranges
        .find(|(net, _)| net.contains(&address))
        .map(|(_, what)| *what)
}

/// IANA's special-purpose registries (RFC 6890 and its successors), and ranges that lead back into a private network.
#[rustfmt::skip]
const REFUSED: &[(&str, &str)] = &[
    ("0.0.0.0/8",       "this-network"),
    ("10.0.0.0/8",      "private"),
    ("100.64.0.0/10",   "carrier-grade NAT"),
    ("127.0.0.0/8",     "loopback"),
    // A public address, but inside Azure it is the platform's metadata and agent server.
    ("168.63.129.16/32", "metadata"),
    ("169.254.0.0/16",  "link-local or metadata"),
    ("172.16.0.0/12",   "private"),
    ("192.0.0.0/24",    "protocol assignment"),
    ("192.0.2.0/24",    "documentation"),
    ("192.88.99.0/24",  "6to4 relay"),
    ("192.168.0.0/16",  "private"),
    ("198.18.0.0/15",   "benchmarking"),
    ("198.51.100.0/24", "documentation"),
    ("203.0.113.0/24",  "documentation"),
    ("224.0.0.0/4",     "multicast"),
    ("240.0.0.0/4",     "reserved or broadcast"),
    ("::1/128",         "loopback"),
    ("::/96",           "unspecified or IPv4-compatible"),
    ("::ffff:0:0/96",   "IPv4-mapped"),
    ("64:ff9b::/96",    "IPv4 translation"),
    ("64:ff9b:1::/48",  "IPv4 translation"),
    ("100::/64",        "discard-only"),
    ("2001::/32",       "Teredo"),
    ("2001:db8::/32",   "documentation"),
    ("2002::/16",       "6to4"),
    ("3fff::/20",       "documentation"),
    ("5f00::/16",       "segment routing"),
    ("fc00::/7",        "private"),
    ("fe80::/10",       "link-local"),
    ("fec0::/10",       "site-local"),
    ("ff00::/8",        "multicast"),
];

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("a test's address")
    }

    #[test]
    fn refuses_the_first_and_the_last_address_of_every_range() {
        for (net, what) in REFUSED {
            let net: IpNet = net.parse().expect("a range");
            assert_eq!(net, net.trunc(), "{net} has host bits set");
            for edge in [net.network(), net.broadcast()] {
                let refused = Policy::default().check_addr(edge).expect_err("refused");
                // ::1 is in ::/96 too: the more telling name comes first.
                assert!(
                    refused.what == *what || refused.what == "loopback",
                    "{edge}"
                );
            }
        }
    }

    #[test]
    fn passes_what_lies_just_outside() {
        let public = "1.0.0.0 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.0 168.63.129.15 \
            169.253.255.255 169.255.0.0 172.15.255.255 172.32.0.0 192.0.1.0 192.0.3.0 192.88.98.255 192.167.255.255 \
            192.169.0.0 198.17.255.255 198.20.0.0 198.51.99.255 203.0.112.255 223.255.255.255 8.8.8.8 \
            64:ff9b:2:: 2001:1:: 2001:4860:4860::8888 2003:: 2606:4700::1111 2a00:1450:4001::1 3ffe:: 5eff:: 5f01::";
        for text in public.split_whitespace() {
            assert_eq!(
                Policy::default().check_addr(address(text)),
                Ok(()),
                "{text}"
            );
        }
    }

    #[test]
    fn the_operator_allows_exactly_what_is_named() {
        let check = |allow: &str, to: &str, allowed: bool| {
            let policy = Policy {
                allow: vec![allow.parse().expect("a range")],
            };
            assert_eq!(
                policy.check_addr(address(to)).is_ok(),
                allowed,
                "{allow} {to}"
            );
        };
        check("192.168.7.0/24", "192.168.7.20", true);
        check("192.168.7.0/24", "192.168.8.20", false);
        check("192.168.7.0/24", "127.0.0.1", false);
        check("127.0.0.0/8", "127.0.0.1", true);
        // An IPv4 range does not open its IPv6 disguises.
        check("127.0.0.0/8", "::ffff:127.0.0.1", false);
        check("127.0.0.0/8", "::1", false);
        check("10.0.0.0/8", "64:ff9b::a00:1", false);
        check("::1/128", "::1", true);
    }
}
