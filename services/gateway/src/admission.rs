//! Who is let in: one decision for every skin of the API.
//!
//! A key is one that the server was started with, or one of the catalog. Keys of the catalog may be revoked at any moment: the
//! gateway follows the catalog and tells whoever still talks with such a key.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::HeaderMap;
use sightline_catalog::{Catalog, Versioned};
use sightline_proto::internal::KeyRecord;
use sightline_proto::reasons::{ApiError, Reason};
use sightline_service::{Shutdown, chain};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::auth::{self, ACCESS_TOKEN, ApiKeys, Caller};
use crate::server::Peer;

/// Keys that the view does not have are looked for on the bus this often a second at most, by this gateway: whoever guesses keys
/// must not keep the bus busy. A key that another gateway made a moment ago may then be refused for the milliseconds by which
/// the view trails.
const LOOKUPS_PER_SECOND: u32 = 20;
/// How long a revocation may wait for those that come with it: the catalog changes all the time, and mostly not its keys.
const SWEEP_PAUSE: Duration = Duration::from_millis(200);

/// Decides who may call.
pub(crate) struct Admission {
    keys: ApiKeys,
    operator: Caller,
    allow_plain_keys: bool,
    catalog: Catalog,
    /// What tells those who talk with a key that it is revoked: one for each key of the catalog that was used here, so there are
    /// never more than keys, however many streams are open.
    revocations: Mutex<HashMap<String, CancellationToken>>,
    lookups: Mutex<Lookups>,
}

impl Admission {
    pub(crate) fn new(keys: ApiKeys, allow_plain_keys: bool, catalog: Catalog) -> Self {
        Self {
            keys,
            operator: Caller::operator(),
            allow_plain_keys,
            catalog,
            revocations: Mutex::default(),
            lookups: Mutex::new(Lookups {
                since: Instant::now(),
                made: 0,
            }),
        }
    }

    /// Whose request with these headers is that came this way.
    pub(crate) async fn admit(
        &self,
        headers: &HeaderMap,
        peer: Option<&Peer>,
    ) -> Result<Caller, ApiError> {
        let key = auth::presented(headers).ok_or_else(|| {
            let how =
                format!("send it as metadata {ACCESS_TOKEN}: KEY or authorization: Bearer KEY");
            let message = format!("this call needs an API key; {how}");
            ApiError::new(Reason::Unauthenticated, message)
        })?;
        // Before the key is looked at: an answer that depends on it would tell a listener which keys are worth something.
        if !self.allow_plain_keys && !peer.is_some_and(is_private) {
            return Err(insecure());
        }
        if self.keys.knows(key) {
            return Ok(self.operator.clone());
        }
        let Some(id) = auth::id_of(key) else {
            return Err(unknown());
        };
        let record = self.record(&id).await?.ok_or_else(unknown)?;
        let of = record.value.key.as_ref().ok_or_else(unknown)?;
        if !auth::matches(key, &record.value.secret_sha256) {
            return Err(unknown());
        }
        let revoked = self.revocation(&id).ok_or_else(unknown)?;
        Ok(Caller {
            tenant: of.tenant.as_str().into(),
            operator: of.operator,
            key_id: id.into(),
            revoked,
        })
    }

    /// What is cancelled when this key is revoked; none if it already was. The empty id stands for the keys that the server was
    /// started with, which never are.
    pub(crate) fn revocation(&self, key_id: &str) -> Option<CancellationToken> {
        if key_id.is_empty() {
            return Some(self.operator.revoked.clone());
        }
        let mut revocations = self.revocations();
        // Under the lock: a revocation is either seen here, or comes later and finds the token.
        self.catalog.get::<KeyRecord>(key_id)?;
        let token = revocations.entry(key_id.to_owned()).or_default();
        Some(token.clone())
    }

