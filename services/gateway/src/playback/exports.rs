//! Files of exports, with ranges, under a name that people know.

use axum::response::Response;
use http::{HeaderMap, StatusCode, header};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use sightline_proto::ids::Kind;
use sightline_proto::internal::ExportRecord;
use sightline_proto::v1::Export;
use sightline_proto::v1::export::State;

use super::answer::{Refusal, set, streamed, unchanged};
use super::range::{Wanted, wanted};
use super::{Playback, is_token};
use crate::api::well_formed;

const CACHING: &str = "private, max-age=3600";
/// The longest name of a file that is offered, in characters.
const MAX_NAME: usize = 80;
/// Letters, digits and these stay as they are in an encoded name.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.');

impl Playback {
    /// The file of an export, or a part of it.
    pub(super) async fn export(
        &self,
        token: &str,
        file: &str,
        headers: &HeaderMap,
    ) -> Result<Response, Refusal> {
        let id = file.strip_suffix(".mp4").unwrap_or("");
        if !well_formed(Kind::Export, id) || !is_token(token) {
            return Err(Refusal::NotFound("there is nothing here"));
        }
        let now_us = self.core.clock.now_us();
        self.core.config.links.check_export(id, token, now_us)?;
        let record = self.core.catalog.get::<ExportRecord>(id);
        let export = record.and_then(|record| record.value.export.clone());
        let export = export.filter(|export| export.state() == State::Done);
        let export = export.ok_or(Refusal::NotFound("this export is not done"))?;
        let size = u64::try_from(export.bytes).unwrap_or(0);
        let tag = tag(&export);
        if let Some(response) = unchanged(headers, &tag, CACHING) {
            return Ok(response);
        }
        let part = match wanted(range(headers, &tag), size) {
            Wanted::Whole => None,
            Wanted::Part(part) => Some(part),
            Wanted::Beyond => return Err(Refusal::Beyond(size)),
        };
        let store = self.core.library.store();
        let body = store.export(id, part.clone()).await?;
        let (range, size) = (body.range.clone(), body.size);
        let mut response = streamed(body, "video/mp4", CACHING);
        if part.is_some() {
            *response.status_mut() = StatusCode::PARTIAL_CONTENT;
            let last = range.end.saturating_sub(1);
            let place = format!("bytes {}-{last}/{size}", range.start);
            set(&mut response, header::CONTENT_RANGE, &place);
        }
        set(&mut response, header::ACCEPT_RANGES, "bytes");
        set(&mut response, header::ETAG, &tag);
        let disposition = disposition(&export.name);
        set(&mut response, header::CONTENT_DISPOSITION, &disposition);
        Ok(response)
    }
}

/// The range asked for, unless it is of another version of the file.
fn range<'a>(headers: &'a HeaderMap, tag: &str) -> Option<&'a str> {
    if headers
        .get(header::IF_RANGE)
        .is_some_and(|known| known.as_bytes() != tag.as_bytes())
    {
        return None;
    }
    headers.get(header::RANGE)?.to_str().ok()
}

/// An export that was tried again is another file.
fn tag(export: &Export) -> String {
    let made = export.create_time.as_ref();
    let made = made.map_or(0, sightline_proto::time::micros);
    format!("\"{}-{made}-{}\"", export.id, export.bytes)
}

/// Offers the file under the export's name: letters and digits of ASCII in one form, all of it, encoded, in the other
/// (RFC 6266).
fn disposition(name: &str) -> String {
    let name: String = name
        .chars()
        .map(|c| {
            if c.is_control() || "/\\:*?\"<>|".contains(c) {
                '-'
            } else {
                c
            }
        })
        .take(MAX_NAME)
        .collect();
    let name = name.trim_matches(|c: char| c == '.' || c.is_whitespace());
    let name = if name.is_empty() { "recording" } else { name };
    let plain = |c: char| {
        if c.is_ascii_alphanumeric() || "-_. ".contains(c) {
            c
        } else {
            '-'
        }
    };
    let ascii: String = name.chars().map(plain).collect();
    format!(
        "attachment; filename=\"{ascii}.mp4\"; filename*=UTF-8''{}.mp4",
        utf8_percent_encode(name, ENCODED)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_files_hold_nothing_with_a_meaning() {
        for (name, ascii, all) in [
            ("Front door", "Front door", "Front%20door"),
            ("", "recording", "recording"),
            ("../../etc/passwd", "-..-etc-passwd", "-..-etc-passwd"),
            ("a\"; f=\"x.exe", "a-- f--x.exe", "a-%3B%20f%3D-x.exe"),
            (
                "a\r\nset-cookie: x",
                "a--set-cookie- x",
                "a--set-cookie-%20x",
            ),
            ("Tür", "T-r", "T%C3%BCr"),
        ] {
            let expected =
                format!("attachment; filename=\"{ascii}.mp4\"; filename*=UTF-8''{all}.mp4");
            assert_eq!(disposition(name), expected, "{name:?}");
        }
        assert!(disposition(&"ä".repeat(1000)).len() < 700);
    }
}
