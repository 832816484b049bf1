//! A camera's answers, looked at before anybody acts on them.

use crate::error::Failure;

/// The largest head of a message.
const MAX_HEAD: usize = 16 << 10;
/// The largest description of a stream.
const MAX_BODY: usize = 64 << 10;

/// Follows the bytes that a camera sends: messages, and media between them.
#[derive(Default)]
pub(crate) struct Answers {
    /// The head of the message under way; passed on when it is complete and sound.
    head: Vec<u8>,
    /// Bytes that belong to the body or the media packet under way.
    rest: usize,
}

impl Answers {
    /// Takes the next bytes and returns those that may be passed on.
    ///
    /// # Errors
    /// When the camera sends elsewhere, or something that is too large or no RTSP.
    pub(crate) fn check(&mut self, mut bytes: &[u8]) -> Result<Vec<u8>, Failure> {
        let mut sound = Vec::with_capacity(bytes.len() + self.head.len());
        while !bytes.is_empty() {
            let passed = self.rest.min(bytes.len());
            sound.extend_from_slice(&bytes[..passed]);
            self.rest -= passed;
            bytes = &bytes[passed..];
            let Some((first, after)) = bytes.split_first() else {
                break;
            };
            // Some end a body with a line of their own.
            if self.head.is_empty() && (*first == b'\r' || *first == b'\n') {
                sound.push(*first);
            } else {
                self.head.push(*first);
                self.rest = self.length_of_rest()?.unwrap_or(0);
                if self.is_complete() {
                    sound.append(&mut self.head);
                }
            }
            bytes = after;
        }
        Ok(sound)
    }

    fn is_media(&self) -> bool {
        self.head.first() == Some(&b'$')
    }

    fn is_complete(&self) -> bool {
        if self.is_media() {
            self.head.len() == 4
        } else {
            self.head.ends_with(b"\r\n\r\n") || self.head.ends_with(b"\n\n")
        }
    }

    /// How many bytes follow the head, once it is complete.
    fn length_of_rest(&self) -> Result<Option<usize>, Failure> {
        if self.head.len() > MAX_HEAD {
            return Err(Failure::permanent(
                "what answers there sends a message without an end",
            ));
        }
        if !self.is_complete() {
            return Ok(None);
        }
        if self.is_media() {
            let length = u16::from_be_bytes([self.head[2], self.head[3]]);
            return Ok(Some(usize::from(length)));
        }
        message(&String::from_utf8_lossy(&self.head)).map(Some)
    }
}

/// Refuses what must not be followed; the length of the body otherwise.
fn message(head: &str) -> Result<usize, Failure> {
    let mut lines = head.lines();
    let first = lines.next().unwrap_or_default();
    let mut words = first.split(' ');
    let start = words.next().unwrap_or_default();
    if start.starts_with("RTSP/") {
        let status = words.next().unwrap_or_default();
        if status.len() == 3 && status.starts_with('3') {
            return Err(Failure::permanent(
                "the camera sends to another address, which is not followed: connect to that one if you trust it",
            ));
        }
    } else if start == "REDIRECT" {
        return Err(Failure::passing(
            "the camera sends to another address, which is not followed",
        ));
    } else if !first.contains(" RTSP/") {
        return Err(Failure::permanent("what answers there is no RTSP server"));
    }
    let mut body = 0;
    for line in lines {
        let Some((name, value)) = line.split_once(':') else {
            continue;
        };
        if name.trim().eq_ignore_ascii_case("content-length") {
            let length = value.trim().parse().unwrap_or(usize::MAX);
            if length > MAX_BODY {
                return Err(Failure::permanent(format!(
                    "the camera describes its stream in {} bytes: at most {MAX_BODY} are read",
                    value.trim().chars().take(20).collect::<String>()
                )));
            }
            body = length;
        }
    }
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Feeds the bytes in pieces of every size: what is passed on, or why nothing more is.
    fn check(bytes: &[u8], expected: Result<&[u8], &str>) {
        for size in [1, 2, 3, 7, bytes.len()] {
            let mut answers = Answers::default();
            let mut passed = Vec::new();
            let mut refused = None;
            for piece in bytes.chunks(size) {
                match answers.check(piece) {
                    Ok(sound) => passed.extend(sound),
                    Err(failure) => {
                        refused = Some(failure.reason);
                        break;
                    }
                }
            }
            match (&refused, expected) {
                (None, Ok(expected)) => assert_eq!(passed, expected, "pieces of {size}"),
                (Some(reason), Err(part)) => assert!(reason.contains(part), "{reason}"),
                _ => panic!("{refused:?}, pieces of {size}"),
            }
        }
    }

    #[test]
    fn answers_and_media_pass_unchanged() {
        let described = b"RTSP/1.0 200 OK\r\nCSeq: 2\r\ncontent-length: 5\r\n\r\nv=0\r\n";
        let media = b"$\x00\x00\x03abc$\x01\x00\x00$\x00\x00\x04\r\n\r\n";
        let asked = b"OPTIONS * RTSP/1.0\r\nCSeq: 1\r\n\r\n";
        let all = [&described[..], media, asked, media].concat();
        check(&all, Ok(&all));
    }

    #[test]
    fn a_head_is_passed_on_only_when_it_is_complete() {
        check(b"RTSP/1.0 200 OK\r\nCSeq: 2\r\n", Ok(b""));
        check(b"$\x00\x01", Ok(b""));
    }

    #[test]
    fn redirects_are_not_followed() {
        let to = "RTSP/1.0 302 Moved\r\nLocation: rtsp://127.0.0.2/\r\n\r\n";
        check(to.as_bytes(), Err("sends to another address"));
        check(
            b"REDIRECT rtsp://a/b RTSP/1.0\r\nCSeq: 1\r\n\r\n",
            Err("sends to another address"),
        );
    }

    #[test]
    fn lengths_are_not_believed() {
        for length in ["65537", "1000000000", "-1", "99999999999999999999999"] {
            let head = format!("RTSP/1.0 200 OK\r\nContent-Length: {length}\r\n\r\n");
            check(head.as_bytes(), Err("bytes: at most 65536"));
        }
        let endless = format!("RTSP/1.0 200 OK\r\nX: {}", "a".repeat(MAX_HEAD));
        check(endless.as_bytes(), Err("without an end"));
    }

    #[test]
    fn what_is_no_rtsp_is_named() {
        check(b"HTTP/1.1 400 Bad Request\r\n\r\n", Err("no RTSP server"));
    }
}
