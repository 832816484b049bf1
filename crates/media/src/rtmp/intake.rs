//! From RTMP's tags to the pipeline: an intake for each medium, made when it is known how it is coded.

use std::sync::Arc;

use gstreamer as gst;
use gstreamer::prelude::*;
use gstreamer_app as gst_app;

use super::tags::{self, Tag};
use crate::codecs::{self, Medium};
use crate::error::Failure;
use crate::tracks::Tracks;

/// Hands media to the pipeline.
pub(super) struct Intake {
    pipeline: gst::Pipeline,
    tracks: Arc<Tracks>,
    clock: MediaClock,
    video: Track,
    audio: Track,
}

/// One medium.
#[derive(Default)]
struct Track {
    source: Option<gst_app::AppSrc>,
    caps: Option<gst::Caps>,
    /// It is not read.
    ignored: bool,
}

impl Intake {
    pub(super) fn new(pipeline: gst::Pipeline, tracks: Arc<Tracks>) -> Self {
        Self {
            pipeline,
            tracks,
            clock: MediaClock::default(),
            video: Track::default(),
            audio: Track::default(),
        }
    }

    /// Takes a message of sound or pictures.
    ///
    /// # Errors
    /// When it can't be read, or is coded in another way than before.
    pub(super) fn take(
        &mut self,
        medium: Medium,
        time_ms: u32,
        data: &[u8],
    ) -> Result<(), Failure> {
        if medium == Medium::Audio
            && self.audio.caps.is_none()
            && let Some(caps) = tags::implied(data)
        {
            self.configure(medium, caps)?;
        }
        match tags::read(medium, data) {
            Tag::Config(caps) => self.configure(medium, caps),
            Tag::Media {
                shown_after_ms,
                key,
                data,
            } => self.push(medium, time_ms, shown_after_ms, key, data),
            Tag::Unknown(name) => {
                let track = self.track(medium);
                if !std::mem::replace(&mut track.ignored, true) {
                    self.tracks.unsupported(Some(medium), name);
                    if medium == Medium::Video {
                        return self.tracks.check();
                    }
                }
                Ok(())
            }
            Tag::Nothing => Ok(()),
        }
    }

    fn track(&mut self, medium: Medium) -> &mut Track {
        match medium {
            Medium::Video => &mut self.video,
            Medium::Audio => &mut self.audio,
        }
    }

    fn configure(&mut self, medium: Medium, caps: gst::Caps) -> Result<(), Failure> {
        let track = self.track(medium);
        if track.caps.as_ref() == Some(&caps) {
            return Ok(());
        }
        let coded = |caps: &gst::Caps| caps.structure(0).map(|s| s.name().to_string());
        if let (Some(source), Some(before)) = (&track.source, &track.caps) {
            if coded(before) != coded(&caps) {
                return Err(Failure::passing(
                    "the camera codes its stream in another way now",
                ));
            }
            source.set_caps(Some(&caps));
            track.caps = Some(caps);
            return Ok(());
        }
        let Some(codec) = codecs::codec_of(&caps) else {
            return Ok(());
        };
        if !self.tracks.wants(Some(medium))? {
            return Ok(());
        }
        let source = gst_app::AppSrc::builder()
            .is_live(true)
            .format(gst::Format::Time)
            .caps(&caps)
            .build();
        let unfit = |e: gst::glib::BoolError| {
            Failure::passing(format!("a track cannot be read: {}", e.message))
        };
        self.pipeline.add(&source).map_err(unfit)?;
        let output = source.static_pad("src");
        let output = output.ok_or_else(|| Failure::passing("a track cannot be read"))?;
        self.tracks.attach(&output, codec)?;
        source.sync_state_with_parent().map_err(unfit)?;
        let track = self.track(medium);
        track.source = Some(source);
        track.caps = Some(caps);
        Ok(())
    }

