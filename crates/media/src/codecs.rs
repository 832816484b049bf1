//! What can be read: one table each for containers, codecs and RTP payloads.
//!
//! Elements are made from these tables alone. Nothing that comes from a user or a source names an element, and what is in no
//! table (a playlist that leads elsewhere, for example) is refused.

use gstreamer as gst;
use gstreamer::prelude::*;

use crate::chain::element;
use crate::error::Failure;
use crate::record::Coding;

/// The largest picture that is decoded, in pixels a side.
const MAX_EDGE: i32 = 8192;
/// The largest picture that is decoded, in pixels.
const MAX_PIXELS: i64 = 34_000_000;

/// The two kinds of tracks that are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Medium {
    Video,
    Audio,
}

/// A codec: how it is made ready for its decoder, and the decoder.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Codec {
    /// What is decoded.
    pub(crate) medium: Medium,
    /// Its caps, with the field that tells versions apart.
    caps: &'static str,
    version: Option<(&'static str, i32)>,
    /// Cuts the stream into whole pictures or frames; none where the container does so.
    parser: Option<&'static str>,
    /// What the parser is to put out.
    parsed: &'static str,
    /// Decodes them; none for samples that are not coded.
    decoder: Option<&'static str>,
}

const fn codec(
    medium: Medium,
    caps: &'static str,
    parser: &'static str,
    decoder: &'static str,
) -> Codec {
    Codec {
        medium,
        caps,
        version: None,
        parser: if parser.is_empty() {
            None
        } else {
            Some(parser)
        },
        parsed: caps,
        decoder: if decoder.is_empty() {
            None
        } else {
            Some(decoder)
        },
    }
}

impl Codec {
    const fn version(self, field: &'static str, value: i32) -> Self {
        Self {
            version: Some((field, value)),
            ..self
        }
    }

    const fn parsed(self, parsed: &'static str) -> Self {
        Self { parsed, ..self }
    }
}

use Medium::{Audio, Video};

#[rustfmt::skip]
const CODECS: &[Codec] = &[
    codec(Video, "video/x-h264",   "h264parse",       "avdec_h264").parsed("video/x-h264,alignment=au"),
    codec(Video, "video/x-h265",   "h265parse",       "avdec_h265").parsed("video/x-h265,alignment=au"),
    codec(Video, "video/mpeg",     "mpeg4videoparse", "avdec_mpeg4").version("mpegversion", 4),
    codec(Video, "video/mpeg",     "mpegvideoparse",  "avdec_mpeg2video").version("mpegversion", 2),
    codec(Video, "video/mpeg",     "mpegvideoparse",  "avdec_mpeg2video").version("mpegversion", 1),
    codec(Video, "video/x-vp8",    "",                "vp8dec"),
    codec(Video, "video/x-vp9",    "vp9parse",        "vp9dec").parsed("video/x-vp9,alignment=frame"),
    codec(Video, "image/jpeg",     "jpegparse",       "jpegdec"),
    codec(Audio, "audio/mpeg",     "aacparse",        "avdec_aac").version("mpegversion", 4).parsed("audio/mpeg,framed=true"),
    codec(Audio, "audio/mpeg",     "aacparse",        "avdec_aac").version("mpegversion", 2).parsed("audio/mpeg,framed=true"),
    codec(Audio, "audio/mpeg",     "mpegaudioparse",  "mpg123audiodec").version("mpegversion", 1),
    codec(Audio, "audio/x-opus",   "opusparse",       "opusdec"),
    codec(Audio, "audio/x-vorbis", "",                "vorbisdec"),
    codec(Audio, "audio/x-flac",   "flacparse",       "flacdec"),
    codec(Audio, "audio/x-ac3",    "ac3parse",        "avdec_ac3"),
    codec(Audio, "audio/x-mulaw",  "",                "mulawdec"),
    codec(Audio, "audio/x-alaw",   "",                "alawdec"),
    codec(Audio, "audio/x-raw",    "",                ""),
];

