//! Sealing, and the key's file.

use std::collections::HashSet;
use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};
use sightline_catalog::seal::{SealError, SealKey};

#[test]
fn what_is_sealed_opens_with_the_same_file_alone() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("keys/seal.key");
    let key = SealKey::load_or_create(&path)?;
    let again = SealKey::load_or_create(&path)?;
    let other = SealKey::load_or_create(&dir.path().join("other.key"))?;
    for secret in [
        "",
        "rtsp://user:s3cret@camera/1",
        "ä\u{0}\n",
        &"x".repeat(100_000),
    ] {
        let sealed = key.seal(secret);
        assert_eq!(again.open(&sealed)?, secret);
        assert!(!sealed.windows(6).any(|part| part == b"s3cret"));
        let opened = other.open(&sealed);
        assert!(matches!(opened, Err(SealError::WrongKey)), "{opened:?}");
    }
    Ok(())
}

#[test]
fn the_same_secret_never_looks_the_same() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let key = SealKey::load_or_create(&dir.path().join("seal.key"))?;
    let sealed: HashSet<_> = (0..1000).map(|_| key.seal("s3cret")).collect();
    assert_eq!(sealed.len(), 1000);
    Ok(())
}

#[test]
fn what_was_changed_does_not_open() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let key = SealKey::load_or_create(&dir.path().join("seal.key"))?;
    let sealed = key.seal("s3cret");
    for at in 0..sealed.len() {
        let mut changed = sealed.clone();
        changed[at] ^= 1;
        assert!(key.open(&changed).is_err(), "byte {at}");
        assert!(key.open(&sealed[..at]).is_err(), "cut at {at}");
    }
    let longer = [&sealed[..], &[0]].concat();
    assert!(key.open(&longer).is_err());
    Ok(())
}

#[test]
fn the_key_is_for_its_owner_alone_and_shown_to_nobody() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("seal.key");
    let key = SealKey::load_or_create(&path)?;
    assert_eq!(fs::metadata(&path)?.permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&path)?;
    assert!(!format!("{key:?}").contains(text.trim()));
    let names: Vec<_> = fs::read_dir(dir.path())?
        .flatten()
        .map(|e| e.file_name())
        .collect();
    assert_eq!(names, ["seal.key"], "nothing else is left");
    Ok(())
}

#[test]
fn processes_that_start_at_the_same_moment_get_one_key() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("seal.key");
    let keys = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..16)
            .map(|_| scope.spawn(|| SealKey::load_or_create(&path)))
            .collect();
        let joined = threads.into_iter().map(|t| t.join().expect("no panic"));
        joined.collect::<Result<Vec<_>, _>>()
    })?;
    let sealed = keys[0].seal("s3cret");
    for key in &keys {
        assert_eq!(key.open(&sealed)?, "s3cret");
    }
    Ok(())
}

#[test]
fn a_file_that_holds_no_key_says_what_to_do() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let path = dir.path().join("seal.key");
    let good = SealKey::load_or_create(&path).map(|_| fs::read_to_string(&path))??;
    let spaced = format!("\n {good}\n\n");
    fs::write(&path, spaced)?;
    SealKey::load_or_create(&path).context("white space around it does not matter")?;
    for text in [
        "",
        "\n",
        "not base64!",
        "AAAA",
        &good[..20],
        &good.repeat(2),
        &"A".repeat(10_000),
    ] {
        fs::write(&path, text)?;
        let error = SealKey::load_or_create(&path).expect_err("no key");
        let message = error.to_string();
        assert!(
            matches!(error, SealError::NoKey { .. }),
            "{text:.50?}: {message}"
        );
        assert!(
            message.contains("seal.key") && message.contains("backup"),
            "{message}"
        );
        assert_eq!(fs::read_to_string(&path)?, text, "it is left as it was");
    }
    let error = SealKey::load_or_create(dir.path()).expect_err("a directory");
    assert!(matches!(error, SealError::NoKey { .. }), "{error}");
    let error = SealKey::load_or_create(&path.join("below/a/file")).expect_err("no directory");
    assert!(matches!(error, SealError::File { .. }), "{error}");
    Ok(())
}
