//! Spoken segments as observations, with wall times and deterministic ids.

use sightline_inference::{SpokenWord, Transcript};
use sightline_proto::ids;
use sightline_proto::internal::observation::Body;
use sightline_proto::internal::{AudioChunk, Observation, TranscriptBody, Word};

/// The part of the stream's time that an utterance covers; nothing in it was said outside.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Span {
    pub(crate) start_us: i64,
    pub(crate) end_us: i64,
}

impl Span {
    /// Wall time of a position in seconds from the start.
    fn at(self, seconds: f64) -> i64 {
        let us = self.start_us.saturating_add((seconds * 1e6).round() as i64);
        us.clamp(self.start_us, self.end_us)
    }
}

/// One observation a segment. An id holds the segment's start, so of two that start together the later one is taken to
/// start a microsecond later.
pub(crate) fn transcripts(
    chunk: &AudioChunk,
    span: Span,
    engine: &str,
    model_revision: &str,
    heard: &Transcript,
) -> Vec<Observation> {
    let mut next_us = span.start_us;
    let mut transcripts = Vec::with_capacity(heard.segments.len());
    for segment in &heard.segments {
        let start_us = span.at(segment.start).max(next_us);
        next_us = start_us + 1;
        let id = ids::observation_id(
            "transcript",
            &chunk.rtstream_id,
            chunk.epoch_us,
            start_us,
            engine,
            0,
            model_revision,
        );
        let body = TranscriptBody {
            engine: engine.to_owned(),
            text: segment.text.clone(),
            words: segment.words.iter().map(|w| word(span, w)).collect(),
            interim: false,
            language: heard.language.clone(),
        };
        transcripts.push(Observation {
            id,
            rtstream_id: chunk.rtstream_id.clone(),
            collection_id: chunk.collection_id.clone(),
            epoch_us: chunk.epoch_us,
            start_us,
            end_us: span.at(segment.end).max(start_us),
            model_revision: model_revision.to_owned(),
            body: Some(Body::Transcript(body)),
        });
    }
    transcripts
}

/// What was heard so far as one line, without an id; nothing if nothing was.
pub(crate) fn interim(
    chunk: &AudioChunk,
    span: Span,
    engine: &str,
    model_revision: &str,
    heard: &Transcript,
) -> Option<Observation> {
    let (first, last) = (heard.segments.first()?, heard.segments.last()?);
    let texts: Vec<&str> = heard.segments.iter().map(|s| s.text.as_str()).collect();
    let words = heard.segments.iter().flat_map(|s| &s.words);
    let body = TranscriptBody {
        engine: engine.to_owned(),
        text: texts.join(" "),
        words: words.map(|w| word(span, w)).collect(),
        interim: true,
        language: heard.language.clone(),
    };
    let start_us = span.at(first.start);
    Some(Observation {
        id: String::new(),
        rtstream_id: chunk.rtstream_id.clone(),
        collection_id: chunk.collection_id.clone(),
        epoch_us: chunk.epoch_us,
        start_us,
        end_us: span.at(last.end).max(start_us),
        model_revision: model_revision.to_owned(),
        body: Some(Body::Transcript(body)),
    })
}

fn word(span: Span, word: &SpokenWord) -> Word {
    Word {
        text: word.text.clone(),
        start_us: span.at(word.start),
        end_us: span.at(word.end),
        probability: word.probability,
    }
}

#[cfg(test)]
mod tests {
    use sightline_inference::SpokenSegment;

    use super::*;

    fn segment(start: f64, end: f64) -> SpokenSegment {
        SpokenSegment {
            start,
            end,
            text: "Hello.".into(),
            words: vec![SpokenWord {
                start,
                end,
                text: "Hello.".into(),
                probability: 0.5,
            }],
        }
    }

    #[test]
    fn times_stay_within_the_utterance_and_ids_apart() {
        let chunk = AudioChunk {
            rtstream_id: "rts-1".into(),
            start_us: 1_000_000,
            ..AudioChunk::default()
        };
        let span = Span {
            start_us: 1_000_000,
            end_us: 3_000_000,
        };
        let heard = Transcript {
            language: "en".to_owned(),
            segments: vec![
                segment(-0.5, 0.7),
                segment(0.0, 0.7),
                segment(0.7, 5.0),
                segment(9.0, 10.0),
            ],
        };
        let found = transcripts(&chunk, span, "demo", "m1", &heard);
        let times: Vec<_> = found.iter().map(|o| (o.start_us, o.end_us)).collect();
        let expected = [
            (1_000_000, 1_700_000),
            (1_000_001, 1_700_000),
            (1_700_000, 3_000_000),
            (3_000_000, 3_000_000),
        ];
        assert_eq!(times, expected);
        let Some(Body::Transcript(body)) = &found[2].body else {
            panic!("{found:?}");
        };
        assert_eq!(
            (body.words[0].start_us, body.words[0].end_us),
            (1_700_000, 3_000_000)
        );
        let again = transcripts(&chunk, span, "demo", "m1", &heard);
        assert_eq!(found, again);
        let mut ids: Vec<_> = found.iter().map(|o| &o.id).collect();
        ids.sort_unstable();
        ids.dedup();
        assert_eq!(ids.len(), heard.segments.len());
    }
}
