//! What the player pages load: our script and style, and hls.js.

use std::sync::LazyLock;

use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use http::{HeaderMap, header};
use sha2::{Digest, Sha256};

use super::answer::{Refusal, described, set, unchanged};

/// Pages name the content's hash in the address, so that a new release is loaded at once.
const CACHING: &str = "public, max-age=86400";

/// A file that is part of the program.
pub(super) struct Asset {
    name: &'static str,
    kind: &'static str,
    content: &'static [u8],
    hash: String,
}

impl Asset {
    fn new(name: &'static str, kind: &'static str, content: &'static [u8]) -> Self {
        let hash = URL_SAFE_NO_PAD.encode(&Sha256::digest(content)[..12]);
        Self {
            name,
            kind,
            content,
            hash,
        }
    }

    /// Its address, relative to a player page's.
    pub(super) fn address(&self) -> String {
        format!("assets/{}?{}", self.name, self.hash)
    }
}

const SCRIPT: &str = "text/javascript; charset=utf-8";

pub(super) static PLAYER: LazyLock<Asset> = LazyLock::new(|| {
    let content = include_bytes!("../../assets/player.js");
    Asset::new("player.js", SCRIPT, content)
});

pub(super) static STYLE: LazyLock<Asset> = LazyLock::new(|| {
    let content = include_bytes!("../../assets/player.css");
    Asset::new("player.css", "text/css; charset=utf-8", content)
});

pub(super) static ICON: LazyLock<Asset> = LazyLock::new(|| {
    let content = include_bytes!("../../assets/icon.svg");
    Asset::new("icon.svg", "image/svg+xml", content)
});

pub(super) static HLS: LazyLock<Asset> = LazyLock::new(|| {
    let content = include_bytes!("../../assets/hls.js/hls.min.js");
    Asset::new("hls.js", SCRIPT, content)
});

/// The file of this name.
pub(super) fn answer(name: &str, headers: &HeaderMap) -> Result<Response, Refusal> {
    let all: [&Asset; 4] = [&PLAYER, &STYLE, &ICON, &HLS];
    let asset = all.into_iter().find(|asset| asset.name == name);
    let asset = asset.ok_or(Refusal::NotFound("there is nothing here"))?;
    let tag = format!("\"{}\"", asset.hash);
    if let Some(response) = unchanged(headers, &tag, CACHING) {
        return Ok(response);
    }
    let mut response = asset.content.into_response();
    described(&mut response, asset.kind, CACHING);
    set(&mut response, header::ETAG, &tag);
    Ok(response)
}
