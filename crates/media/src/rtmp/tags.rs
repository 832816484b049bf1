//! What RTMP's messages of sound and pictures hold: FLV's tags, and those of Enhanced RTMP for H.265.

use gstreamer as gst;

use crate::codecs::Medium;

/// What one message says.
#[derive(Debug, Clone, PartialEq)]
pub(super) enum Tag {
    /// How what follows is coded.
    Config(gst::Caps),
    /// A picture or a piece of sound.
    Media {
        /// How much later than it is decoded it is shown, in milliseconds.
        shown_after_ms: i32,
        key: bool,
        data: Vec<u8>,
    },
    /// A codec that is not read, by its name.
    Unknown(String),
    /// Nothing that matters.
    Nothing,
}

/// Reads a message of this medium.
pub(super) fn read(medium: Medium, data: &[u8]) -> Tag {
    let read = match medium {
        Medium::Video => video(data),
        Medium::Audio => audio(data),
    };
    read.unwrap_or(Tag::Nothing)
}

/// A frame of this kind holds no picture, but something that the server tells.
const INFO: u8 = 5;

fn video(data: &[u8]) -> Option<Tag> {
    let first = *data.first()?;
    if first >> 4 & 7 == INFO {
        return None;
    }
    if first & 0x80 != 0 {
        return enhanced(first, data);
    }
    let (kind, codec) = (first >> 4, first & 0x0f);
    let name = match codec {
        7 => "video/x-h264",
        // Not FLV's, but what many cameras and servers put there.
        12 => "video/x-h265",
        2 => return Some(Tag::Unknown("Sorenson H.263".to_owned())),
        4 | 5 => return Some(Tag::Unknown("VP6".to_owned())),
        _ => return Some(Tag::Unknown(format!("FLV's codec {codec}"))),
    };
    let rest = data.get(5..)?;
    match data.get(1)? {
        0 => Some(Tag::Config(pictures(name, rest))),
        1 => Some(Tag::Media {
            shown_after_ms: composition(data.get(2..5)?),
            key: kind == 1,
            data: rest.to_vec(),
        }),
        _ => None,
    }
}

/// A tag with a name of four letters for its codec.
fn enhanced(first: u8, data: &[u8]) -> Option<Tag> {
    let codec = data.get(1..5)?;
    let name = match codec {
        b"hvc1" => "video/x-h265",
        b"avc1" => "video/x-h264",
        other => return Some(Tag::Unknown(String::from_utf8_lossy(other).into_owned())),
    };
    let key = first >> 4 & 7 == 1;
    let (shown_after_ms, from) = match first & 0x0f {
        0 => return Some(Tag::Config(pictures(name, data.get(5..)?))),
        1 => (composition(data.get(5..8)?), 8),
        3 => (0, 5),
        _ => return None,
    };
    Some(Tag::Media {
        shown_after_ms,
        key,
        data: data.get(from..)?.to_vec(),
    })
}

fn pictures(name: &'static str, config: &[u8]) -> gst::Caps {
    let format = if name == "video/x-h264" {
        "avc"
    } else {
        "hvc1"
    };
    gst::Caps::builder(name)
        .field("stream-format", format)
        .field("alignment", "au")
        .field("codec_data", gst::Buffer::from_slice(config.to_vec()))
        .build()
}

/// 24 bits with a sign.
fn composition(bytes: &[u8]) -> i32 {
    match bytes {
        [a, b, c] => i32::from_be_bytes([*a, *b, *c, 0]) >> 8,
        _ => 0,
    }
}

fn audio(data: &[u8]) -> Option<Tag> {
    match data.first()? >> 4 {
        10 if data.get(1)? == &0 => {
            let caps = gst::Caps::builder("audio/mpeg")
                .field("mpegversion", 4i32)
                .field("stream-format", "raw")
                .field(
                    "codec_data",
                    gst::Buffer::from_slice(data.get(2..)?.to_vec()),
                );
            Some(Tag::Config(caps.build()))
        }
        10 => Some(sound_of(data.get(2..)?)),
        2 | 7 | 8 | 14 => Some(sound_of(data.get(1..)?)),
        format => Some(Tag::Unknown(format!("FLV's sound {format}"))),
    }
}