    /// Tells those who talk with a key when it is revoked, until shutdown.
    pub(crate) async fn follow(&self, shutdown: &Shutdown) {
        let mut changes = self.catalog.changes();
        loop {
            self.sweep();
            let next = async {
                tokio::time::sleep(SWEEP_PAUSE).await;
                changes.changed().await
            };
            tokio::select! {
                // The catalog outlives this: it holds one.
                _ = next => {}
                () = shutdown.cancelled() => return,
            }
        }
    }

    fn sweep(&self) {
        self.revocations().retain(|id, token| {
            let kept = self.catalog.get::<KeyRecord>(id).is_some();
            if !kept {
                token.cancel();
                tracing::info!(key = %id, "an API key was revoked");
            }
            kept
        });
    }

    async fn record(&self, id: &str) -> Result<Option<Versioned<KeyRecord>>, ApiError> {
        let found = self.catalog.get::<KeyRecord>(id);
        if found.is_some() || !self.lookups().take(Instant::now()) {
            return Ok(found);
        }
        // What is found goes into the view, unless the view knows already that it was deleted since.
        if let Err(error) = self.catalog.fetch::<KeyRecord>(id).await {
            tracing::warn!(error = chain(&error), "a key could not be looked up");
            let message = "the catalog does not answer; try again shortly";
            return Err(ApiError::new(Reason::Unavailable, message));
        }
        Ok(self.catalog.get::<KeyRecord>(id))
    }

    fn revocations(&self) -> MutexGuard<'_, HashMap<String, CancellationToken>> {
        self.revocations
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }

    fn lookups(&self) -> MutexGuard<'_, Lookups> {
        self.lookups.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Look-ups made within the second that began at `since`.
struct Lookups {
    since: Instant,
    made: u32,
}

impl Lookups {
    /// Whether one more may be made.
    fn take(&mut self, now: Instant) -> bool {
        if now.duration_since(self.since) >= Duration::from_secs(1) {
            *self = Self {
                since: now,
                made: 0,
            };
        }
        self.made += 1;
        self.made <= LOOKUPS_PER_SECOND
    }
}

/// Whether nobody on the way can read what is sent.
fn is_private(peer: &Peer) -> bool {
    peer.encrypted || peer.address.ip().to_canonical().is_loopback()
}

fn insecure() -> ApiError {
    let message = "API keys are not taken over a connection without TLS from another machine, where others can read them: \
                   start the server with --tls-cert and --tls-key, or, behind a proxy that ends TLS, with --allow-plain-keys";
    ApiError::new(Reason::InsecureConnection, message)
}

/// The same for every key that is none, so that an answer tells nothing about others.
fn unknown() -> ApiError {
    let message = "this API key is not known here; use the one that the server was started with (SIGHTLINE_API_KEY), that it \
                   printed when it started, or one that was created and not revoked";
    ApiError::new(Reason::Unauthenticated, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_connections_are_private_from_this_machine_alone() {
        for (address, plain) in [
            ("127.0.0.1:1", true),
            ("127.8.9.10:1", true),
            ("[::1]:1", true),
            ("[::ffff:127.0.0.1]:1", true),
            ("192.168.0.7:1", false),
            ("10.0.0.1:1", false),
            ("[fe80::1]:1", false),
            ("[::ffff:192.168.0.7]:1", false),
        ] {
            let address = address.parse().expect("an address");
            for (encrypted, expected) in [(false, plain), (true, true)] {
                let peer = Peer { address, encrypted };
                assert_eq!(is_private(&peer), expected, "{peer:?}");
            }
        }
    }

    #[test]
    fn lookups_are_so_many_a_second() {
        let start = Instant::now();
        let mut lookups = Lookups {
            since: start,
            made: 0,
        };
        let mut made = |at_ms: u64| {
            let now = start + Duration::from_millis(at_ms);
            (0..100).filter(|_| lookups.take(now)).count()
        };
        assert_eq!([made(0), made(999), made(1000)], [20, 0, 20]);
    }
}
