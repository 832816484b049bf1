//! Pulling a model: its files into a directory of their own, each checked, and the directory to its place only when all are there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Component, Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Error, Result, bail, ensure};
use http::header::CONTENT_RANGE;
use indicatif::{ProgressBar, ProgressStyle};
use rustix::fs::{FlockOperation, flock};
use sha2::{Digest as _, Sha256};
use sightline_egress::Opened;

use super::hub::Hub;
use super::listing::Listed;
use super::registry::{Digest, MANIFEST, Manifest, Model};

/// How often a download may break in a row without a byte of progress before the command gives up; it goes on from there the
/// next time.
const TRIES: u32 = 5;
/// How long the first pause between two tries is; each further one is twice as long.
pub const PAUSE: Duration = Duration::from_millis(500);

/// Where a model is pulled from, and to.
pub struct Pull<'a> {
    /// The hub.
    pub hub: &'a Hub,
    /// The model.
    pub model: &'a Model,
    /// Which of its weights, where it has several.
    pub precision: Option<&'a str>,
    /// The directory of models that were pulled.
    pub into: &'a Path,
    /// How long the first pause after a broken download is: [`PAUSE`].
    pub pause: Duration,
    /// Shows how far it is.
    pub bar: ProgressBar,
}

/// A bar for bytes; it shows itself where standard error is a terminal.
pub fn progress() -> ProgressBar {
    let style = ProgressStyle::with_template(
        "{msg:32!} {bar:24} {bytes:>11} of {total_bytes} {bytes_per_sec} {eta}",
    );
    let bar = ProgressBar::new(0);
    bar.set_style(style.expect("a template"));
    bar
}

impl Pull<'_> {
    /// Pulls what is missing, checks it, and moves it to its place; gives the model's directory.
    ///
    /// # Errors
    /// When the hub can't be reached (the error then says which file to get from where by hand), a file is not what the hub says it
    /// is (it is removed then), or the disk is full.
    pub async fn run(&self) -> Result<PathBuf> {
        let place = self.into.join(&self.model.name);
        let staging = self.into.join(format!(".{}.part", self.model.name));
        fs::create_dir_all(&staging)
            .with_context(|| format!("cannot make {}", staging.display()))?;
        let _lock = lock(&self.into.join(format!(".{}.lock", self.model.name)))?;
        let listed = self.listed().await.map_err(|error| self.by_hand(&error))?;
        self.bar
            .set_length(listed.iter().map(|(_, file)| file.size).sum());
        let mut manifest = Manifest {
            repository: self.model.repository.clone(),
            revision: self.model.revision.clone(),
            precision: self
                .precision
                .map(str::to_owned)
                .or(self.model.precision.clone()),
            files: Vec::new(),
        };
        for (path, file) in &listed {
            let (digest, commit) = self.file(&staging, path, file).await?;
            manifest.files.push(digest);
            if let Some(commit) = commit {
                manifest.revision = commit;
            }
        }
        self.bar.finish_and_clear();
        let text = serde_json::to_vec_pretty(&manifest)?;
        fs::write(staging.join(MANIFEST), text).context("cannot write the list of files")?;
        replace(
            &staging,
            &place,
            &self.into.join(format!(".{}.old", self.model.name)),
        )?;
        Ok(place)
    }

    /// The files to pull, as the hub has them: those of the registry, with the further files that large weights lie in.
    async fn listed(&self) -> Result<Vec<(String, Listed)>> {
        let model = self.model;
        let wanted = model.files(self.precision)?;
        let mut there = self.hub.list(&model.repository, &model.revision).await?;
        for path in &wanted {
            ensure!(
                there.contains_key(path),
                "{} has no {path}: the model may come in other precisions (--precision)",
                model.repository
            );
        }
        // The hub may be anybody's: what it lists must not lead out of the model's directory.
        let below = |path: &str| {
            let mut parts = Path::new(path).components();
            parts.all(|part| matches!(part, Component::Normal(_)))
        };
        for path in there.keys() {
            ensure!(
                below(path),
                "the hub lists {path:?} in {}, which is no file below its directory: pull from another hub",
                model.repository
            );
        }
        let belongs = |path: &str| {
            let mut known = wanted.iter().chain(&model.optional);
            known.any(|file| file == path) || wanted.iter().any(|file| is_data_of(file, path))
        };
        there.retain(|path, _| belongs(path));
        Ok(there.into_iter().collect())
    }

    /// One file, taken up where an earlier try ended, and the commit that it is of.
    async fn file(
        &self,
        staging: &Path,
        path: &str,
        listed: &Listed,
    ) -> Result<(Digest, Option<String>)> {
        let (done, part) = (staging.join(path), staging.join(format!("{path}.part")));
        if let Some(dir) = done.parent() {
            fs::create_dir_all(dir).with_context(|| format!("cannot make {}", dir.display()))?;
        }
        self.bar.set_message(path.to_owned());
        let before = self.bar.position();
        let mut commit = None;
        if !done.exists() {
            let (mut tries, mut had) = (0, size(&part));
            while let Err(error) = self.rest(&part, path, listed, before, &mut commit).await {
                let now = size(&part);
                tries = if now > had { 1 } else { tries + 1 };
                had = now;
                if tries == TRIES || error.downcast_ref::<Disk>().is_some() {
                    return Err(error.context(format!(
                        "{path} was not pulled; the same command goes on with it"
                    )));
                }
                tracing::warn!(
                    path,
                    error = format!("{error:#}"),
                    "a download broke off, it is taken up again"
                );
                tokio::time::sleep(self.pause * 2_u32.pow(tries - 1)).await;
            }
        }
        let (here, hash) = (
            if done.exists() { &done } else { &part },
            listed.sha256.as_deref(),
        );
        let digest = blocking_digest(here, path).await?;
        if digest.size != listed.size || hash.is_some_and(|hash| hash != digest.sha256) {
            fs::remove_file(here).with_context(|| format!("cannot remove {}", here.display()))?;
            bail!(
                "{path} is not the file that the hub promised and was removed: {} bytes with SHA-256 {}, not {} with {}. Pull again; \
                 if it stays so, the hub or what is between changes files",
                digest.size,
                digest.sha256,
                listed.size,
                hash.unwrap_or("any")
            );
        }
        self.bar.set_position(before + listed.size);
        if !done.exists() {
            fs::rename(&part, &done).with_context(|| format!("cannot write {}", done.display()))?;
        }
        Ok((digest, commit))
    }

    /// What is missing of a file at the end of `part`.
    async fn rest(
        &self,
        part: &Path,
        path: &str,
        listed: &Listed,
        before: u64,
        commit: &mut Option<String>,
    ) -> Result<()> {
        let mut have = size(part);
        if have >= listed.size && part.exists() {
            return Ok(());
        }
        let url = self
            .hub
            .address(&self.model.repository, &self.model.revision, path);
        let mut opened = self.hub.file(&url, have).await?;
        if let Some(said) = opened
            .headers
            .get("x-repo-commit")
            .and_then(|said| said.to_str().ok())
        {
            *commit = Some(said.to_owned());
        }
        if !goes_on(&opened, have) {
            have = 0;
        }
        let mut file = OpenOptions::new()
            .create(true)
            .truncate(false)
            .write(true)
            .open(part)?;
        file.set_len(have)?;
        io::Seek::seek(&mut file, io::SeekFrom::End(0))?;
        self.bar.set_position(before + have);
        while let Some(piece) = opened.piece().await? {
            have += piece.len() as u64;
            // It would fill the disk with what the check refuses anyway.
            ensure!(
                have <= listed.size,
                "{url} is longer than the {} bytes that the hub told",
                listed.size
            );
            file.write_all(&piece)
                .map_err(Disk)
                .with_context(|| format!("cannot write {}", part.display()))?;
            self.bar.inc(piece.len() as u64);
        }
        ensure!(
            have == listed.size,
            "{url} ended after {have} of {} bytes",
            listed.size
        );
        Ok(file.sync_all().map_err(Disk)?)
    }

    /// The same error, with what to do where there is no way to the hub.
    fn by_hand(&self, error: &Error) -> Error {
        let model = self.model;
        let place = self.into.join(&model.name);
        let files = match model.files(self.precision) {
            Ok(files) => files,
            Err(error) => return error,
        };
        let mut said = format!("{error:#}\nTo do it by hand, put these files there:");
        for path in &files {
            let url = self.hub.address(&model.repository, &model.revision, path);
            said += &format!("\n  {url}\n    -> {}", place.join(path).display());
        }
        if !model.optional.is_empty() {
            said += &format!(
                "\nand, where the repository has them, {}",
                model.optional.join(", ")
            );
        }
        if files.iter().any(|path| path.ends_with(".onnx")) {
            said += "\nand every file beside these whose name goes on with _data";
        }
        Error::msg(said)
    }
}

