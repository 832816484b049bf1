//! Opening an object store by its address.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::local::LocalFileSystem;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientOptions, ObjectStore, RetryConfig};
use url::Url;

use crate::error::StoreError;

const CONNECT: Duration = Duration::from_secs(5);

/// An opened store.
pub(crate) struct Opened {
    pub objects: Arc<dyn ObjectStore>,
    /// Where it is, when it is a folder of this machine.
    pub folder: Option<PathBuf>,
}

pub(crate) fn open(
    address: &str,
    options: impl IntoIterator<Item = (String, String)>,
) -> Result<Opened, StoreError> {
    let refused = || StoreError::Address {
        address: shown(address),
    };
    let url = Url::parse(address).map_err(|_| refused())?;
    let bare = url.query().is_none() && url.fragment().is_none() && url.port().is_none();
    if !bare || !url.username().is_empty() || url.password().is_some() {
        return Err(refused());
    }
    if address.starts_with("file:///") {
        let folder = url.to_file_path().map_err(|()| refused())?;
        return local(&folder).map_err(cannot_open);
    }
    if !address.starts_with("s3://") || url.host_str().is_none_or(str::is_empty) {
        return Err(refused());
    }
    let prefix = object_store::path::Path::from_url_path(url.path()).map_err(|_| refused())?;
    let objects = s3(&url, options).map_err(cannot_open)?;
    Ok(Opened {
        objects: Arc::new(PrefixStore::new(objects, prefix)),
        folder: None,
    })
}

fn local(folder: &Path) -> Result<Opened, object_store::Error> {
    std::fs::create_dir_all(folder).map_err(|error| object_store::Error::Generic {
        store: "LocalFileSystem",
        source: error.into(),
    })?;
    // Folders of hours go with their last segment.
    let files = LocalFileSystem::new_with_prefix(folder)?.with_automatic_cleanup(true);
    Ok(Opened {
        objects: Arc::new(files),
        folder: Some(folder.to_owned()),
    })
}

fn s3(
    url: &Url,
    options: impl IntoIterator<Item = (String, String)>,
) -> Result<object_store::aws::AmazonS3, object_store::Error> {
    // The HTTP client panics without a TLS provider; a program that has chosen one keeps it.
    if rustls::crypto::CryptoProvider::get_default().is_none() {
        let provider = rustls::crypto::ring::default_provider();
        // Somebody else may have been quicker, which is as good.
        let _ = provider.install_default();
    }
    // Every call here has a deadline of its own; the client's would cut a long file off while it is being read.
    let client = ClientOptions::new()
        .with_connect_timeout(CONNECT)
        .with_timeout_disabled();
    let retry = RetryConfig {
        backoff: BackoffConfig {
            init_backoff: Duration::from_millis(100),
            max_backoff: Duration::from_secs(1),
            base: 2.0,
        },
        max_retries: 3,
        retry_timeout: Duration::from_secs(5),
    };
    let builder = AmazonS3Builder::new()
        .with_client_options(client)
        .with_retry(retry);
    // Without the beginning they would also match other programs' TOKEN or TIMEOUT.
    let known = options.into_iter().filter_map(|(name, value)| {
        let name = name.to_ascii_lowercase();
        let key: AmazonS3ConfigKey = name.starts_with("aws_").then(|| name.parse().ok())??;
        Some((key, value))
    });
    known
        .fold(builder, |builder, (key, value)| {
            builder.with_config(key, value)
        })
        .with_url(url.as_str())
        .build()
}

fn cannot_open(source: object_store::Error) -> StoreError {
    StoreError::Failed {
        action: "be opened",
        source,
    }
}

/// An address without what may be a secret.
fn shown(address: &str) -> String {
    let address = address.split(['?', '#']).next().unwrap_or_default();
    match (address.split_once("://"), address.rsplit_once('@')) {
        (_, None) => address.to_owned(),
        (Some((scheme, _)), Some((_, rest))) => format!("{scheme}://{rest}"),
        (None, Some((_, rest))) => rest.to_owned(),
    }
}
