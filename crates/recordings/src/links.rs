//! Signed links: whoever has one can play what it names, until it expires.
//!
//! A token holds what it allows (a stretch of one stream, or one export) and when that ends, with an HMAC-SHA256 over both: nothing
//! has to be stored for it.

use url::Url;

/// Before and after what a link is for, in microseconds: people want to see what led to it.
pub const PADDING_US: i64 = 2_000_000;

/// A stretch of one stream's recording.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clip {
    /// The stream.
    pub rtstream: String,
    /// Where it starts, in microseconds since the Unix epoch.
    pub start_us: i64,
    /// Where it ends; none: goes on.
    pub end_us: Option<i64>,
}

/// Links to a clip.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ClipLinks {
    /// The playlist.
    pub stream_url: String,
    /// The player page.
    pub player_url: String,
    /// A picture of its start.
    pub thumbnail_url: String,
}

/// Why a token is no good.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LinkError {
    /// Not one of this platform's, or changed.
    #[error("this link is not valid")]
    Invalid,
    /// It has stopped working.
    #[error("this link has expired")]
    Expired,
}

/// Makes and checks links. Clones share the key.
#[derive(Clone)]
pub struct Links {}

impl std::fmt::Debug for Links {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Links(…)")
    }
}

impl Links {
    /// Links below the public address of the gateway, for example `https://video.example/`, signed with `key` (a secret of 32
    /// bytes) and working for `lifetime_us` from when they are made; none: for ever.
    pub fn new(_public: &Url, _key: &[u8; 32], _lifetime_us: Option<i64>) -> Self {
        unimplemented!()
    }

    /// When links made now stop working.
    pub fn expires_us(&self, _now_us: i64) -> Option<i64> {
        unimplemented!()
    }

    /// Links to a clip, whose player page has no title: `<public>/manifests/<rtstream>/<token>/stream.m3u8`,
    /// `<public>/watch?v=<token that names the stream too>`, `<public>/manifests/<rtstream>/<token>/<start_us>.jpg`.
    pub fn clip(&self, _clip: &Clip, _now_us: i64) -> ClipLinks {
        unimplemented!()
    }

    /// The same for something that lasted from `start_us` to `end_us`, with [`PADDING_US`] around.
    pub fn around(&self, _rtstream: &str, _start_us: i64, _end_us: i64, _now_us: i64) -> ClipLinks {
        unimplemented!()
    }

    /// The player page with this slug: `<public>/watch?v=<slug>`.
    pub fn page(&self, _slug: &str) -> String {
        unimplemented!()
    }

    /// Where an export's file is: `<public>/exports/<token>/<export id>.mp4`.
    pub fn export(&self, _export_id: &str, _now_us: i64) -> String {
        unimplemented!()
    }

    /// The clip that a token in `/manifests/<rtstream>/<token>/…` allows.
    pub fn check_clip(&self, _rtstream: &str, _token: &str, _now_us: i64) -> Result<Clip, LinkError> {
        unimplemented!()
    }

    /// The clip that the `v` of a player page without a record allows.
    pub fn check_page(&self, _v: &str, _now_us: i64) -> Result<Clip, LinkError> {
        unimplemented!()
    }

    /// Whether a token in `/exports/<token>/<export id>.mp4` allows it.
    pub fn check_export(&self, _export_id: &str, _token: &str, _now_us: i64) -> Result<(), LinkError> {
        unimplemented!()
    }

    /// A new slug that begins with what is wanted and ends so that nobody can guess it.
    pub fn new_slug(_wanted: &str) -> String {
        unimplemented!()
    }
}
