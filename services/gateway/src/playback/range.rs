//! The header Range, as far as it is supported: one range of bytes.

use std::ops::Range;

/// What a request wants of a file.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Wanted {
    /// All of it: no range, several, or one that can't be read.
    Whole,
    /// A part that exists.
    Part(Range<u64>),
    /// Only what lies beyond the end.
    Beyond,
}

/// What a Range header means for a file of this size (RFC 9110, 14.2).
pub(super) fn wanted(header: Option<&str>, size: u64) -> Wanted {
    let Some(spec) = header.and_then(|header| header.strip_prefix("bytes=")) else {
        return Wanted::Whole;
    };
    let Some((first, last)) = spec.trim().split_once('-') else {
        return Wanted::Whole;
    };
    match (number(first), number(last)) {
        (Some(first), Some(last)) if first <= last => part(first..last.saturating_add(1), size),
        (Some(first), None) if last.is_empty() => part(first..size, size),
        (None, Some(length)) if first.is_empty() => part(size.saturating_sub(length)..size, size),
        _ => Wanted::Whole,
    }
}

fn part(range: Range<u64>, size: u64) -> Wanted {
    let range = range.start..range.end.min(size);
    if range.is_empty() {
        Wanted::Beyond
    } else {
        Wanted::Part(range)
    }
}

/// Digits alone; too many of them are more than any file has.
fn number(digits: &str) -> Option<u64> {
    let plain = !digits.is_empty() && digits.bytes().all(|c| c.is_ascii_digit());
    plain.then(|| digits.parse().unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_range_is_read_and_anything_else_is_the_whole() {
        use Wanted::{Beyond, Part, Whole};
        for (header, expected) in [
            (None, Whole),
            (Some("bytes=0-0"), Part(0..1)),
            (Some("bytes=0-99"), Part(0..100)),
            (Some("bytes=90-200"), Part(90..100)),
            (Some("bytes=0-99999999999999999999999"), Part(0..100)),
            (Some("bytes=10-"), Part(10..100)),
            (Some("bytes=-10"), Part(90..100)),
            (Some("bytes=-1000"), Part(0..100)),
            (Some("bytes=-0"), Beyond),
            (Some("bytes=100-"), Beyond),
            (Some("bytes=100-200"), Beyond),
            (Some("bytes=20-10"), Whole),
            (Some("bytes=0-1,5-6"), Whole),
            (Some("bytes=-"), Whole),
            (Some("bytes=+1-2"), Whole),
            (Some("bytes= 1-2x"), Whole),
            (Some("lines=1-2"), Whole),
        ] {
            assert_eq!(wanted(header, 100), expected, "{header:?}");
        }
        assert_eq!(wanted(Some("bytes=0-"), 0), Beyond);
    }
}
