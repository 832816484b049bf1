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
    #[error(
        "sources of {scheme}:// are not supported; use rtsp://, rtsps://, rtmp://, rtmps://, srt://, http://, https:// or file://"
    )]
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
    /// RTMP without an application or a stream.
    #[error(
        "the URL names no application and stream; write for example rtmp://server.example/live/stream"
    )]
    RtmpPath,
    /// RTMP with credentials where no server takes them.
    #[error(
        "RTMP takes no user name and password before the host; write them as the server wants them in the query"
    )]
    RtmpUser,
    /// SRT without a port, of which it has no usual one.
    #[error("the URL names no port; write for example srt://encoder.example:9000")]
    SrtPort,
    /// SRT with something that is not taken from a URL.
    #[error(
        "SRT takes mode=caller, streamid, passphrase, pbkeylen and latency in the query, and nothing else; write %23 for a '#'"
    )]
    SrtOption,
    /// A passphrase that SRT refuses.
    #[error("SRT's passphrase has 10 to 79 characters")]
    SrtPassphrase,
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

/// Says whether a source may be read: RTSP, RTMP, SRT and HTTP with a host, and regular files below `media_root` after
/// resolving links. Where a host may be is decided when it is connected to. Blocks on the file system.
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
        "rtsp" | "rtsps" | "http" | "https" => camera(url),
        "rtmp" | "rtmps" => rtmp(url),
        "srt" => srt(url),
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

fn rtmp(url: Url) -> Result<Source, SourceError> {
    let source = camera(url)?;
    let url = source.url();
    if !url.username().is_empty() || url.password().is_some() {
        return Err(SourceError::RtmpUser);
    }
    let path = url.path().trim_start_matches('/').rsplit_once('/');
    match path {
        Some((application, stream)) if !application.is_empty() && !stream.is_empty() => Ok(source),
        _ => Err(SourceError::RtmpPath),
    }
}

fn srt(url: Url) -> Result<Source, SourceError> {
    let source = camera(url)?;
    let url = source.url();
    if url.port().is_none() {
        return Err(SourceError::SrtPort);
    }
    let bare = matches!(url.path(), "" | "/") && url.fragment().is_none();
    if !bare || !url.username().is_empty() || url.password().is_some() {
        return Err(SourceError::SrtOption);
    }
    for (key, value) in url.query_pairs() {
        let fits = match &*key {
            "mode" => value == "caller",
            "streamid" => (1..=512).contains(&value.len()),
            "passphrase" if !(10..=79).contains(&value.len()) => {
                return Err(SourceError::SrtPassphrase);
            }
            "passphrase" => true,
            "pbkeylen" => matches!(&*value, "16" | "24" | "32"),
            // A minute is far beyond what anybody waits for.
            "latency" => value.parse::<u32>().is_ok_and(|ms| ms <= 60_000),
            _ => false,
        };
        if !fits || value.chars().any(char::is_control) {
            return Err(SourceError::SrtOption);
        }
    }
    Ok(source)
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