    fn push(
        &mut self,
        medium: Medium,
        time_ms: u32,
        shown_after_ms: i32,
        key: bool,
        data: Vec<u8>,
    ) -> Result<(), Failure> {
        let now = self.pipeline.current_running_time();
        let now_us = now.map_or(0, |now| now.useconds()).cast_signed();
        let decoded_us = self.clock.read(time_ms, now_us)?;
        let shown_us = decoded_us + i64::from(shown_after_ms) * 1000;
        let Some(source) = &self.track(medium).source else {
            return Ok(());
        };
        let time = |us: i64| gst::ClockTime::from_useconds(us.max(0).unsigned_abs());
        let mut buffer = gst::Buffer::from_mut_slice(data);
        if let Some(buffer) = buffer.get_mut() {
            buffer.set_pts(time(shown_us));
            buffer.set_dts(time(decoded_us));
            if !key {
                buffer.set_flags(gst::BufferFlags::DELTA_UNIT);
            }
        }
        // It refuses only when the pipeline is being closed.
        let _ = source.push_buffer(buffer);
        Ok(())
    }
}

/// Brings the server's times onto the pipeline's clock.
///
/// Both run at nearly the same pace. What they drift apart is made up for little by little, so that a stream of weeks stays on
/// time and no jump is heard.
#[derive(Default)]
struct MediaClock {
    known: Option<Known>,
}

struct Known {
    last_ms: u32,
    /// The server's time without its beginning again, in microseconds.
    media_us: i64,
    /// What has to be added to it.
    offset_us: i64,
    /// When that was looked at last, on the pipeline's clock.
    adjusted_us: i64,
}

/// How fast the two are brought together, in parts of the time that passes.
const SLEW: i64 = 1000;
/// Sound and pictures may be this much out of order.
const MOST_BACK_MS: i32 = 5000;
/// How far the server's times may be from when they come: more than servers keep for those who join.
const MOST_OFF_US: i64 = 30_000_000;

impl MediaClock {
    /// The pipeline's time of a message that has come now.
    ///
    /// # Errors
    /// When the server's times have jumped: its sender was started again.
    fn read(&mut self, time_ms: u32, now_us: i64) -> Result<i64, Failure> {
        let known = self.known.get_or_insert(Known {
            last_ms: time_ms,
            media_us: 0,
            offset_us: now_us,
            adjusted_us: now_us,
        });
        let since_ms = time_ms.wrapping_sub(known.last_ms).cast_signed();
        known.media_us += i64::from(since_ms) * 1000;
        known.last_ms = time_ms;
        let off_us = now_us - known.media_us - known.offset_us;
        if since_ms < -MOST_BACK_MS || off_us.abs() > MOST_OFF_US {
            return Err(Failure::passing("the stream's times begin anew"));
        }
        let most_us = (now_us - known.adjusted_us) / SLEW;
        if most_us > 0 {
            known.adjusted_us = now_us;
            known.offset_us += off_us.clamp(-most_us, most_us);
        }
        Ok(known.media_us + known.offset_us)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_begin_now_go_on_through_their_wrap_and_drift_no_further() {
        let mut clock = MediaClock::default();
        let mut read = |time_ms, now_us| clock.read(time_ms, now_us).expect("no jump");
        let before_wrap = u32::MAX - 39;
        assert_eq!(read(before_wrap, 700_000), 700_000);
        assert_eq!(read(0, 700_500), 740_000);
        // Sound that was cut earlier comes a little later.
        assert_eq!(read(u32::MAX - 9, 700_900), 730_000);
        // A server whose clock runs fast by half a thousandth, for a day.
        let mut off_us = 0;
        for second in 1..86_400i64 {
            let now_us = 700_900 + second * 1_000_000;
            let time_ms = (second * 1_000_500 / 1000) as u32;
            off_us = read(time_ms, now_us) - now_us;
        }
        assert!(off_us.abs() < 50_000, "{off_us}");
    }

    #[test]
    fn times_that_jump_are_told() {
        for (next_ms, later_us, jumped) in [
            (100_040, 40_000, false),
            (96_000, 0, false),
            (94_000, 0, true),
            (0, 40_000, true),
            // What the server kept for those who join.
            (125_000, 1000, false),
            (140_000, 1000, true),
            (100_040, 40_000_000, true),
        ] {
            let mut clock = MediaClock::default();
            clock.read(100_000, 0).expect("the first");
            let read = clock.read(next_ms, later_us);
            assert_eq!(read.is_err(), jumped, "{next_ms} {later_us}");
            assert!(read.err().is_none_or(|failure| !failure.permanent));
        }
    }
}
