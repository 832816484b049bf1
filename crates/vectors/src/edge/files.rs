//! The store's folder: its lock, what it says about itself, and the library's files below `edge/`.
//!
//! The folder is complete once `store.json` is there: it is written last and deleted first, so what a killed process leaves
//! half made is made anew.

use std::any::Any;
use std::fs::{self, File, TryLockError};
use std::io::{Read, Seek, Write};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};

use qdrant_edge::{EdgeShard, OperationResult};
use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::about::About;
use crate::error::Cause;
use crate::{EmbeddingModel, VectorError};

use super::convert;

/// What a store says about itself.
pub(super) const ABOUT: &str = "store.json";

/// The folder, locked for as long as this lives.
pub(super) struct Folder {
    dir: PathBuf,
    _lock: File,
}

/// Opens the store, or makes it. Returns its identity with it.
pub(super) fn open(
    folder: &Folder,
    model: &EmbeddingModel,
) -> Result<(String, EdgeShard), VectorError> {
    match folder.about()? {
        Some(mut about) => {
            about.check(model, &folder.dir.display().to_string())?;
            if about.moved(model) {
                folder
                    .write_about(&about)
                    .map_err(|source| folder.failed(source))?;
            }
            let shard = folder.load().map_err(|source| folder.failed(source))?;
            Ok((about.identity, shard))
        }
        None => folder.make(model).map_err(|source| folder.failed(source)),
    }
}

/// Characters of a panic's message that are kept: the library puts whole backtraces into it.
const PANIC_TEXT: usize = 300;

/// Runs a call of the library; a panic, which is its answer to a full disk, becomes an error.
pub(super) fn guarded<T>(call: impl FnOnce() -> OperationResult<T>) -> Result<T, Cause> {
    match catch_unwind(AssertUnwindSafe(call)) {
        Ok(result) => result.map_err(Into::into),
        Err(panic) => Err(panic_text(panic.as_ref()).into()),
    }
}

fn panic_text(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().map(String::as_str);
    let text = text.or_else(|| panic.downcast_ref::<&str>().copied());
    let text = text.unwrap_or("qdrant-edge panicked");
    text.chars().take(PANIC_TEXT).collect()
}

impl Folder {
    /// Makes the folder if there is none, and locks it.
    pub(super) fn lock(dir: &Path) -> Result<Self, VectorError> {
        let failed = |source: std::io::Error| VectorError::Open {
            dir: dir.to_owned(),
            source: source.into(),
        };
        fs::create_dir_all(dir).map_err(failed)?;
        let mut lock = File::options()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(dir.join("lock"))
            .map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => {
                return Err(VectorError::Locked {
                    dir: dir.to_owned(),
                    holder: holder(&mut lock),
                });
            }
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        lock.set_len(0).map_err(failed)?;
        lock.rewind().map_err(failed)?;
        write!(lock, "{}", std::process::id()).map_err(failed)?;
        Ok(Self {
            dir: dir.to_owned(),
            _lock: lock,
        })
    }

    /// Deletes the store and leaves the folder.
    pub(super) fn clear(&self) -> Result<(), VectorError> {
        remove(fs::remove_file(self.about_file()))
            .and_then(|()| remove(fs::remove_dir_all(self.shard_dir())))
            .map_err(|source| self.failed(source.into()))
    }

    /// Loads the library's files.
    pub(super) fn load(&self) -> Result<EdgeShard, Cause> {
        for old in self.spent_wal_files()? {
            fs::remove_file(old)?;
        }
        guarded(|| EdgeShard::load(&self.shard_dir(), None))
    }

    /// The files of the library's log that nothing needs. The log is never read back, but its operations are numbered, and
    /// an operation below a point's own number is silently ignored: so the newest closed file, which carries the number,
    /// stays.
    pub(super) fn spent_wal_files(&self) -> std::io::Result<Vec<PathBuf>> {
        let mut closed = Vec::new();
        let wal = self.shard_dir().join("wal");
        if wal.exists() {
            for entry in fs::read_dir(wal)? {
                let entry = entry?;
                let name = entry.file_name();
                let number = name.to_str().and_then(|name| name.strip_prefix("closed-"));
                if let Some(number) = number.and_then(|number| number.parse::<u64>().ok()) {
                    closed.push((number, entry.path()));
                }
            }
        }
        closed.sort_unstable();
        closed.pop();
        Ok(closed.into_iter().map(|(_, path)| path).collect())
    }

    fn make(&self, model: &EmbeddingModel) -> Result<(String, EdgeShard), Cause> {
        let dir = self.shard_dir();
        remove(fs::remove_dir_all(&dir))?;
        fs::create_dir_all(&dir)?;
        let shard = guarded(|| {
            let shard = EdgeShard::new(&dir, convert::config(model))?;
            for operation in convert::index_operations() {
                shard.update(operation)?;
            }
            shard.flush();
            Ok(shard)
        })?;
        let about = About::new(model);
        self.write_about(&about)?;
        Ok((about.identity, shard))
    }

    fn about(&self) -> Result<Option<About>, VectorError> {
        about(&self.dir)
    }

    fn write_about(&self, about: &About) -> Result<(), Cause> {
        Ok(write_json(&self.about_file(), about)?)
    }

    fn about_file(&self) -> PathBuf {
        self.dir.join(ABOUT)
    }

    fn shard_dir(&self) -> PathBuf {
        self.dir.join("edge")
    }

    fn failed(&self, source: Cause) -> VectorError {
        open_failed(&self.dir, source)
    }
}

/// What the store in a folder says about itself, without opening it; none if there is no store.
pub(super) fn about(dir: &Path) -> Result<Option<About>, VectorError> {
    read_json(&dir.join(ABOUT)).map_err(|source| open_failed(dir, source))
}

/// Reads a JSON file; none if there is none.
pub(super) fn read_json<T: DeserializeOwned>(file: &Path) -> Result<Option<T>, Cause> {
    let text = match fs::read(file) {
        Ok(text) => text,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error.into()),
    };
    let name = file.file_name().unwrap_or_default().to_string_lossy();
    serde_json::from_slice(&text)
        .map(Some)
        .map_err(|error| format!("{name}: {error}").into())
}

/// Writes a JSON file: whole or not at all, and durably.
pub(super) fn write_json(file: &Path, value: &impl Serialize) -> std::io::Result<()> {
    let new = file.with_extension("json.new");
    let mut writing = File::create(&new)?;
    writing.write_all(&serde_json::to_vec_pretty(value)?)?;
    writing.sync_all()?;
    fs::rename(&new, file)?;
    File::open(file.parent().unwrap_or(Path::new(".")))?.sync_all()
}

pub(super) fn open_failed(dir: &Path, source: Cause) -> VectorError {
    VectorError::Open {
        dir: dir.to_owned(),
        source,
    }
}

/// Who holds the lock, as it wrote it there.
fn holder(lock: &mut File) -> String {
    let mut text = String::new();
    match lock.read_to_string(&mut text) {
        Ok(_) if !text.is_empty() => format!("process {text}"),
        _ => "another process".to_owned(),
    }
}

/// Removing what is not there has succeeded.
pub(super) fn remove(result: std::io::Result<()>) -> std::io::Result<()> {
    match result {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}
