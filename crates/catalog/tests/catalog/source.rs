//! Which sources are taken, and how they are shown.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Result;
use sightline_catalog::source::check;

/// How a camera's URL is shown, or a part of why it is refused.
fn check_camera(url: &str, expected: Result<&str, &str>) {
    match (check(url, None), expected) {
        (Ok(source), Ok(shown)) => {
            assert_eq!(source.redacted(), shown, "{url}");
            assert_eq!(source.url().as_str(), url);
            assert!(!source.is_file() && source.path().is_none());
            assert!(!format!("{source:?}").contains("s3cret"), "{source:?}");
        }
        (Err(error), Err(part)) => {
            let message = error.to_string();
            assert!(message.contains(part), "{url}: {message}");
            assert!(!message.contains("s3cret"), "{message}");
        }
        (found, _) => panic!("{url}: {found:?}"),
    }
}

#[test]
fn cameras_are_shown_without_credentials() {
    for (url, shown) in [
        ("rtsp://camera/", "rtsp://camera/"),
        (
            "rtsp://camera.example:8554/live/1",
            "rtsp://camera.example:8554/live/1",
        ),
        ("rtsps://user:s3cret@camera:322/a", "rtsps://camera:322/a"),
        ("rtsp://s3cret@camera/a", "rtsp://camera/a"),
        (
            "rtsp://camera/a?user=u&password=s3cret",
            "rtsp://camera/a?…",
        ),
        (
            "rtsp://camera/a/user=u&password=s3cret/b",
            "rtsp://camera/a/…/b",
        ),
        ("rtsp://camera/a/password%3Ds3cret", "rtsp://camera/a/…"),
        ("rtsp://camera/u:s3cret@other", "rtsp://camera/…"),
        ("rtsp://camera/a#s3cret", "rtsp://camera/a"),
        ("rtsp://u:p%40s3cret@[::1]:554/a", "rtsp://[::1]:554/a"),
        (
            "rtsp://192.168.1.2/Streaming/Channels/101",
            "rtsp://192.168.1.2/Streaming/Channels/101",
        ),
        ("rtmp://server/live/door", "rtmp://server/live/door"),
        (
            "rtmps://server:8443/a/b/door?token=s3cret",
            "rtmps://server:8443/a/b/door?…",
        ),
        ("srt://encoder:9000", "srt://encoder:9000"),
        (
            "srt://10.0.0.1:9000?mode=caller&streamid=%23!::r=a,u=s3cret&passphrase=s3cret-s3cret&pbkeylen=32&latency=500",
            "srt://10.0.0.1:9000?…",
        ),
        (
            "http://user:s3cret@server:8080/live.m3u8?key=s3cret",
            "http://server:8080/live.m3u8?…",
        ),
        ("https://server/a/clip.mp4", "https://server/a/clip.mp4"),
    ] {
        check_camera(url, Ok(shown));
    }
}

#[test]
fn what_is_no_source_says_what_is() {
    for (url, part) in [
        ("", "no URL"),
        ("camera.example/1", "no URL"),
        ("s3cret", "no URL"),
        ("/media/clip.mp4", "no URL"),
        (
            "ftp://user:s3cret@camera/1",
            "ftp:// are not supported; use rtsp://",
        ),
        ("http://", "no URL"),
        ("rtmp://server/door", "application and stream"),
        ("rtmp://server/live/", "application and stream"),
        ("rtmp://u:s3cret@server/live/door", "before the host"),
        ("srt://encoder", "no port"),
        ("srt://encoder:9000/path", "nothing else"),
        ("srt://encoder:9000?mode=listener", "nothing else"),
        ("srt://encoder:9000?streamid=#!::r=s3cret", "nothing else"),
        ("srt://encoder:9000?passphrase=s3cret", "10 to 79"),
        ("srt://encoder:9000?latency=1h", "nothing else"),
        ("srt://encoder:9000?latency=1&latency=90000", "nothing else"),
        ("srt://encoder:9000?localaddress=s3cret", "nothing else"),
        ("gopher://s3cret/1", "gopher:// are not supported"),
        ("rtsp:camera", "no host"),
        ("rtsp://", "no host"),
        ("rtsp:///a", "no host"),
        ("rtsp://user:s3cret@/a", "no URL"),
        ("rtsp://camera:99999/a", "no URL"),
        ("rtsp://camera:0/a", "host or port"),
        ("rtsp://%31%32%37.0.0.1/a", "host or port"),
        ("rtsp://camera/a\nb", "control characters"),
        ("rtsp://cam\tera/a", "control characters"),
        ("rtsp://camera/\u{0}", "control characters"),
        ("rtsp://camera/\u{85}", "control characters"),
        ("file:///media/clip.mp4", "--media-root"),
    ] {
        check_camera(url, Err(part));
    }
}

