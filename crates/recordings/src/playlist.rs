//! HLS playlists (RFC 8216) of a stretch of a recording.

use crate::names::Segment;

/// Whether more segments may follow.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ending {
    /// The playlist is complete (VOD, with an end).
    Complete,
    /// More may be appended: players ask again (EVENT).
    Open,
}

/// Two segments further apart than this have a gap between them, in microseconds.
pub const GAP_US: i64 = 50_000;

/// The playlist of these segments, in order of start, for a player that is to begin at `from_us`. Segment addresses are file
/// names, relative to the playlist's. Program date time at the start and after each gap, where there is a discontinuity too.
/// Segments that lie within what was already played are left out.
pub fn playlist(_segments: &[Segment], _from_us: i64, _ending: Ending) -> String {
    unimplemented!()
}

/// The stretches without holes that these segments make up, in order: where each starts and ends.
pub fn stretches(_segments: &[Segment]) -> Vec<(i64, i64)> {
    unimplemented!()
}
