//! Tickets: what the address of a WebSocket holds instead of a key, because addresses end in logs. Signed, for one caller and
//! one collection, and good for five minutes: long enough to connect, too short to be worth stealing.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::hmac;
use serde::{Deserialize, Serialize};
use sightline_catalog::seal::SealKey;

/// Tells this use of the platform's key from others.
const PURPOSE: &str = "websocket tickets";
/// How long a ticket opens a connection.
const LIFETIME_US: i64 = 5 * 60 * 1_000_000;
/// Longer texts are no tickets.
const MAX_LENGTH: usize = 1024;

/// Whom a connection is for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct Ticket {
    pub(super) tenant: String,
    /// The key that asked for it; empty for one that the server was started with.
    pub(super) key_id: String,
    pub(super) collection: String,
    expires_us: i64,
}

/// Why a ticket opens nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Refused {
    Invalid,
    Expired,
}

/// Signs and checks tickets: every gateway of a platform has the same key.
pub(super) struct Tickets(hmac::Key);

impl Tickets {
    pub(super) fn new(seal: &SealKey) -> Self {
        Self(hmac::Key::new(hmac::HMAC_SHA256, &seal.derive(PURPOSE)))
    }

    /// A ticket, as it stands in an address.
    pub(super) fn issue(
        &self,
        tenant: &str,
        key_id: &str,
        collection: &str,
        now_us: i64,
    ) -> serde_json::Result<String> {
        let ticket = Ticket {
            tenant: tenant.to_owned(),
            key_id: key_id.to_owned(),
            collection: collection.to_owned(),
            expires_us: now_us.saturating_add(LIFETIME_US),
        };
        let said = serde_json::to_vec(&ticket)?;
        let tag = hmac::sign(&self.0, &said);
        let (said, tag) = (URL_SAFE_NO_PAD.encode(said), URL_SAFE_NO_PAD.encode(tag));
        Ok(format!("{said}.{tag}"))
    }

    /// The ticket in an address, if it was issued here and still holds.
    pub(super) fn check(&self, text: &str, now_us: i64) -> Result<Ticket, Refused> {
        if text.len() > MAX_LENGTH {
            return Err(Refused::Invalid);
        }
        let (said, tag) = text.split_once('.').ok_or(Refused::Invalid)?;
        let decode = |part| URL_SAFE_NO_PAD.decode(part).map_err(|_| Refused::Invalid);
        let (said, tag) = (decode(said)?, decode(tag)?);
        hmac::verify(&self.0, &said, &tag).map_err(|_| Refused::Invalid)?;
        let ticket: Ticket = serde_json::from_slice(&said).map_err(|_| Refused::Invalid)?;
        if now_us >= ticket.expires_us {
            return Err(Refused::Expired);
        }
        Ok(ticket)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tickets() -> Tickets {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let seal = SealKey::load_or_create(&dir.path().join("seal.key")).expect("a key");
        Tickets::new(&seal)
    }

    #[test]
    fn a_ticket_holds_for_five_minutes_and_with_its_own_key_alone() {
        let tickets = tickets();
        let text = tickets.issue("acme", "key-1", "default", 0).expect("JSON");
        let ticket = tickets.check(&text, LIFETIME_US - 1).expect("holds");
        assert_eq!(
            (&*ticket.tenant, &*ticket.key_id, &*ticket.collection),
            ("acme", "key-1", "default")
        );
        assert_eq!(tickets.check(&text, LIFETIME_US), Err(Refused::Expired));
        let other = super::tests::tickets();
        assert_eq!(other.check(&text, 0), Err(Refused::Invalid));
    }

    #[test]
    fn what_was_changed_is_no_ticket() {
        let tickets = tickets();
        let text = tickets.issue("acme", "", "default", 0).expect("JSON");
        let (said, tag) = text.split_once('.').expect("two parts");
        let forged = br#"{"tenant":"b","key_id":"","collection":"default","expires_us":9}"#;
        let forged = URL_SAFE_NO_PAD.encode(forged);
        for changed in [
            "",
            ".",
            said,
            &format!("{said}."),
            &format!("{forged}.{tag}"),
            &format!("{said}.{tag}&connection_id=ws-1"),
            &text.repeat(20),
        ] {
            assert_eq!(
                tickets.check(changed, 0),
                Err(Refused::Invalid),
                "{changed}"
            );
        }
    }

    #[test]
    fn what_fuzzing_found_is_no_ticket() {
        let tickets = tickets();
        let corpus = sightline_testkit::repository().join("fuzz/corpus/secrets");
        // Written by hand: a ticket of another key.
        assert!(corpus.join("ticket").exists());
        for input in std::fs::read_dir(corpus).expect("a corpus") {
            let input = std::fs::read(input.expect("a file").path()).expect("read");
            let text = String::from_utf8_lossy(&input);
            assert!(tickets.check(&text, 0).is_err(), "{text}");
        }
    }
}
