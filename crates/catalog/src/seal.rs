//! Sealing secrets, so that they can be stored: ChaCha20-Poly1305 with a key that lies in a file.
//!
//! A sealed secret is a version byte, a random nonce and the encrypted text with its tag. The version is authenticated too.

use std::fmt;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, Generate, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, KeyInit, Nonce};
use ring::hmac;
use thiserror::Error;

/// How the rest is laid out, for later releases.
const VERSION: u8 = 1;
const NONCE_BYTES: usize = 12;
const TAG_BYTES: usize = 16;
/// A key file is a line of 44 characters; more than this is something else.
const MAX_FILE_BYTES: u64 = 256;

/// Why something could not be sealed or opened.
#[derive(Debug, Error)]
pub enum SealError {
    /// The key file could not be read or made.
    #[error("the key file {path} could not be {action}")]
    File {
        /// Where it is.
        path: PathBuf,
        /// What was tried: "read", "made".
        action: &'static str,
        /// Why.
        source: io::Error,
    },
    /// The key file holds something else.
    #[error(
        "the key file {path} holds no key (one line of base64 with 32 bytes): restore it from a backup, because a new key \
         does not open what the old one sealed"
    )]
    NoKey {
        /// Where it is.
        path: PathBuf,
    },
    /// Not something that was sealed.
    #[error("this is no sealed secret, or one of a later release")]
    Malformed,
    /// Sealed with another key, or changed since.
    #[error("the sealed secret does not open: it was sealed with another key file, or was changed")]
    WrongKey,
}

/// The platform's key. Clones share it.
#[derive(Clone)]
pub struct SealKey(Arc<Keys>);

struct Keys {
    seal: ChaCha20Poly1305,
    derive: hmac::Key,
}

impl fmt::Debug for SealKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SealKey(…)")
    }
}

impl SealKey {
    /// Reads the key from its file, or makes one that its owner alone may read. Of several processes that make it at the
    /// same time one wins, and all get its key. Blocks on the file system.
    ///
    /// # Errors
    /// When the file can't be read or made, or holds something else.
    pub fn load_or_create(path: &Path) -> Result<Self, SealError> {
        if let Some(key) = load(path)? {
            return Ok(key);
        }
        create(path).map_err(|source| file_error("made", path, source))?;
        let gone = || file_error("read", path, io::ErrorKind::NotFound.into());
        load(path)?.ok_or_else(gone)
    }

    /// A key of its own for another purpose: the same for the same file, and no way back from it.
    pub fn derive(&self, purpose: &str) -> [u8; 32] {
        let tag = hmac::sign(&self.0.derive, purpose.as_bytes());
        tag.as_ref().try_into().expect("HMAC-SHA256 has 32 bytes")
    }

    /// Seals a secret; twice the same secret never looks the same.
    pub fn seal(&self, secret: &str) -> Vec<u8> {
        let nonce = Nonce::generate();
        let payload = Payload {
            msg: secret.as_bytes(),
            aad: &[VERSION],
        };
        let encrypted = self
            .0
            .seal
            .encrypt(&nonce, payload)
            .expect("only texts of hundreds of gigabytes are refused");
        [&[VERSION], nonce.as_slice(), &encrypted].concat()
    }

    /// Opens what `seal` returned.
    ///
    /// # Errors
    /// When it was sealed with another key or was changed.
    pub fn open(&self, sealed: &[u8]) -> Result<String, SealError> {
        let (&version, rest) = sealed.split_first().ok_or(SealError::Malformed)?;
        if version != VERSION || rest.len() < NONCE_BYTES + TAG_BYTES {
            return Err(SealError::Malformed);
        }
        let (nonce, encrypted) = rest.split_at(NONCE_BYTES);
        let nonce = Nonce::try_from(nonce).map_err(|_| SealError::Malformed)?;
        let payload = Payload {
            msg: encrypted,
            aad: &[version],
        };
        let opened = self.0.seal.decrypt(&nonce, payload);
        let opened = opened.map_err(|_| SealError::WrongKey)?;
        String::from_utf8(opened).map_err(|_| SealError::WrongKey)
    }
}

/// The key in the file; none if there is no file.
fn load(path: &Path) -> Result<Option<SealKey>, SealError> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(source) => return Err(file_error("read", path, source)),
    };
    let no_key = || SealError::NoKey {
        path: path.to_owned(),
    };
    if !metadata.is_file() || metadata.len() > MAX_FILE_BYTES {
        return Err(no_key());
    }
    if metadata.permissions().mode() & 0o077 != 0 {
        tracing::warn!(path = %path.display(), "the key file can be read by others than its owner: chmod 600");
    }
    let text = fs::read(path).map_err(|source| file_error("read", path, source))?;
    let bytes = STANDARD.decode(text.trim_ascii()).map_err(|_| no_key())?;
    let key = Key::try_from(bytes.as_slice()).map_err(|_| no_key())?;
    Ok(Some(SealKey(Arc::new(Keys {
        seal: ChaCha20Poly1305::new(&key),
        derive: hmac::Key::new(hmac::HMAC_SHA256, &key),
    }))))
}

/// Makes the key file, whole or not at all, unless there is one. A process killed in between leaves a file of another name.
fn create(path: &Path) -> io::Result<()> {
    let dir = match path.parent() {
        Some(dir) if !dir.as_os_str().is_empty() => dir,
        _ => Path::new("."),
    };
    fs::create_dir_all(dir)?;
    let draft = dir.join(format!(".seal-key-{}", uuid::Uuid::new_v4().simple()));
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(&draft)?;
    let written = (|| {
        let key = STANDARD.encode(Key::generate());
        file.write_all(format!("{key}\n").as_bytes())?;
        file.sync_all()?;
        match fs::hard_link(&draft, path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
            linked => linked,
        }
    })();
    fs::remove_file(&draft)?;
    written?;
    fs::File::open(dir)?.sync_all()
}

fn file_error(action: &'static str, path: &Path, source: io::Error) -> SealError {
    SealError::File {
        path: path.to_owned(),
        action,
        source,
    }
}
