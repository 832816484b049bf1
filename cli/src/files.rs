//! Where things are on this machine: what comes with the product, ONNX Runtime, the data directory and what is kept in it.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use rustix::fs::{FlockOperation, flock};
use uuid::Uuid;

use crate::args::DataArgs;

/// The sample clip, below the repository or `/usr/share/sightline`.
const SAMPLE_CLIP: &str = "tests/media/street-demo.mp4";

/// The sample clip.
pub fn sample_clip() -> PathBuf {
    shipped(SAMPLE_CLIP)
}

/// The data directory, held by this process alone.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    /// The lock goes when the file is closed, however the process ends.
    _lock: File,
}

impl DataDir {
    /// Makes the directory if it is missing, and locks it.
    ///
    /// # Errors
    /// When it can't be made, or another process has it.
    pub fn lock(path: PathBuf) -> Result<Self> {
        make_private(&path)?;
        let file = path.join("lock");
        let lock = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .mode(0o600)
            .open(&file);
        let lock = lock.with_context(|| format!("cannot open {}", file.display()))?;
        if flock(&lock, FlockOperation::NonBlockingLockExclusive).is_err() {
            bail!(
                "another sightline uses {}: stop it, or name another directory with --data-dir",
                path.display()
            );
        }
        Ok(Self { path, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The key that was printed at the first start, made now if there is none.
    ///
    /// # Errors
    /// When the file can't be read or written.
    pub fn api_key(&self) -> Result<String> {
        let file = self.path.join("api-key");
        match fs::read_to_string(&file) {
            Ok(key) if !key.trim().is_empty() => return Ok(key.trim().to_owned()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {}
            Err(error) => {
                return Err(error).with_context(|| format!("cannot read {}", file.display()));
            }
        }
        let key = new_key();
        let written = OpenOptions::new()
            .create(true)
            .truncate(true)
            .write(true)
            .mode(0o600)
            .open(&file)
            .and_then(|mut file| writeln!(file, "{key}"));
        written.with_context(|| format!("cannot write {}", file.display()))?;
        Ok(key)
    }
}

/// The data directory that the command line names, or the usual one.
///
/// # Errors
/// When none is named and there is no home directory.
pub fn data_dir(args: &DataArgs) -> Result<PathBuf> {
    if let Some(dir) = &args.data_dir {
        return Ok(dir.clone());
    }
    let home = variable("XDG_DATA_HOME").or_else(|| Some(variable("HOME")?.join(".local/share")));
    Ok(home
        .context("there is no home directory: name a directory with --data-dir")?
        .join("sightline"))
}

/// Makes a directory for its owner alone.
///
/// # Errors
/// When it can't be made.
pub fn make_private(path: &Path) -> Result<()> {
    use std::os::unix::fs::DirBuilderExt;
    let made = fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path);
    made.with_context(|| format!("cannot make the directory {}", path.display()))
}

/// A random API key.
pub fn new_key() -> String {
    format!("sk-{}{}", Uuid::new_v4().simple(), Uuid::new_v4().simple())
}

/// A file that comes with the product: below the checkout that the binary was built in, below the working directory, or
/// installed.
pub fn shipped(name: &str) -> PathBuf {
    let checkout = Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap_or(Path::new("."));
    let candidates = [checkout.join(name), PathBuf::from(name)];
    let found = candidates.into_iter().find(|path| path.exists());
    found.unwrap_or_else(|| Path::new("/usr/share/sightline").join(name))
}

/// The newest ONNX Runtime that `make setup` installed for this user.
pub fn installed_runtime() -> Option<PathBuf> {
    let cache = variable("XDG_CACHE_HOME").or_else(|| Some(variable("HOME")?.join(".cache")))?;
    let tools = fs::read_dir(cache.join("sightline/tools")).ok()?.flatten();
    let libraries = tools
        .filter(|dir| {
            dir.file_name()
                .to_string_lossy()
                .starts_with("onnxruntime-")
        })
        .filter_map(|dir| fs::read_dir(dir.path()).ok())
        .flat_map(|files| files.flatten().map(|file| file.path()));
    libraries
        .filter(|path| path.to_string_lossy().contains("libonnxruntime.so"))
        .max()
}

#[expect(
    clippy::disallowed_methods,
    reason = "the cli reads the environment for everything else"
)]
fn variable(name: &str) -> Option<PathBuf> {
    std::env::var_os(name)
        .filter(|value| !value.is_empty())
        .map(PathBuf::from)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_directory_has_one_user_and_one_key() {
        let dir = tempfile::tempdir().expect("a temporary directory");
        let path = dir.path().join("data");
        let data = DataDir::lock(path.clone()).expect("free");
        let second = DataDir::lock(path.clone()).expect_err("taken").to_string();
        assert!(second.contains("--data-dir"), "{second}");
        let key = data.api_key().expect("made");
        drop(data);
        let again = DataDir::lock(path).expect("free again");
        assert_eq!(again.api_key().expect("kept"), key);
    }
}
