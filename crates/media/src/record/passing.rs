//! What passes, as it is recorded: pictures and frames of sound with what a segment needs to know of them.

use std::sync::Arc;

use gstreamer as gst;

use super::aac;
use super::cut::{Picture, Sound};
use super::nal::{Coding, Framing};
use super::transcode::Transcoder;
use crate::codecs::Codec;
use crate::picture::Coded;

/// A picture that says nothing of its length, nor do those before it.
const USUAL_PICTURE_US: i64 = 40_000;
/// No picture is believed to be shown for longer.
const LONGEST_PICTURE_US: i64 = 120_000_000;
/// Streams without certain entry points: after this long, a picture that the parser calls a keyframe is one.
const ENTRY_WITHIN_US: i64 = 10_000_000;

/// What is known of the pictures.
pub(super) struct Video {
    coding: Coding,
    caps: Option<gst::Caps>,
    framing: Option<Framing>,
    /// The parameter sets that came last.
    sets: Vec<u8>,
    shared_sets: Option<Arc<[u8]>>,
    last_us: Option<i64>,
    /// How long a picture is shown, where they do not say.
    usual_us: i64,
    entry_us: Option<i64>,
}

/// What is done with the sound.
pub(super) struct Audio {
    codec: &'static Codec,
    caps: Option<gst::Caps>,
    way: Way,
}

enum Way {
    /// With headers of its own, or with those that a configuration makes.
    AsItIs(Option<aac::Config>),
    Anew(Box<Transcoder>),
}

impl Video {
    /// Pictures that are coded like this.
    pub(super) fn new(coding: Coding) -> Self {
        Self {
            coding,
            caps: None,
            framing: None,
            sets: Vec::new(),
            shared_sets: None,
            last_us: None,
            usual_us: USUAL_PICTURE_US,
            entry_us: None,
        }
    }

    /// What is recorded of it; none if it is damaged.
    pub(super) fn picture(&mut self, coded: &Coded) -> Option<Picture> {
        self.follow_caps(&coded.caps);
        let framing = self.framing?;
        let map = coded.buffer.map_readable().ok()?;
        let length = framing.length(&map)?;
        let head = self.coding.head(framing, &map, &mut self.sets);
        drop(map);
        let key = self.is_key(coded, head.entry);
        if self.shared_sets.as_deref() != Some(&*self.sets) {
            self.shared_sets = Some(self.sets.as_slice().into());
        }
        let sets = self.shared_sets.clone().filter(|_| key && !head.sets);
        Some(Picture {
            coding: self.coding,
            framing,
            sets,
            delimited: head.delimited,
            key,
            position_us: coded.position_us,
            duration_us: self.duration(coded),
            length,
            data: coded.buffer.clone(),
        })
    }

    fn follow_caps(&mut self, caps: &gst::Caps) {
        if self.caps.as_ref() == Some(caps) {
            return;
        }
        self.caps = Some(caps.clone());
        let structure = caps.structure(0);
        let format = structure.and_then(|s| s.get::<&str>("stream-format").ok());
        if format == Some("byte-stream") {
            self.framing = Some(Framing::StartCodes);
            return;
        }
        let data = structure.and_then(|s| s.get::<gst::Buffer>("codec_data").ok());
        let known = data.and_then(|data| self.coding.configuration(&data.map_readable().ok()?));
        self.framing = known.as_ref().map(|(framing, _)| *framing);
        if let Some((_, sets)) = known.filter(|(_, sets)| !sets.is_empty()) {
            self.sets = sets;
        }
    }

    fn is_key(&mut self, coded: &Coded, entry: bool) -> bool {
        let at_us = coded.position_us;
        let since_us = at_us - *self.entry_us.get_or_insert(at_us);
        let flagged = !coded.buffer.flags().contains(gst::BufferFlags::DELTA_UNIT);
        let key = flagged && (entry || !(0..ENTRY_WITHIN_US).contains(&since_us));
        if key {
            self.entry_us = Some(at_us);
        }
        key
    }

    fn duration(&mut self, coded: &Coded) -> i64 {
        let at_us = coded.position_us;
        let since = self.last_us.replace(at_us).map(|last_us| at_us - last_us);
        let said = coded.buffer.duration().map(gst::ClockTime::useconds);
        match said.and_then(|us| i64::try_from(us).ok()) {
            Some(us) if us > 0 => us.min(LONGEST_PICTURE_US),
            _ => {
                if let Some(us) = since.filter(|us| (1..1_000_000).contains(us)) {
                    self.usual_us = us;
                }
                self.usual_us
            }
        }
    }
}

impl Audio {
    /// Sound of this codec.
    pub(super) fn new(codec: &'static Codec) -> Self {
        Self {
            codec,
            caps: None,
            way: Way::Anew(Box::new(Transcoder::new(codec))),
        }
    }

    /// What was held back.
    pub(super) fn finish(&mut self) -> Vec<Sound> {
        match &mut self.way {
            Way::AsItIs(_) => Vec::new(),
            Way::Anew(transcoder) => transcoder.finish(),
        }
    }

    /// What is recorded of it.
    ///
    /// # Errors
    /// When it cannot be coded anew, in words.
    pub(super) fn sounds(&mut self, coded: &Coded) -> Result<Vec<Sound>, String> {
        if self.caps.as_ref() != Some(&coded.caps) {
            self.caps = Some(coded.caps.clone());
            self.way = match as_it_is(&coded.caps) {
                Some(config) => Way::AsItIs(config),
                None => Way::Anew(Box::new(Transcoder::new(self.codec))),
            };
        }
        match &mut self.way {
            Way::AsItIs(config) => {
                let bytes = coded.buffer.size() + config.map_or(0, |_| aac::HEADER);
                if coded.buffer.size() == 0 || bytes > aac::MAX_FRAME {
                    return Ok(Vec::new());
                }
                Ok(vec![Sound {
                    data: coded.buffer.clone(),
                    config: *config,
                    position_us: coded.position_us,
                    duration_us: frame_us(coded),
                }])
            }
            Way::Anew(transcoder) => transcoder
                .push(&coded.caps, &coded.buffer, coded.position_us)
                .map_err(|failure| {
                    let name = self.codec.name();
                    format!("its sound ({name}) is not recorded: {failure}")
                }),
        }
    }
}

/// AAC that can be written with headers; none for any other sound.
fn as_it_is(caps: &gst::Caps) -> Option<Option<aac::Config>> {
    let structure = caps.structure(0)?;
    let version = structure.get::<i32>("mpegversion").ok()?;
    if structure.name() != "audio/mpeg" || !matches!(version, 2 | 4) {
        return None;
    }
    match structure.get::<&str>("stream-format").ok()? {
        "adts" => Some(None),
        "raw" => {
            let data = structure.get::<gst::Buffer>("codec_data").ok()?;
            aac::Config::parse(&data.map_readable().ok()?).map(Some)
        }
        _ => None,
    }
}

fn frame_us(coded: &Coded) -> i64 {
    let structure = coded.caps.structure(0);
    let rate = structure.and_then(|s| s.get::<i32>("rate").ok());
    let rate = i64::from(rate.filter(|rate| *rate > 0).unwrap_or(48_000));
    aac::SAMPLES * 1_000_000 / rate
}
