//! What the hub says of a repository: its files, each with its size, the large ones with their digests.

use std::collections::BTreeMap;

use serde::Deserialize;

/// What the hub says of a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listed {
    /// In bytes.
    pub size: u64,
    /// SHA-256 in hexadecimal digits: of large files alone.
    pub sha256: Option<String>,
}

#[derive(Deserialize)]
struct Item {
    #[serde(rename = "type")]
    kind: String,
    path: String,
    #[serde(default)]
    size: u64,
    lfs: Option<Lfs>,
}

#[derive(Deserialize)]
struct Lfs {
    oid: String,
    size: u64,
}

/// Reads the hub's answer: the files by their paths.
///
/// # Errors
/// When it is something else.
pub fn parse(body: &[u8]) -> serde_json::Result<BTreeMap<String, Listed>> {
    let items: Vec<Item> = serde_json::from_slice(body)?;
    let files = items.into_iter().filter(|item| item.kind == "file");
    let listed = files.map(|item| {
        let size = item.lfs.as_ref().map_or(item.size, |lfs| lfs.size);
        let sha256 = item.lfs.map(|lfs| lfs.oid);
        (item.path, Listed { size, sha256 })
    });
    Ok(listed.collect())
}
