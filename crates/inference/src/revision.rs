//! Identifies a loaded model by its content.

use std::fs::File;
use std::io;
use std::path::Path;

use sha2::{Digest, Sha256};

use crate::InferenceError;

/// The first 16 hexadecimal digits of a SHA-256 over `label` and the content of `files` in order.
pub(crate) fn revision<'a>(
    label: &str,
    files: impl IntoIterator<Item = &'a Path>,
) -> Result<String, InferenceError> {
    let mut hash = Sha256::new();
    hash.update(label);
    for path in files {
        // Each file is hashed by itself, so that bytes cannot move from one into the next.
        let mut content = Sha256::new();
        File::open(path)
            .and_then(|mut file| io::copy(&mut file, &mut content))
            .map_err(|source| InferenceError::Read {
                path: path.to_owned(),
                source,
            })?;
        hash.update(content.finalize());
    }
    Ok(hash.finalize()[..8]
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect())
}