/// The disk: trying again does not help.
#[derive(Debug, thiserror::Error)]
#[error("the disk does not take it")]
struct Disk(#[source] io::Error);

/// Whether a path is that of further weights of `file`, which lie beside it.
fn is_data_of(file: &str, path: &str) -> bool {
    let rest = path
        .strip_prefix(file)
        .and_then(|rest| rest.strip_prefix("_data"));
    let plain = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'_' | b'.' | b'-');
    rest.is_some_and(|rest| rest.bytes().all(plain))
}

/// How much of a file is there.
fn size(file: &Path) -> u64 {
    fs::metadata(file).map_or(0, |known| known.len())
}

/// Whether an answer begins at byte `from`.
fn goes_on(opened: &Opened, from: u64) -> bool {
    let range = opened
        .headers
        .get(CONTENT_RANGE)
        .and_then(|range| range.to_str().ok());
    opened.status == 206 && range.is_some_and(|range| range.starts_with(&format!("bytes {from}-")))
}

/// Size and digest of a file.
///
/// # Errors
/// When it can't be read.
pub fn digest(file: &Path, path: &str) -> Result<Digest> {
    let mut hash = Sha256::new();
    let size = File::open(file).and_then(|mut file| io::copy(&mut file, &mut hash));
    let size = size.with_context(|| format!("cannot read {}", file.display()))?;
    let sha256 = hash
        .finalize()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    Ok(Digest {
        path: path.to_owned(),
        size,
        sha256,
    })
}

async fn blocking_digest(file: &Path, path: &str) -> Result<Digest> {
    let (file, path) = (file.to_owned(), path.to_owned());
    tokio::task::spawn_blocking(move || digest(&file, &path)).await?
}

fn lock(path: &Path) -> Result<File> {
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(path);
    let file = file.with_context(|| format!("cannot open {}", path.display()))?;
    if flock(&file, FlockOperation::NonBlockingLockExclusive).is_err() {
        bail!("another process pulls this model: wait for it");
    }
    Ok(file)
}

/// Moves a directory to its place; what was there goes, by way of `old`.
fn replace(from: &Path, to: &Path, old: &Path) -> Result<()> {
    let moved = || {
        let _ = fs::remove_dir_all(old);
        if to.exists() {
            fs::rename(to, old)?;
        }
        fs::rename(from, to)?;
        fs::remove_dir_all(old).or_else(|error| match error.kind() {
            io::ErrorKind::NotFound => Ok(()),
            _ => Err(error),
        })
    };
    moved().with_context(|| format!("cannot move the model to {}", to.display()))
}
