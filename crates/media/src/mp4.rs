//! Writes an MP4 out of coded pictures and sound: what is coded goes into a file beside it, then the index and that into it.
//!
//! GStreamer's own muxer waits for the track that is furthest behind, for ever if it has ended or has a hole.

use std::fs::File;
use std::io::{self, BufWriter, Write};
use std::path::{Path, PathBuf};

use crate::codecs::Medium;
use crate::mp4_index;

/// A file under way.
pub(crate) struct Mp4 {
    file: PathBuf,
    /// Where what is coded waits for the index.
    part: PathBuf,
    out: BufWriter<File>,
    bytes: u64,
    tracks: Vec<Track>,
    /// Which track was written to last.
    last: Option<usize>,
}

/// A track: all that its index says. About 24 bytes a sample.
pub(crate) struct Track {
    pub(crate) medium: Medium,
    /// Units a second of its times.
    pub(crate) timescale: u32,
    /// How what is in it is coded: almost always one.
    pub(crate) descriptions: Vec<Description>,
    pub(crate) samples: Vec<Sample>,
    pub(crate) chunks: Vec<Chunk>,
}

/// How samples are coded.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Description {
    /// `avc1`, `hvc1` or `mp4a`.
    pub(crate) kind: &'static [u8; 4],
    /// What a decoder is set up with.
    pub(crate) setup: Vec<u8>,
    /// Pictures: their size in pixels, and the shape of a pixel.
    pub(crate) size: (u16, u16),
    pub(crate) pixel: (u32, u32),
    /// Sound: channels and sampling rate.
    pub(crate) channels: u16,
    pub(crate) rate: u32,
}

/// A picture or a frame of sound. Times are in the track's units.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Sample {
    pub(crate) bytes: u32,
    pub(crate) decoded: i64,
    pub(crate) shown: i64,
    pub(crate) key: bool,
}

/// Samples in a row in the file.
pub(crate) struct Chunk {
    /// From the first coded byte on.
    pub(crate) at: u64,
    pub(crate) samples: u32,
    /// Which description they have, from 0.
    pub(crate) description: usize,
}

impl Mp4 {
    /// Begins a file. Until it is finished there is only one beside it, named `.part`.
    ///
    /// # Errors
    /// When that cannot be created.
    pub(crate) fn create(file: &Path) -> io::Result<Self> {
        let part = file.with_extension("part");
        Ok(Self {
            out: BufWriter::with_capacity(1 << 20, File::create(&part)?),
            file: file.to_owned(),
            part,
            bytes: 0,
            tracks: Vec::new(),
            last: None,
        })
    }

    /// Adds a track.
    pub(crate) fn add(&mut self, medium: Medium, timescale: u32) -> usize {
        self.tracks.push(Track {
            medium,
            timescale,
            descriptions: Vec::new(),
            samples: Vec::new(),
            chunks: Vec::new(),
        });
        self.tracks.len() - 1
    }

    /// Writes the next sample of a track; its length is told from the bytes.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn write(
        &mut self,
        track: usize,
        description: &Description,
        sample: Sample,
        bytes: &[u8],
    ) -> io::Result<()> {
        let goes_on = self.last.replace(track) == Some(track);
        let at = self.bytes;
        let track = &mut self.tracks[track];
        let known = track.descriptions.iter().rposition(|d| d == description);
        let description = known.unwrap_or_else(|| {
            track.descriptions.push(description.clone());
            track.descriptions.len() - 1
        });
        match track.chunks.last_mut() {
            Some(chunk) if goes_on && chunk.description == description => chunk.samples += 1,
            _ => track.chunks.push(Chunk {
                at,
                samples: 1,
                description,
            }),
        }
        track.samples.push(Sample {
            bytes: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            ..sample
        });
        self.out.write_all(bytes)?;
        self.bytes += bytes.len() as u64;
        Ok(())
    }

    /// Completes the file.
    ///
    /// # Errors
    /// When it cannot be written.
    pub(crate) fn finish(mut self) -> io::Result<()> {
        self.out.flush()?;
        let begin = mp4_index::begin(&self.tracks, self.bytes);
        let mut file = File::create(&self.file)?;
        file.write_all(&begin)?;
        io::copy(&mut File::open(&self.part)?, &mut file)?;
        Ok(())
    }
}

impl Drop for Mp4 {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.part);
    }
}
