//! Embeds the console's page where `make console` has built it; without Node the program is built all the same.

use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The files of the page below `dist`, by their path on the server.
fn files(dist: &Path) -> std::io::Result<Vec<(String, PathBuf)>> {
    let page = dist.join("page/index.html");
    if !page.exists() {
        return Ok(Vec::new());
    }
    let mut files = vec![("index.html".to_owned(), page)];
    for entry in std::fs::read_dir(dist.join("page/console"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        files.push((name.into_owned(), path.clone()));
    }
    files.sort();
    Ok(files)
}

#[expect(
    clippy::disallowed_methods,
    reason = "cargo tells a build script by the environment alone where to write"
)]
fn main() -> Result<(), Box<dyn std::error::Error>> {
    let out = PathBuf::from(std::env::var_os("OUT_DIR").ok_or("cargo sets OUT_DIR")?);
    // This folder is always there, so that cargo notices when the page comes and goes.
    println!("cargo:rerun-if-changed=../../console/dist");
    println!("cargo:rerun-if-changed=build.rs");
    // Below the manifest as rustc sees it: checkouts in several places may share what is built.
    let mut source = "&[".to_owned();
    for (name, path) in files(Path::new("../../console/dist"))? {
        let path = path.to_str().ok_or("a path in UTF-8")?;
        writeln!(
            source,
            "({name:?}, include_bytes!(concat!(env!(\"CARGO_MANIFEST_DIR\"), \"/\", {path:?}))),"
        )?;
    }
    source.push(']');
    std::fs::write(out.join("console_files.rs"), source)?;
    Ok(())
}
