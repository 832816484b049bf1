//! Files that were being written when their writer was killed: only a local store has any.
//!
//! `LocalFileSystem` writes `NAME#1` and renames it. Such names are never listed as objects, and nothing but this removes them.

use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};

use crate::error::StoreError;
use crate::names;
use crate::store::Store;

/// Nothing takes longer to write.
const ABANDONED: Duration = Duration::from_secs(3600);

/// Removes what was abandoned an hour ago in these hours of a stream, among exports and among player pages, and hours' folders that
/// are empty.
pub(crate) async fn remove(
    store: &Store,
    rtstream: &str,
    hours: &[i64],
    now_us: i64,
) -> Result<(), StoreError> {
    let Some(root) = &store.folder else {
        return Ok(());
    };
    let mut folders = vec![root.join(names::EXPORTS), root.join(names::PLAYERS)];
    for hour in hours {
        folders.push(root.join(names::hour(rtstream, *hour)?.as_ref()));
    }
    let before = UNIX_EPOCH + Duration::from_micros(u64::try_from(now_us).unwrap_or(0));
    let Some(before) = before.checked_sub(ABANDONED) else {
        return Ok(());
    };
    let removal = tokio::task::spawn_blocking(move || {
        for folder in folders {
            match remove_in(&folder, before) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                _ => {}
            }
        }
        Ok(())
    });
    let removed = removal.await.unwrap_or_else(|error| Err(error.into()));
    removed.map_err(|error| StoreError::Failed {
        action: "remove",
        source: object_store::Error::Generic {
            store: "LocalFileSystem",
            source: error.into(),
        },
    })
}

fn remove_in(folder: &Path, before: std::time::SystemTime) -> io::Result<()> {
    let mut empty = true;
    let mut old: Vec<PathBuf> = Vec::new();
    for entry in folder.read_dir()? {
        let entry = entry?;
        let name = entry.file_name();
        let staged = name.to_str().is_some_and(is_staged);
        // It may be renamed meanwhile.
        let abandoned = staged
            && entry
                .metadata()
                .and_then(|meta| meta.modified())
                .is_ok_and(|modified| modified < before);
        if abandoned {
            old.push(entry.path());
        } else {
            empty = false;
        }
    }
    for file in &old {
        std::fs::remove_file(file)?;
        tracing::info!(file = %file.display(), "removed what a killed writer left");
    }
    if empty {
        // Somebody may write into it meanwhile, and then it stays.
        let _ = std::fs::remove_dir(folder);
    }
    Ok(())
}

fn is_staged(name: &str) -> bool {
    let number = name.rsplit_once('#').map_or("", |(_, number)| number);
    !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit())
}
