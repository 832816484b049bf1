//! Keys: who may call. For operators alone.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::{SecureRandom, SystemRandom};
use sha2::{Digest, Sha256};
use sightline_proto::ids::{self, Kind};
use sightline_proto::internal::KeyRecord;
use sightline_proto::reasons::{ApiError, Reason};
use sightline_proto::time::timestamp;
use sightline_proto::v1::{self, Key};

use super::paging::Position;
use super::violations::{Violations, shown};
use super::{Session, catalog_failed};

const MAX_NAME: usize = 200;
const MAX_TENANT: usize = 64;
const RANDOM_BYTES: usize = 32;

impl Session {
    /// Creates a key. Its secret is in the response and nowhere else.
    pub(crate) async fn create_key(
        &self,
        request: v1::CreateKeyRequest,
    ) -> Result<v1::CreateKeyResponse, ApiError> {
        self.operators_alone("keys")?;
        let mut faults = Violations::default();
        faults.text("name", &request.name, 1, MAX_NAME);
        check_tenant(&mut faults, &request.tenant);
        faults.into_result()?;
        let id = ids::new_id(Kind::Key);
        let secret = new_secret(&id)?;
        let key = Key {
            tenant: if request.tenant.is_empty() {
                id.clone()
            } else {
                request.tenant
            },
            id: id.clone(),
            name: request.name,
            operator: request.operator,
            create_time: Some(timestamp(self.clock.now_us())),
        };
        let record = KeyRecord {
            key: Some(key.clone()),
            secret_sha256: Sha256::digest(&secret).to_vec().into(),
        };
        let created = self.catalog.create(&id, &record).await;
        created.map_err(catalog_failed)?;
        let key = Some(key);
        Ok(v1::CreateKeyResponse { key, secret })
    }

    /// Keys, oldest first.
    pub(crate) fn list_keys(
        &self,
        request: &v1::ListKeysRequest,
    ) -> Result<v1::ListKeysResponse, ApiError> {
        self.operators_alone("keys")?;
        let mut faults = Violations::default();
        let size = faults.page_size(request.page_size);
        faults.into_result()?;
        let keys = self.all::<KeyRecord>();
        let keys = keys.filter_map(|record| record.key.clone());
        let pages = self.pages("ListKeys", &());
        let (keys, next_page_token) = pages.cut(keys, &request.page_token, size, false, |key| {
            Position::of_id(&key.id)
        })?;
        Ok(v1::ListKeysResponse {
            keys,
            next_page_token,
        })
    }

    /// Revokes a key: gateways follow the catalog and end what it has open.
    pub(crate) async fn revoke_key(&self, id: &str) -> Result<(), ApiError> {
        self.operators_alone("keys")?;
        self.find::<KeyRecord>("key_id", id).await?;
        let removed = self.remove::<KeyRecord>(id).await;
        removed.map_err(catalog_failed)
    }

    /// Refuses those who are no operators what is for operators.
    pub(super) fn operators_alone(&self, what: &str) -> Result<(), ApiError> {
        if self.caller.operator {
            return Ok(());
        }
        let message = format!(
            "{what} are for operators: use the key that the server was started with, or one that was created as an operator's"
        );
        Err(ApiError::new(Reason::PermissionDenied, message))
    }
}

/// Tenants are part of keys of the catalog and of names of collections.
fn check_tenant(faults: &mut Violations, tenant: &str) {
    let plain = |c: u8| c.is_ascii_alphanumeric() || c == b'-' || c == b'_';
    if tenant.len() > MAX_TENANT || !tenant.bytes().all(plain) {
        let got = shown(tenant);
        let allowed = format!(
            "1 to {MAX_TENANT} letters, digits, hyphens and underscores, or empty; got {got}"
        );
        faults.add("tenant", allowed);
    }
}

/// `sl_<uuid of the key without hyphens>_<43 characters>`: the id tells the gate which record to compare with.
fn new_secret(id: &str) -> Result<String, ApiError> {
    let uuid = id.trim_start_matches(Kind::Key.prefix()).replace('-', "");
    let mut random = [0; RANDOM_BYTES];
    SystemRandom::new().fill(&mut random).map_err(|error| {
        tracing::error!(%error, "the system gives no random bytes");
        ApiError::new(Reason::Internal, "no secret could be made; try again")
    })?;
    Ok(format!("sl_{uuid}_{}", URL_SAFE_NO_PAD.encode(random)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_name_their_key_and_are_long() {
        let id = "key-01890000-0000-7000-8000-000000000000";
        let secret = new_secret(id).expect("random bytes");
        let rest = secret.strip_prefix("sl_01890000000070008000000000000000_");
        assert_eq!(rest.map(str::len), Some(43), "{secret}");
        assert_ne!(new_secret(id).expect("random bytes"), secret);
    }

    #[test]
    fn tenants_can_be_part_of_names() {
        let long = "x".repeat(65);
        for (tenant, good) in [
            ("", true),
            ("Team-1_b", true),
            (&long[1..], true),
            (&long, false),
            ("a.b", false),
            ("a b", false),
            ("ä", false),
            ("*", false),
        ] {
            let mut faults = Violations::default();
            check_tenant(&mut faults, tenant);
            assert_eq!(faults.into_result().is_ok(), good, "{tenant:?}");
        }
    }
}