/// How sound is coded that needs no message to say so.
pub(super) fn implied(data: &[u8]) -> Option<gst::Caps> {
    match data.first()? >> 4 {
        2 | 14 => Some(
            gst::Caps::builder("audio/mpeg")
                .field("mpegversion", 1i32)
                .field("layer", 3i32)
                .build(),
        ),
        7 => Some(telephone("audio/x-alaw")),
        8 => Some(telephone("audio/x-mulaw")),
        _ => None,
    }
}

fn sound_of(data: &[u8]) -> Tag {
    if data.is_empty() {
        return Tag::Nothing;
    }
    Tag::Media {
        shown_after_ms: 0,
        key: true,
        data: data.to_vec(),
    }
}

fn telephone(name: &'static str) -> gst::Caps {
    gst::Caps::builder(name)
        .field("rate", 8000i32)
        .field("channels", 1i32)
        .build()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn media(shown_after_ms: i32, key: bool, data: &[u8]) -> Tag {
        Tag::Media {
            shown_after_ms,
            key,
            data: data.to_vec(),
        }
    }

    fn name(tag: &Tag) -> Option<String> {
        match tag {
            Tag::Config(caps) => caps.structure(0).map(|s| s.name().to_string()),
            _ => None,
        }
    }

    #[test]
    fn pictures_are_read_in_the_old_form_and_the_enhanced_one() {
        gst::init().expect("gstreamer");
        let read = |data: &[u8]| read(Medium::Video, data);
        for (config, expected) in [
            (&[0x17, 0, 0, 0, 0, 1, 2][..], "video/x-h264"),
            (&[0x1c, 0, 0, 0, 0, 1, 2], "video/x-h265"),
            (b"\x90hvc1\x01\x02", "video/x-h265"),
            (b"\x90avc1\x01\x02", "video/x-h264"),
        ] {
            assert_eq!(name(&read(config)).as_deref(), Some(expected));
        }
        assert_eq!(read(&[0x17, 1, 0, 0, 80, 9, 8]), media(80, true, &[9, 8]));
        assert_eq!(
            read(&[0x27, 1, 0xff, 0xff, 0xff, 9]),
            media(-1, false, &[9])
        );
        assert_eq!(read(b"\x91hvc1\0\0\x50\x09"), media(80, true, &[9]));
        assert_eq!(read(b"\xa3hvc1\x09"), media(0, false, &[9]));
        assert_eq!(read(b"\x90av01\x01"), Tag::Unknown("av01".to_owned()));
        for nothing in [
            &[][..],
            &[0x17],
            &[0x17, 1, 0],
            &[0x17, 2, 0, 0, 0],
            &[0x52, 0],
            &[0x57, 1, 0, 0, 0, 0],
            b"\xd1hvc1\0\0\0\0",
            b"\x91hvc1",
        ] {
            assert_eq!(read(nothing), Tag::Nothing, "{nothing:?}");
        }
    }

    #[test]
    fn sound_is_read() {
        gst::init().expect("gstreamer");
        let read = |data: &[u8]| read(Medium::Audio, data);
        assert_eq!(
            name(&read(&[0xaf, 0, 0x12, 0x10])).as_deref(),
            Some("audio/mpeg")
        );
        assert_eq!(read(&[0xaf, 1, 5, 6]), media(0, true, &[5, 6]));
        assert_eq!(read(&[0x72, 5]), media(0, true, &[5]));
        assert!(implied(&[0x72, 5]).is_some() && implied(&[0xaf, 1]).is_none());
        assert_eq!(read(&[0xaf, 1]), Tag::Nothing);
        assert_eq!(read(&[0xb0, 1]), Tag::Unknown("FLV's sound 11".to_owned()));
    }
}