/// Containers by what their first bytes look like, with the element that takes them apart, and whether their times count
/// from the start of the file.
const CONTAINERS: &[(&str, &str, bool)] = &[
    ("video/quicktime", "qtdemux", true),
    ("audio/x-m4a", "qtdemux", true),
    ("application/x-3gp", "qtdemux", true),
    ("video/x-matroska", "matroskademux", true),
    ("video/webm", "matroskademux", true),
    ("video/mpegts", "tsdemux", false),
    ("video/mpeg", "mpegpsdemux", false),
    ("video/x-msvideo", "avidemux", true),
    ("video/x-flv", "flvdemux", false),
];

/// RTP payloads by their encoding name, with the element that puts them together and what it is to put out.
const PAYLOADS: &[(Medium, &str, &str, &str)] = &[
    (
        Video,
        "H264",
        "rtph264depay",
        "video/x-h264,stream-format=byte-stream,alignment=au",
    ),
    (
        Video,
        "H265",
        "rtph265depay",
        "video/x-h265,stream-format=byte-stream,alignment=au",
    ),
    (Video, "JPEG", "rtpjpegdepay", "image/jpeg"),
    (
        Audio,
        "MPEG4-GENERIC",
        "rtpmp4gdepay",
        "audio/mpeg,mpegversion=4",
    ),
    (
        Audio,
        "MP4A-LATM",
        "rtpmp4adepay",
        "audio/mpeg,mpegversion=4",
    ),
    (Audio, "PCMU", "rtppcmudepay", "audio/x-mulaw"),
    (Audio, "PCMA", "rtppcmadepay", "audio/x-alaw"),
    (Audio, "OPUS", "rtpopusdepay", "audio/x-opus"),
];

/// The element for a container, from the caps of its first bytes, and whether its times count from the start of the file.
pub(crate) fn demuxer(caps: &gst::Caps) -> Option<(&'static str, bool)> {
    let name = caps.structure(0)?.name();
    let mut known = CONTAINERS.iter();
    let (_, element, from_start) = known.find(|(caps, ..)| *caps == name)?;
    Some((element, *from_start))
}

/// The elements for an RTP payload: what puts it together, and a filter for what that is to put out.
pub(crate) fn depayloader(caps: &gst::Caps) -> Option<(Medium, &'static str, &'static str)> {
    let structure = caps.structure(0)?;
    let medium = medium_of_rtp(structure)?;
    let encoding = structure.get::<&str>("encoding-name").ok()?;
    PAYLOADS
        .iter()
        .find(|(m, name, _, _)| *m == medium && name.eq_ignore_ascii_case(encoding))
        .map(|(medium, _, element, caps)| (*medium, *element, *caps))
}

/// What an RTP payload says it carries.
pub(crate) fn medium_of_rtp(structure: &gst::StructureRef) -> Option<Medium> {
    match structure.get::<&str>("media") {
        Ok("video") => Some(Video),
        Ok("audio") => Some(Audio),
        _ => None,
    }
}

/// The codec with these caps.
pub(crate) fn codec_of(caps: &gst::Caps) -> Option<&'static Codec> {
    let structure = caps.structure(0)?;
    CODECS.iter().find(|codec| {
        let version = |(field, value)| structure.get::<i32>(field) == Ok(value);
        structure.name() == codec.caps && codec.version.is_none_or(version)
    })
}

/// What caps carry, whether or not it can be decoded.
pub(crate) fn medium_of(caps: &gst::Caps) -> Option<Medium> {
    let name = caps.structure(0)?.name();
    if name.starts_with("video/") || name == "image/jpeg" {
        Some(Video)
    } else if name.starts_with("audio/") {
        Some(Audio)
    } else {
        None
    }
}

/// Refuses pictures that are too large to decode.
///
/// # Errors
/// When they are.
pub(crate) fn check_size(caps: &gst::Caps) -> Result<(u32, u32), Failure> {
    let size = |name: &str| {
        let structure = caps.structure(0)?;
        structure.get::<i32>(name).ok()
    };
    let (width, height) = (size("width").unwrap_or(0), size("height").unwrap_or(0));
    if width > MAX_EDGE || height > MAX_EDGE || i64::from(width) * i64::from(height) > MAX_PIXELS {
        return Err(Failure::permanent(format!(
            "its pictures are {width}x{height} pixels: at most {MAX_EDGE} a side and {} megapixels are read",
            MAX_PIXELS / 1_000_000
        )));
    }
    Ok((width.max(0).unsigned_abs(), height.max(0).unsigned_abs()))
}

