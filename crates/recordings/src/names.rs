//! Names of segments: all that has to be known of one.

/// One segment of a stream's recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Segment {
    /// Where it starts, in microseconds since the Unix epoch.
    pub start_us: i64,
    /// How long it lasts, in microseconds.
    pub duration_us: i64,
    /// Its size; 0 where only its name is known.
    pub bytes: u64,
}

impl Segment {
    /// Where it ends.
    pub fn end_us(&self) -> i64 {
        self.start_us.saturating_add(self.duration_us)
    }

    /// `<start_us>-<duration_us>.ts`
    pub fn file_name(&self) -> String {
        unimplemented!()
    }

    /// The segment with this file name; none if it is not exactly one that `file_name` makes.
    pub fn parse(_file_name: &str) -> Option<Self> {
        unimplemented!()
    }
}

/// What a slug may begin with: letters and digits in lower case, everything else one hyphen, at most 64 characters.
pub fn slug_part(_wanted: &str) -> String {
    unimplemented!()
}
