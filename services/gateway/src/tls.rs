//! TLS on the public port: a certificate chain and its key from PEM files, read again when the files change.
//!
//! Connections that are open keep the certificate that they began with; new ones get the newest pair that could be read.

use std::fs::Metadata;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use rustls::crypto::CryptoProvider;
use rustls::crypto::ring::default_provider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, ServerConfig};
use sightline_service::{Shutdown, chain};
use thiserror::Error;
use tokio_rustls::TlsAcceptor;

/// How often the files are looked at. A look is two calls of the file system.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A certificate chain and its key, as their files have them. Clones share them.
#[derive(Debug, Clone)]
pub struct Tls(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    files: Files,
    pair: Arc<Pair>,
    config: Arc<ServerConfig>,
    /// The files as they were when they were last read, with or without success.
    read: Mutex<Stamps>,
}

#[derive(Debug, Clone)]
struct Files {
    cert: PathBuf,
    key: PathBuf,
}

/// What tells that a file was changed or replaced; none for one that is not there.
type Stamp = Option<(u64, u64, i64, i64)>;
type Stamps = (Stamp, Stamp);

/// Why there is no TLS with these files.
#[derive(Debug, Error)]
pub enum TlsError {
    /// A file can't be read.
    #[error("cannot read {path}: name an existing file with {option} that this user may read")]
    Read {
        /// The file.
        path: PathBuf,
        /// What named it.
        option: &'static str,
        /// Why.
        source: pem::Error,
    },
    /// There is nothing of use in a file.
    #[error("{path} holds no {what}")]
    Empty {
        /// The file.
        path: PathBuf,
        /// What it has to hold.
        what: &'static str,
    },
    /// Certificate and key are of different pairs.
    #[error(
        "the key in {key} does not belong to the first certificate in {cert}: name the two files of one pair, the server's own certificate before those that signed it"
    )]
    Mismatch {
        /// The certificates.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
    },
    /// The library takes the pair not.
    #[error(
        "TLS cannot be spoken with {cert} and {key}: use an RSA, ECDSA or Ed25519 key and its X.509 certificate"
    )]
    Refused {
        /// The certificates.
        cert: PathBuf,
        /// The key.
        key: PathBuf,
        /// Why.
        source: rustls::Error,
    },
}

impl Tls {
    /// Reads a PEM file with the certificate chain, the server's own certificate first, and one with its key.
    ///
    /// # Errors
    /// When a file can't be read, or they are no pair; the error says what to do.
    pub fn load(cert: &Path, key: &Path) -> Result<Self, TlsError> {
        let files = Files {
            cert: cert.to_owned(),
            key: key.to_owned(),
        };
        // The stamps are taken first: a change while the files are read is seen at the next look.
        let stamps = files.stamps();
        let provider = Arc::new(default_provider());
        let pair = Arc::new(Pair(RwLock::new(Arc::new(files.read(&provider)?))));
        let config =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions();
        let mut config = config
            .expect("ring has TLS 1.2 and 1.3")
            .with_no_client_auth()
            .with_cert_resolver(pair.clone());
        config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self(Arc::new(Inner {
            files,
            pair,
            config: Arc::new(config),
            read: Mutex::new(stamps),
        })))
    }

    pub(crate) fn acceptor(&self) -> TlsAcceptor {
        TlsAcceptor::from(Arc::clone(&self.0.config))
    }

    /// Takes up changes of the files, until shutdown.
    pub(crate) async fn follow(&self, shutdown: &Shutdown) {
        loop {
            tokio::select! {
                () = tokio::time::sleep(LOOK_EVERY) => {}
                () = shutdown.cancelled() => return,
            }
            let tls = self.clone();
            // Both are small files, but the file system may be anybody's.
            let looked = tokio::task::spawn_blocking(move || tls.look()).await;
            match looked {
                Ok(Ok(false)) => {}
                Ok(Ok(true)) => tracing::info!("new connections get the new certificate"),
                Ok(Err(error)) => tracing::warn!(
                    error = chain(&error),
                    "the new certificate cannot be used, the one before stays"
                ),
                Err(error) => tracing::error!(%error, "looking for a new certificate failed"),
            }
        }
    }

    /// Reads the files again if they changed since they were last read; whether there is a new pair. One that can't be used is
    /// an error once, and the pair before stays.
    fn look(&self) -> Result<bool, TlsError> {
        let Inner { files, pair, .. } = &*self.0;
        let stamps = files.stamps();
        let mut read = self.0.read.lock().unwrap_or_else(PoisonError::into_inner);
        if *read == stamps {
            return Ok(false);
        }
        *read = stamps;
        let new = Arc::new(files.read(&default_provider())?);
        *pair.0.write().unwrap_or_else(PoisonError::into_inner) = new;
        Ok(true)
    }
}

impl Files {
    fn stamps(&self) -> Stamps {
        let of = |path: &Path| {
            let meta: Metadata = std::fs::metadata(path).ok()?;
            Some((meta.ino(), meta.len(), meta.mtime(), meta.mtime_nsec()))
        };
        (of(&self.cert), of(&self.key))
    }

