//! What a model that writes down speech says.

/// What was said.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Transcript {
    /// The language that was heard, ISO 639-1; empty if unknown.
    pub language: String,
    /// About a sentence each, in order.
    pub segments: Vec<SpokenSegment>,
}

/// A stretch of speech, about a sentence. Times are seconds from the start of the samples.
#[derive(Debug, Clone, PartialEq)]
pub struct SpokenSegment {
    /// When it begins.
    pub start: f64,
    /// When it ends.
    pub end: f64,
    /// Its text, trimmed.
    pub text: String,
    /// Its words in order; punctuation belongs to the word it follows.
    pub words: Vec<SpokenWord>,
}

/// A word of a [`SpokenSegment`].
#[derive(Debug, Clone, PartialEq)]
pub struct SpokenWord {
    /// When it begins, in seconds from the start of the samples.
    pub start: f64,
    /// When it ends, in seconds from the start of the samples.
    pub end: f64,
    /// The word with its punctuation, without spaces around it.
    pub text: String,
    /// How sure the model is (0 to 1): the mean over the word's tokens.
    pub probability: f32,
}