/// A media root with a neighbour, links in all directions, and a link to the root itself.
fn lay_out(dir: &Path) -> Result<()> {
    let root = dir.join("media");
    fs::create_dir_all(root.join("sub dir"))?;
    fs::create_dir_all(dir.join("media-private"))?;
    for file in [
        "media/clip.mp4",
        "media/sub dir/ä?#.mp4",
        "outside.mp4",
        "media-private/a.mp4",
    ] {
        fs::write(dir.join(file), "not looked into")?;
    }
    symlink(root.join("clip.mp4"), root.join("inside-link.mp4"))?;
    symlink(dir.join("outside.mp4"), root.join("outside-link.mp4"))?;
    symlink(dir, root.join("outside-dir"))?;
    symlink("loop", root.join("loop"))?;
    symlink(&root, dir.join("link-to-media"))?;
    Ok(())
}

/// Checks `file://<dir><path>`: the file it is below `dir`, or a part of why it is refused.
fn check_file(dir: &Path, root: &str, path: &str, expected: Result<&str, &str>) {
    let url = format!("file://{}{path}", dir.display());
    match (check(&url, Some(&dir.join(root))), expected) {
        (Ok(source), Ok(file)) => {
            assert_eq!(source.path(), Some(dir.join(file).as_path()), "{url}");
            assert!(source.is_file());
        }
        (Err(error), Err(part)) => {
            let message = error.to_string();
            assert!(message.contains(part), "{url}: {message}");
        }
        (found, _) => panic!("{url}: {found:?}"),
    }
}

#[test]
fn files_lie_below_the_media_root_after_resolving_links() -> Result<()> {
    let dir = tempfile::tempdir()?;
    let dir = dir.path().canonicalize()?;
    lay_out(&dir)?;
    let outside = "not below the media root";
    for (root, path, expected) in [
        ("media", "/media/clip.mp4", Ok("media/clip.mp4")),
        (
            "media",
            "/media/sub%20dir/%C3%A4%3F%23.mp4",
            Ok("media/sub dir/ä?#.mp4"),
        ),
        (
            "media",
            "/media/sub dir/ä%3f%23.mp4",
            Ok("media/sub dir/ä?#.mp4"),
        ),
        ("media", "/media/inside-link.mp4", Ok("media/clip.mp4")),
        (
            "media",
            "/media/sub%20dir/../clip.mp4",
            Ok("media/clip.mp4"),
        ),
        (
            "media",
            "/media/outside-dir/media/clip.mp4",
            Ok("media/clip.mp4"),
        ),
        (
            "link-to-media",
            "/link-to-media/clip.mp4",
            Ok("media/clip.mp4"),
        ),
        ("link-to-media", "/media/clip.mp4", Ok("media/clip.mp4")),
        ("media", "/outside.mp4", Err(outside)),
        ("media", "/media/../outside.mp4", Err(outside)),
        ("media", "/media/%2e%2e/outside.mp4", Err(outside)),
        ("media", "/media/..%2Foutside.mp4", Err(outside)),
        ("media", "/media/outside-link.mp4", Err(outside)),
        ("media", "/media/outside-dir/outside.mp4", Err(outside)),
        ("media", "/media-private/a.mp4", Err(outside)),
        ("media", "/nobody-says-whether-this-exists", Err(outside)),
        ("media", "/media/missing.mp4", Err("no such file")),
        ("media", "/media/clip.mp4/below", Err("no such file")),
        ("media", "/media", Err("no regular file")),
        ("media", "/media/sub%20dir", Err("no regular file")),
        ("media", "/media/loop", Err("can't be read")),
        ("media", "/media/clip.mp4?a", Err("%3F")),
        ("media", "/media/clip.mp4#a", Err("%23")),
        ("media", "/media/clip%00.mp4", Err("control characters")),
        ("media", "/media/clip%0a.mp4", Err("control characters")),
        ("media", "/media/%FF.mp4", Err("UTF-8")),
        ("no-root", "/media/clip.mp4", Err("--media-root")),
    ] {
        check_file(&dir, root, path, expected);
    }
    for (url, part) in [
        ("file://server/media/clip.mp4", "no host"),
        ("file://user:s3cret@server/a", "no URL"),
        ("file:clip.mp4", outside),
        ("file:///", outside),
        ("file:///etc/passwd", outside),
        ("file:///dev/zero", outside),
    ] {
        let error = check(url, Some(&dir.join("media"))).expect_err(url);
        assert!(error.to_string().contains(part), "{url}: {error}");
    }
    Ok(())
}