    fn read(&self, provider: &CryptoProvider) -> Result<CertifiedKey, TlsError> {
        let Self { cert, key } = self;
        let certs = CertificateDer::pem_file_iter(cert)
            .and_then(Iterator::collect::<Result<Vec<_>, _>>)
            .map_err(|source| unread(cert, "--tls-cert", CERTIFICATE, source))?;
        if certs.is_empty() {
            return Err(unread(
                cert,
                "--tls-cert",
                CERTIFICATE,
                pem::Error::NoItemsFound,
            ));
        }
        let private = PrivateKeyDer::from_pem_file(key)
            .map_err(|source| unread(key, "--tls-key", KEY, source))?;
        CertifiedKey::from_der(certs, private, provider).map_err(|source| {
            let (cert, key) = (cert.clone(), key.clone());
            match source {
                rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                    TlsError::Mismatch { cert, key }
                }
                source => TlsError::Refused { cert, key, source },
            }
        })
    }
}

const CERTIFICATE: &str = "certificate: it has to be PEM, with -----BEGIN CERTIFICATE-----";
const KEY: &str = "private key: it has to be PEM, with -----BEGIN PRIVATE KEY-----, not encrypted";

fn unread(path: &Path, option: &'static str, what: &'static str, source: pem::Error) -> TlsError {
    let path = path.to_owned();
    match source {
        source @ pem::Error::Io(_) => TlsError::Read {
            path,
            option,
            source,
        },
        // Damaged or something else altogether: what it has to be says more than where it stopped being that.
        _ => TlsError::Empty { path, what },
    }
}

/// The pair that new connections get.
#[derive(Debug)]
struct Pair(RwLock<Arc<CertifiedKey>>);

impl ResolvesServerCert for Pair {
    fn resolve(&self, _hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let pair = self.0.read().unwrap_or_else(PoisonError::into_inner);
        Some(Arc::clone(&pair))
    }
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    const DATA: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/testdata");

    /// A directory whose files are replaced as operators do it.
    struct Dir(TempDir);

    impl Dir {
        fn put(&self, name: &str, from: &str) -> PathBuf {
            let (new, path) = (self.0.path().join("new"), self.0.path().join(name));
            match from {
                "nothing" => std::fs::write(&new, "").expect("written"),
                "nonsense" => std::fs::write(&new, "-----BEGIN CERT").expect("written"),
                from => {
                    std::fs::copy(format!("{DATA}/{from}"), &new).expect("copied");
                }
            }
            std::fs::rename(new, &path).expect("moved");
            path
        }
    }

    fn dir() -> Dir {
        Dir(tempfile::tempdir().expect("a temporary directory"))
    }

    #[test]
    fn what_cannot_be_used_says_what_to_do() {
        for (cert, key, expected) in [
            ("first.cert.pem", "second.key.pem", "one pair"),
            ("nothing", "first.key.pem", "BEGIN CERTIFICATE"),
            ("nonsense", "first.key.pem", "BEGIN CERTIFICATE"),
            ("first.key.pem", "first.key.pem", "BEGIN CERTIFICATE"),
            ("first.cert.pem", "nothing", "BEGIN PRIVATE KEY"),
            ("first.cert.pem", "first.cert.pem", "BEGIN PRIVATE KEY"),
        ] {
            let dir = dir();
            let loaded = Tls::load(&dir.put("cert", cert), &dir.put("key", key));
            let error = loaded.expect_err("no pair");
            let text = error.to_string();
            assert!(text.contains(expected), "{cert} {key}: {text}");
        }
        let gone = Path::new("/nowhere/cert.pem");
        let error = Tls::load(gone, gone).expect_err("no such file").to_string();
        assert!(
            error.contains("/nowhere/cert.pem") && error.contains("--tls-cert"),
            "{error}"
        );
    }

    #[test]
    fn a_changed_pair_is_taken_and_a_broken_one_is_told_once() {
        let dir = dir();
        let cert = dir.put("cert", "first.cert.pem");
        let tls = Tls::load(&cert, &dir.put("key", "first.key.pem")).expect("a pair");
        let served = || {
            let pair = tls.0.pair.0.read().expect("not poisoned");
            pair.cert[0].clone()
        };
        let first = served();
        assert!(!tls.look().expect("nothing new"));

        dir.put("cert", "second.cert.pem");
        assert!(matches!(tls.look(), Err(TlsError::Mismatch { .. })));
        assert!(!tls.look().expect("told before"));
        assert_eq!(served(), first);

        dir.put("key", "second.key.pem");
        assert!(tls.look().expect("a pair"));
        assert_ne!(served(), first);

        std::fs::remove_file(&cert).expect("removed");
        assert!(matches!(tls.look(), Err(TlsError::Read { .. })));
        dir.put("cert", "second.cert.pem");
        assert!(tls.look().expect("a pair again"));
    }
}
