//! What callers show to be let in, and what is sealed in the catalog.

use std::path::Path;
use std::sync::OnceLock;

use http::{HeaderMap, HeaderValue, header};

use self::auth::{ACCESS_TOKEN, ApiKeys};
use self::ticket::Tickets;
use crate::seal::SealKey;

#[path = "../../services/gateway/src/auth.rs"]
mod auth;
#[path = "../../services/gateway/src/websocket/ticket.rs"]
mod ticket;

fn key() -> &'static SealKey {
    static KEY: OnceLock<SealKey> = OnceLock::new();
    KEY.get_or_init(|| {
        let file = std::env::temp_dir().join(format!("sightline-fuzz-{}.key", std::process::id()));
        let key = SealKey::load_or_create(&file).expect("a key");
        std::fs::remove_file(&file).expect("removed");
        key
    })
}

/// A key, the ticket of a WebSocket, a header with a key in it, a sealed secret: what was not made here opens nothing.
pub fn secrets(data: &[u8]) {
    assert!(key().open(data).is_err());
    let text = String::from_utf8_lossy(data);
    if let Some(id) = auth::id_of(&text) {
        assert!(id.len() == 40 && text.len() == 79, "{id}");
    }
    let tickets = Tickets::new(key());
    assert!(tickets.check(&text, 0).is_err());
    assert!(!ApiKeys::new(["sl-a-key"]).knows(&text) || text == "sl-a-key");
    for name in [ACCESS_TOKEN, header::AUTHORIZATION.as_str()] {
        let Ok(value) = HeaderValue::from_bytes(data) else {
            continue;
        };
        let mut headers = HeaderMap::new();
        headers.insert(name.parse::<http::HeaderName>().expect("a name"), value);
        assert!(auth::presented(&headers).is_none_or(|shown| text.contains(shown)));
    }
    made_here(&text, &tickets);
}

/// What was made here opens, unless anything of it is changed.
fn made_here(text: &str, tickets: &Tickets) {
    let mut sealed = key().seal(text);
    assert_eq!(key().open(&sealed).expect("sealed here"), text);
    let at = text.len() % sealed.len();
    sealed[at] ^= 1;
    assert!(key().open(&sealed).is_err());
    let tenant: String = text.chars().take(60).collect();
    let issued = tickets.issue(&tenant, "key-1", "default", 0).expect("JSON");
    // Longer ones than an address takes are not read.
    if let Ok(ticket) = tickets.check(&issued, 1) {
        assert_eq!(ticket.tenant, tenant);
    } else {
        assert!(issued.len() > 1024);
    }
}
