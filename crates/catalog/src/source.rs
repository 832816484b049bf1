//! Sources of streams: which URLs are taken, and how they are shown without their credentials.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;
use url::Url;

/// Why a source is refused. Says what to do, and repeats nothing of the URL that could be a credential.
#[derive(Debug, Error)]
pub enum SourceError {
    /// Not a URL.
    #[error(
        "this is no URL; write for example rtsp://camera.example/stream or file:///media/clip.mp4"
    )]
    Malformed {
        /// Why.
        source: url::ParseError,
    },
    /// Characters that are no part of any URL.
    #[error("the URL holds control characters; remove them")]
    ControlCharacters,
    /// A scheme that is not supported.
    #[error("sources of {scheme}:// are not supported; use rtsp://, rtsps:// or file://")]
    Scheme {
        /// The URL's scheme.
        scheme: String,
    },
    /// A camera without a host.
    #[error("the URL names no host; write for example rtsp://camera.example/stream")]
    NoHost,
    /// A port or host that nothing can be connected to.
    #[error("the URL's host or port can't be connected to")]
    Address,
    /// A file on another machine.
    #[error("a file URL has no host; write file:///path/of/the/file")]
    FileHost,
    /// A query or fragment, which files do not have.
    #[error(
        "a file URL has no query or fragment; write %3F for a '?' and %23 for a '#' in a file name"
    )]
    FileQuery,
    /// A path that is no text.
    #[error("the path of a file URL must be UTF-8")]
    FilePath,
    /// There is no media root.
    #[error(
        "file sources are off: start the server with --media-root DIR to allow the files below DIR"
    )]
    NoMediaRoot,
    /// The media root can't be looked into.
    #[error("the media root can't be read; check --media-root")]
    MediaRoot(#[source] io::Error),
    /// Outside the media root, by name or by following links.
    #[error("the file is not below the media root; move it there or choose another --media-root")]
    Outside,
    /// No such file.
    #[error("there is no such file below the media root")]
    Missing,
    /// A directory or a device.
    #[error("this is no regular file")]
    NoFile,
    /// The file can't be looked at.
    #[error("the file can't be read; check its permissions")]
    Unreadable(#[source] io::Error),
}

/// A source that may be read.
#[derive(Clone, PartialEq, Eq)]
pub struct Source {
    url: Url,
    /// The file, with links resolved.
    path: Option<PathBuf>,
}

impl Source {
    /// Whether it is a file, which can be played at any pace.
    pub fn is_file(&self) -> bool {
        self.path.is_some()
    }

    /// The file with links resolved; none for cameras.
    pub fn path(&self) -> Option<&Path> {
        self.path.as_deref()
    }

    /// The URL with its credentials: never to be logged or shown.
    pub fn url(&self) -> &Url {
        &self.url
    }

    /// The URL without anything that could be a credential: cameras take them as user information, in the query and in path
    /// segments of the form `user=…&password=…`.
    pub fn redacted(&self) -> String {
        if self.is_file() {
            return self.url.to_string();
        }
        let host = self.url.host_str().unwrap_or_default();
        let port = self.url.port().map_or(String::new(), |p| format!(":{p}"));
        let segments = self.url.path().split('/');
        let path: Vec<&str> = segments
            .map(|segment| {
                if holds_values(segment) {
                    "…"
                } else {
                    segment
                }
            })
            .collect();
        let query = if self.url.query().is_some() {
            "?…"
        } else {
            ""
        };
        format!(
            "{}://{host}{port}{}{query}",
            self.url.scheme(),
            path.join("/")
        )
    }
}

impl fmt::Debug for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Source({})", self.redacted())
    }
}

fn holds_values(segment: &str) -> bool {
    let lower = segment.to_ascii_lowercase();
    ["=", "%3d", "@", "%40"]
        .iter()
        .any(|mark| lower.contains(mark))
}

/// Says whether a source may be read: `rtsp://` and `rtsps://` with a host, and regular files below `media_root` after
/// resolving links. Where a camera's host may be is decided when it is connected to. Blocks on the file system.
///
/// # Errors
/// When it may not; the error says what to do.
pub fn check(url: &str, media_root: Option<&Path>) -> Result<Source, SourceError> {
    // The parser would silently remove some of them.
    if url.chars().any(char::is_control) {
        return Err(SourceError::ControlCharacters);
    }
    let url = Url::parse(url).map_err(|source| SourceError::Malformed { source })?;
    match url.scheme() {
        "rtsp" | "rtsps" => camera(url),
        "file" => file(url, media_root),
        scheme => Err(SourceError::Scheme {
            scheme: scheme.to_owned(),
        }),
    }
}

fn camera(url: Url) -> Result<Source, SourceError> {
    let host = url.host_str().unwrap_or_default();
    if host.is_empty() {
        return Err(SourceError::NoHost);
    }
    if host.contains('%') || url.port() == Some(0) {
        return Err(SourceError::Address);
    }
    Ok(Source { url, path: None })
}

fn file(url: Url, media_root: Option<&Path>) -> Result<Source, SourceError> {
    if url.host_str().is_some_and(|host| !host.is_empty()) {
        return Err(SourceError::FileHost);
    }
    if url.query().is_some() || url.fragment().is_some() {
        return Err(SourceError::FileQuery);
    }
    let path = url.to_file_path().map_err(|()| SourceError::FileHost)?;
    let text = path.to_str().ok_or(SourceError::FilePath)?;
    if text.chars().any(char::is_control) {
        return Err(SourceError::ControlCharacters);
    }
    let root = media_root.ok_or(SourceError::NoMediaRoot)?;
    let path = below(root, &path)?;
    Ok(Source {
        url,
        path: Some(path),
    })
}

/// The path with links resolved, if it is a regular file below the root.
fn below(root: &Path, path: &Path) -> Result<PathBuf, SourceError> {
    let real_root = root.canonicalize().map_err(SourceError::MediaRoot)?;
    // Whether there is anything outside is nobody's business.
    if !path.starts_with(root) && !path.starts_with(&real_root) {
        return Err(SourceError::Outside);
    }
    let real = path.canonicalize().map_err(|source| match source.kind() {
        io::ErrorKind::NotFound | io::ErrorKind::NotADirectory => SourceError::Missing,
        _ => SourceError::Unreadable(source),
    })?;
    if !real.starts_with(&real_root) {
        return Err(SourceError::Outside);
    }
    match real.metadata() {
        Ok(metadata) if metadata.is_file() => Ok(real),
        Ok(_) => Err(SourceError::NoFile),
        Err(source) => Err(SourceError::Unreadable(source)),
    }
}