impl Codec {
    /// The parser. Cameras may send what describes the pictures only once: a `live` one repeats it with every keyframe, so
    /// that a new decoder can start at any of them.
    ///
    /// # Errors
    /// When the plugin is not installed.
    pub(crate) fn parser(&self, live: bool) -> Result<Option<gst::Element>, Failure> {
        let parser = self.parser.map(element).transpose()?;
        if let Some(parser) = parser
            .as_ref()
            .filter(|p| live && p.has_property("config-interval"))
        {
            parser.set_property("config-interval", -1i32);
        }
        Ok(parser)
    }

    /// How its pictures are made up, where they can be recorded.
    pub(crate) fn coding(&self) -> Option<Coding> {
        match self.caps {
            "video/x-h264" => Some(Coding::H264),
            "video/x-h265" => Some(Coding::H265),
            _ => None,
        }
    }

    /// What people call it.
    pub(crate) fn name(&self) -> String {
        match (self.caps, self.version) {
            ("video/mpeg", Some((_, version))) => format!("MPEG-{version}"),
            ("image/jpeg", _) => "Motion JPEG".to_owned(),
            ("audio/mpeg", Some((_, 1))) => "MP3".to_owned(),
            ("audio/mpeg", _) => "AAC".to_owned(),
            (caps, _) => {
                let name = caps.rsplit(['/', '-']).next().unwrap_or(caps);
                name.to_uppercase()
            }
        }
    }

    /// What the parser is to put out.
    pub(crate) fn parsed_caps(&self) -> gst::Caps {
        caps(self.parsed)
    }

    /// The decoder, on one thread: no picture waits for another one, and no memory is spent on pictures in flight.
    ///
    /// # Errors
    /// When the plugin is not installed.
    pub(crate) fn decoder(&self) -> Result<Option<gst::Element>, Failure> {
        let Some(decoder) = self.decoder.map(element).transpose()? else {
            return Ok(None);
        };
        for (property, value) in [
            ("max-threads", "1"),
            ("threads", "1"),
            // "Strict" waits for more pictures than the stream's own reordering needs.
            ("std-compliance", "normal"),
        ] {
            if decoder.has_property(property) {
                decoder.set_property_from_str(property, value);
            }
        }
        Ok(Some(decoder))
    }
}

/// Caps from one of the tables above.
pub(crate) fn caps(text: &'static str) -> gst::Caps {
    text.parse().expect("the tables hold caps")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_element_of_the_tables_is_installed_and_its_caps_are_caps() {
        gst::init().expect("gstreamer");
        for codec in CODECS {
            codec.parser(true).expect("parser");
            codec.decoder().expect("decoder");
            codec.parsed_caps();
        }
        for (_, demuxer, _) in CONTAINERS {
            element(demuxer).expect("demuxer");
        }
        for (_, _, depayloader, put_out) in PAYLOADS {
            element(depayloader).expect("depayloader");
            caps(put_out);
        }
    }

    #[test]
    fn pictures_are_refused_by_side_and_by_area() {
        gst::init().expect("gstreamer");
        let check = |width: i32, height: i32| {
            let caps = gst::Caps::builder("video/x-h264")
                .field("width", width)
                .field("height", height)
                .build();
            check_size(&caps).is_ok()
        };
        assert!(check(1920, 1080));
        assert!(check(8192, 4096));
        assert!(!check(8193, 16));
        assert!(!check(16, 8193));
        assert!(!check(8192, 8192));
    }

    #[test]
    fn playlists_and_text_are_no_containers() {
        gst::init().expect("gstreamer");
        for name in [
            "application/x-hls",
            "text/plain",
            "application/sdp",
            "text/uri-list",
        ] {
            assert_eq!(demuxer(&gst::Caps::builder(name).build()), None, "{name}");
        }
    }
}
