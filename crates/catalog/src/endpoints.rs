//! Endpoints: the receivers of webhooks, each with a secret that whoever needs it first makes.

use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::Key;
use chacha20poly1305::aead::Generate;
use sightline_proto::ids;
use sightline_proto::internal::EndpointRecord;

use crate::seal::{SealError, SealKey};
use crate::{Catalog, CatalogError, entry};

/// For how long the secret before a rotation signs too: receivers have a day to learn the new one.
pub const OVERLAP_US: i64 = 24 * 3600 * 1_000_000;

/// What secrets begin with (Standard Webhooks 1.0).
const PREFIX: &str = "whsec_";
const SECRET_BYTES: usize = 24;

/// The endpoint of a tenant's URL with its id, made if there is none. Of several that make it at the same time one wins, and
/// all get its secret.
///
/// # Errors
/// When the server has to be asked and does not answer.
pub async fn ensure(
    catalog: &Catalog,
    seal: &SealKey,
    tenant: &str,
    url: &str,
    now_us: i64,
) -> Result<(String, Arc<EndpointRecord>), CatalogError> {
    let id = ids::endpoint_id(tenant, url);
    if let Some(found) = catalog.get::<EndpointRecord>(&id) {
        return Ok((id, found.value));
    }
    let record = EndpointRecord {
        tenant: tenant.to_owned(),
        url: url.to_owned(),
        sealed_secret: new_secret(seal),
        created_us: now_us,
        ..EndpointRecord::default()
    };
    match catalog.create(&id, &record).await {
        Ok(_) => return Ok((id, Arc::new(record))),
        Err(CatalogError::Exists { .. }) => {}
        Err(error) => return Err(error),
    }
    let found = catalog.fetch::<EndpointRecord>(&id).await?;
    let found = found.ok_or_else(|| CatalogError::Missing {
        key: entry::key::<EndpointRecord>(&id),
    })?;
    Ok((id, found.value))
}

/// Gives the endpoint a new secret, and lets the one before sign too for [`OVERLAP_US`]. False, and nothing changes, while one
/// before still does: who repeats a rotation whose answer got lost takes no secret away.
pub fn rotate(record: &mut EndpointRecord, seal: &SealKey, now_us: i64) -> bool {
    if now_us < record.old_expires_us {
        return false;
    }
    record.sealed_old_secret = std::mem::replace(&mut record.sealed_secret, new_secret(seal));
    record.old_expires_us = now_us.saturating_add(OVERLAP_US);
    true
}

/// The secret, "whsec_" and base64.
///
/// # Errors
/// When it was sealed with another key.
pub fn secret(record: &EndpointRecord, seal: &SealKey) -> Result<String, SealError> {
    seal.open(&record.sealed_secret)
}

/// The keys to sign with, the newest first: that of the secret, and until it expires that of the one before.
///
/// # Errors
/// When they were sealed with another key.
pub fn signing_keys(
    record: &EndpointRecord,
    seal: &SealKey,
    now_us: i64,
) -> Result<Vec<Vec<u8>>, SealError> {
    let mut sealed = vec![&record.sealed_secret];
    if now_us < record.old_expires_us {
        sealed.push(&record.sealed_old_secret);
    }
    let key = |sealed: &[u8]| {
        let secret = seal.open(sealed)?;
        let encoded = secret.strip_prefix(PREFIX).ok_or(SealError::Malformed)?;
        STANDARD.decode(encoded).map_err(|_| SealError::Malformed)
    };
    sealed.into_iter().map(|sealed| key(sealed)).collect()
}

/// A new secret, sealed.
fn new_secret(seal: &SealKey) -> prost::bytes::Bytes {
    let random = Key::generate();
    let encoded = STANDARD.encode(&random[..SECRET_BYTES]);
    seal.seal(&format!("{PREFIX}{encoded}")).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_old_secret_signs_for_a_day_and_no_rotation_takes_it_away() {
        let dir = tempfile::tempdir().expect("a folder");
        let seal = SealKey::load_or_create(&dir.path().join("seal.key")).expect("a key");
        let mut record = EndpointRecord {
            sealed_secret: new_secret(&seal),
            ..EndpointRecord::default()
        };
        let keys = |record: &EndpointRecord, now_us| {
            signing_keys(record, &seal, now_us).expect("sealed with this key")
        };
        let first = keys(&record, 5);
        assert_eq!((first.len(), first[0].len()), (1, SECRET_BYTES));
        let shown = secret(&record, &seal).expect("sealed with this key");
        assert_eq!(shown, format!("whsec_{}", STANDARD.encode(&first[0])));

        assert!(rotate(&mut record, &seal, 5));
        let both = keys(&record, 5 + OVERLAP_US - 1);
        assert_eq!((both.len(), &both[1]), (2, &first[0]));
        assert_ne!(both[0], both[1]);
        assert!(!rotate(&mut record, &seal, 5 + OVERLAP_US - 1));
        assert_eq!(keys(&record, 6), both, "a repetition changes nothing");
        assert_eq!(keys(&record, 5 + OVERLAP_US), both[..1]);
        assert!(rotate(&mut record, &seal, 5 + OVERLAP_US));
        assert_eq!(keys(&record, 5 + OVERLAP_US)[1], both[0]);
    }
}
