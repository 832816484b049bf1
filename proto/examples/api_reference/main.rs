//! Writes the API reference below `docs/api` from what the protos, their comments, the table of reasons and the OpenAPI document say.
//!
//!     api_reference docs/api

mod comments;
mod grpc;
mod rest;

use std::path::Path;

use anyhow::{Context, Result};

fn main() -> Result<()> {
    let folder = std::env::args().nth(1);
    let folder = folder.context("name the folder to write to, for example docs/api")?;
    for (name, text) in pages()? {
        let file = Path::new(&folder).join(name);
        std::fs::write(&file, text).with_context(|| format!("cannot write {}", file.display()))?;
    }
    Ok(())
}

/// Each file's name and text.
fn pages() -> Result<Vec<(&'static str, String)>> {
    Ok(vec![("grpc.md", grpc::page()?), ("rest.md", rest::page()?)])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_committed_reference_is_that_of_the_protos() {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs/api");
        for (name, text) in pages().expect("written") {
            let committed = std::fs::read_to_string(folder.join(name)).unwrap_or_default();
            assert!(
                committed == text,
                "docs/api/{name} is out of date: run `make docs` and commit it"
            );
        }
    }
}
