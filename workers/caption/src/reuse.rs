//! Descriptions of windows whose pictures have hardly changed, taken over from the last one that was described.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use bytes::Bytes;
use sightline_inference::{InferenceError, RgbImage};
use sightline_proto::internal::FrameWindow;

use crate::plan::{Described, Wanted};

/// Most indexes that are kept in mind; beyond it the one that was described longest ago is forgotten.
const MAX_INDEXES: usize = 4096;
/// Cells of each frame whose brightness is compared: noise of single pixels is no change.
const COLUMNS: usize = 32;
const ROWS: usize = 18;
/// How much red, green and blue add to brightness (BT.601), in thousandths.
const LUMA: [u64; 3] = [299, 587, 114];

/// The brightness of a window's frames, cell by cell.
pub(crate) type Grey = Arc<[u8]>;

/// What each index was last described with.
#[derive(Default)]
pub(crate) struct Reuse(Mutex<HashMap<String, Last>>);

struct Last {
    grey: Grey,
    wanted: Wanted,
    text: String,
    captured_us: i64,
}

impl Reuse {
    /// The text that an index takes over, if the pictures differ by less than it says.
    pub(crate) fn text(
        &self,
        wanted: &Wanted,
        described: &Described,
        grey: &[u8],
    ) -> Option<String> {
        let indexes = self.indexes();
        let last = indexes.get(&described.index_id)?;
        let is_alike = last.wanted == *wanted
            && difference(&last.grey, grey).is_some_and(|d| d < described.reuse_below);
        is_alike.then(|| last.text.clone())
    }

    /// Takes note of a description; not of one that is older than the last.
    pub(crate) fn keep(
        &self,
        window: &FrameWindow,
        wanted: &Wanted,
        described: &Described,
        grey: &Grey,
        text: &str,
    ) {
        let captured_us = window.captured_us;
        let mut indexes = self.indexes();
        let known = indexes.get(&described.index_id);
        if known.is_some_and(|last| last.captured_us > captured_us) {
            return;
        }
        if known.is_none() && indexes.len() >= MAX_INDEXES {
            forget_one(&mut indexes);
        }
        let last = Last {
            grey: Arc::clone(grey),
            wanted: wanted.clone(),
            text: text.to_owned(),
            captured_us,
        };
        indexes.insert(described.index_id.clone(), last);
    }

    fn indexes(&self) -> MutexGuard<'_, HashMap<String, Last>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Decodes frames and measures their brightness: takes some milliseconds.
pub(crate) fn grey(jpegs: &[Bytes]) -> Result<Grey, InferenceError> {
    let mut grey = Vec::with_capacity(jpegs.len() * COLUMNS * ROWS);
    for jpeg in jpegs {
        let frame = RgbImage::from_jpeg(jpeg)?;
        let cells = (0..ROWS).flat_map(|row| (0..COLUMNS).map(move |column| (row, column)));
        grey.extend(cells.map(|(row, column)| cell(&frame, row, column)));
    }
    Ok(grey.into())
}

/// The mean brightness of a cell, which has a pixel at least.
fn cell(frame: &RgbImage, row: usize, column: usize) -> u8 {
    let span = |at: usize, cells: usize, length: usize| {
        let from = at * length / cells;
        from..((at + 1) * length / cells).max(from + 1)
    };
    let (columns, rows) = (
        span(column, COLUMNS, frame.width()),
        span(row, ROWS, frame.height()),
    );
    let count = (rows.len() * columns.len()) as u64;
    let mut sum = 0;
    for y in rows {
        let line = y * frame.width();
        let pixels = &frame.pixels()[(line + columns.start) * 3..(line + columns.end) * 3];
        for (channel, weight) in LUMA.into_iter().enumerate() {
            let levels = pixels.iter().skip(channel).step_by(3);
            sum += weight * levels.map(|&level| u64::from(level)).sum::<u64>();
        }
    }
    (sum / count / LUMA.iter().sum::<u64>()) as u8
}

/// How far apart the brightness is on the mean, as a share of white; None if the frames can't be compared.
fn difference(a: &[u8], b: &[u8]) -> Option<f32> {
    if a.len() != b.len() || a.is_empty() {
        return None;
    }
    let sum: u64 = a
        .iter()
        .zip(b)
        .map(|(a, b)| u64::from(a.abs_diff(*b)))
        .sum();
    Some((sum as f64 / a.len() as f64 / 255.0) as f32)
}

fn forget_one(indexes: &mut HashMap<String, Last>) {
    let oldest = indexes
        .iter()
        .min_by_key(|(_, last)| last.captured_us)
        .map(|(id, _)| id.clone());
    if let Some(oldest) = oldest {
        indexes.remove(&oldest);
    }
}
