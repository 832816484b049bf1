//! Speech to text with whisper.cpp: greedy, with segment and word times.

mod invented;

use std::ffi::{CStr, c_char, c_int, c_uint, c_void};
use std::fs::File;
use std::io::Read;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, Once, PoisonError};

use invented::Line;
use whisper_rs::{
    FullParams, SamplingStrategy, WhisperContext, WhisperContextParameters, WhisperSegment,
    WhisperState, WhisperSysContext, WhisperSysState, WhisperTokenData, WhisperTokenId,
    get_lang_id, get_lang_str,
};

use crate::revision::revision;
use crate::{
    Device, InferenceError, Placed, Speech, SpokenSegment, SpokenWord, Transcriber, Transcript,
    memory,
};

/// Samples per second of the audio that [`Whisper`] takes.
pub const SAMPLE_RATE: usize = 16_000;

/// Longest audio of one call, in seconds: beyond it the model's 30 s window overflows, and text
/// gets lost or invented where windows join.
pub const MAX_SECONDS: usize = 28;

/// Positions of the encoder for a second, and for its whole window of 30 s.
const CONTEXT_PER_SECOND: usize = 50;
const WHOLE_CONTEXT: usize = 1500;
/// Positions that an utterance gets beyond its end, and at least: models that were trained on 30 s lose words with fewer.
const CONTEXT_BEYOND: usize = 128;
const LEAST_CONTEXT: usize = 512;

/// First bytes of a whisper.cpp model file: "ggml" as a little-endian number.
const GGML_MAGIC: [u8; 4] = *b"lmgg";

/// A Whisper model in whisper.cpp's ggml format.
pub struct Whisper {
    context: WhisperContext,
    threads: usize,
    revision: String,
    /// The state of a call that is over, for the next: making one takes a tenth of a short call.
    idle: Mutex<Option<WhisperState>>,
}

/// Decides where a model computes. whisper.cpp takes the CPU without a word where it finds no device, so this looks for the
/// driver's file of it.
///
/// # Errors
/// When a CUDA device is asked for by its number, and there is none or this build cannot use it.
pub fn place(device: Device) -> Result<Placed, InferenceError> {
    device.place(|number| {
        if !cfg!(feature = "cuda-whisper") {
            return Err(
                "this sightline was built without the feature cuda, which whisper.cpp needs; build it with that, or take \
                 the device cpu"
                    .to_owned(),
            );
        }
        let file = format!("/dev/nvidia{number}");
        if Path::new(&file).exists() {
            Ok(())
        } else {
            Err(format!("there is no {file}: check the driver, and the container's devices"))
        }
    })
}

impl Whisper {
    /// Loads a ggml model file such as `ggml-base.en-q5_1.bin`, to run on `threads` threads.
    /// They wait for each other by spinning: with more of them than idle cores, a call takes
    /// several times as long as with one.
    pub fn load(file: &Path, threads: usize) -> Result<Self, InferenceError> {
        Self::load_on(file, Placed::Cpu, threads)
    }

    /// [`Self::load`] on a device: see [`place`].
    pub fn load_on(file: &Path, device: Placed, threads: usize) -> Result<Self, InferenceError> {
        check_magic(file)?;
        memory::check(&[file.to_owned()], memory::available())?;
        log_to_tracing();
        let mut parameters = WhisperContextParameters::new();
        parameters.use_gpu(false).flash_attn(false);
        if let Placed::Cuda(number) = device {
            let number = i32::try_from(number).unwrap_or(i32::MAX);
            parameters.use_gpu(true).gpu_device(number);
        }
        let context = WhisperContext::new_with_params(file, parameters)
            .map_err(|e| InferenceError::load(file, e))?;
        let revision = revision("whisper greedy, context by length", [file])?;
        Ok(Self {
            context,
            threads: threads.max(1),
            revision,
            idle: Mutex::default(),
        })
    }

    /// Whether it knows other languages than English, and translates them.
    pub fn is_multilingual(&self) -> bool {
        self.context.is_multilingual()
    }

    /// The language as whisper.cpp is told it.
    fn language<'a>(&self, speech: &'a Speech) -> Result<&'a str, InferenceError> {
        let refused = |problem: String| Err(InferenceError::InvalidInput(problem));
        if speech.translate && !self.is_multilingual() {
            return refused("this model knows English alone and cannot translate".to_owned());
        }
        // whisper.cpp knows the languages' names too, and its bindings panic at a NUL.
        let is_code = |code: &str| code.len() <= 3 && code.bytes().all(|c| c.is_ascii_lowercase());
        match speech.language.as_deref() {
            None if self.is_multilingual() => Ok("auto"),
            None | Some("en") => Ok("en"),
            Some(other) if !self.is_multilingual() => refused(format!(
                "this model knows English (\"en\") alone, not {other:?}"
            )),
            Some(other) if is_code(other) && get_lang_id(other).is_some() => Ok(other),
            Some(other) => refused(format!(
                "{other:?} is no language that Whisper knows; give its code of ISO 639-1, such as \"de\""
            )),
        }
    }

    fn parameters<'a>(
        &self,
        language: &'a str,
        translate: bool,
        samples: usize,
    ) -> FullParams<'a, 'a> {
        let mut p = FullParams::new(SamplingStrategy::Greedy { best_of: 1 });
        p.set_n_threads(i32::try_from(self.threads).unwrap_or(i32::MAX));
        p.set_language(Some(language));
        p.set_translate(translate);
        p.set_audio_ctx(i32::try_from(context(samples)).unwrap_or(0));
        p.set_no_context(true);
        p.set_suppress_nst(true);
        p.set_token_timestamps(true);
        p.set_print_special(false);
        p.set_print_progress(false);
        p.set_print_realtime(false);
        p.set_print_timestamps(false);
        p
    }
}

impl Transcriber for Whisper {
    fn revision(&self) -> &str {
        &self.revision
    }

    fn transcribe(&self, pcm: &[f32], speech: &Speech) -> Result<Transcript, InferenceError> {
        let language = self.language(speech)?;
        if pcm.is_empty() {
            return Ok(Transcript::default());
        }
        if pcm.len() > MAX_SECONDS * SAMPLE_RATE {
            return Err(InferenceError::InvalidInput(format!(
                "{:.1} s of audio in one call; cut it at pauses into pieces of at most \
                 {MAX_SECONDS} s",
                pcm.len() as f64 / SAMPLE_RATE as f64
            )));
        }
        // Calls side by side have a state each, and all but one of these are given back when they end.
        let failed = |e| InferenceError::run("transcribing", e);
        let idle = self.idle().take();
        let mut state = idle.map_or_else(|| self.context.create_state().map_err(failed), Ok)?;
        let mut decoded: Decoded = Vec::new();
        let mut parameters = self.parameters(language, speech.translate, pcm.len());
        // SAFETY: whisper.cpp calls `record` only within `full`, on this thread (one decoder),
        // with the pointer to `decoded`, which outlives it and is not used meanwhile.
        unsafe {
            parameters.set_filter_logits_callback(Some(record));
            parameters.set_filter_logits_callback_user_data((&raw mut decoded).cast());
        }
        state.full(parameters, pcm).map_err(failed)?;
        let lines = state.as_iter().map(|segment| Line {
            sureness: sureness(&segment, self.context.token_eot()),
            segment: self.spoken_segment(&segment, &decoded),
        });
        let segments = invented::said(lines.filter(|line| !line.segment.text.is_empty()));
        let heard = get_lang_str(state.full_lang_id_from_state()).filter(|_| !segments.is_empty());
        // A second attempt draws random numbers, and the next call would draw others than from a fresh state: what is
        // heard must not depend on what was heard before.
        if decoded.len() <= 1 {
            *self.idle() = Some(state);
        }
        Ok(Transcript {
            language: heard.unwrap_or_default().to_owned(),
            segments,
        })
    }
}

impl Whisper {
    fn idle(&self) -> MutexGuard<'_, Option<WhisperState>> {
        self.idle.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn spoken_segment(&self, segment: &WhisperSegment<'_>, decoded: &Decoded) -> SpokenSegment {
        let text = segment.to_str_lossy().unwrap_or_default().trim().to_owned();
        let end = seconds(segment.end_timestamp());
        let given = seconds(segment.start_timestamp());
        let start = self
            .own_start(segment, decoded)
            .unwrap_or(given)
            .clamp(0.0, end.max(0.0));
        let words = spoken_words(segment, self.context.token_eot());
        // Word times are mostly spread over the segment as whisper.cpp saw it.
        let scale = if end > given {
            (end - start) / (end - given)
        } else {
            1.0
        };
        let place = |t: f64| (start + (t - given) * scale).clamp(start, end.max(start));
        let words = words
            .into_iter()
            .map(|w| w.finish(place))
            .filter(|w| !w.text.is_empty());
        SpokenSegment {
            start,
            end,
            words: words.collect(),
            text,
        }
    }

    /// The start that the model gave a segment, in seconds. whisper.cpp 1.8 drops it for all but
    /// the first, and says that a segment starts where the one before ended.
    fn own_start(&self, segment: &WhisperSegment<'_>, decoded: &Decoded) -> Option<f64> {
        let tokens = (0..segment.n_tokens()).filter_map(|i| segment.get_token(i));
        let ids: Vec<WhisperTokenId> = tokens.map(|token| token.token_id()).collect();
        let first_time = self.context.token_beg();
        let end = ids.last().copied().filter(|&id| id > first_time)?;
        let before = decoded.iter().rev().find_map(|attempt| {
            let at = attempt
                .windows(ids.len())
                .position(|window| window == ids)?;
            attempt.get(at.checked_sub(1)?).copied()
        })?;
        let steps = f64::from(end - before);
        (before >= first_time).then(|| seconds(segment.end_timestamp()) - steps * TIME_STEP)
    }
}

/// How much of its window of 30 s the encoder computes: as much as there is to hear. All of it takes four times as long as the least.
fn context(samples: usize) -> usize {
    let heard = (samples * CONTEXT_PER_SECOND).div_ceil(SAMPLE_RATE);
    (heard + CONTEXT_BEYOND)
        .next_multiple_of(64)
        .clamp(LEAST_CONTEXT, WHOLE_CONTEXT)
}

/// The mean of the logarithms of the text tokens' probabilities.
fn sureness(segment: &WhisperSegment<'_>, end_of_text: WhisperTokenId) -> f32 {
    let tokens = (0..segment.n_tokens()).filter_map(|i| segment.get_token(i));
    let of_text = tokens.filter(|token| token.token_id() < end_of_text);
    let (sum, count) = of_text.fold((0.0, 0.0), |(sum, count), token| {
        (sum + token.token_data().plog, count + 1.0)
    });
    if count > 0.0 { sum / count } else { 0.0 }
}

/// Seconds from one timestamp token to the next.
const TIME_STEP: f64 = 0.02;

/// The tokens of each attempt to decode a stretch of audio, times included.
type Decoded = Vec<Vec<WhisperTokenId>>;

/// Called before each token is chosen, with those chosen so far.
unsafe extern "C" fn record(
    _context: *mut WhisperSysContext,
    _state: *mut WhisperSysState,
    tokens: *const WhisperTokenData,
    count: c_int,
    _logits: *mut f32,
    decoded: *mut c_void,
) {
    // SAFETY: `transcribe` passed this pointer, and keeps it valid and unused while this runs.
    let decoded = unsafe { &mut *decoded.cast::<Decoded>() };
    let count = usize::try_from(count).unwrap_or(0);
    if count == 0 || tokens.is_null() {
        decoded.push(Vec::new());
    } else if let Some(attempt) = decoded.last_mut() {
        // SAFETY: whisper.cpp passes `count` tokens that live until this returns.
        let tokens = unsafe { std::slice::from_raw_parts(tokens, count) };
        attempt.clear();
        attempt.extend(tokens.iter().map(|token| token.id));
    }
}

fn check_magic(file: &Path) -> Result<(), InferenceError> {
    let mut magic = [0; 4];
    let read = File::open(file)
        .and_then(|f| f.take(4).read(&mut magic))
        .map_err(|source| InferenceError::Read {
            path: file.to_owned(),
            source,
        })?;
    if read == magic.len() && magic == GGML_MAGIC {
        return Ok(());
    }
    Err(InferenceError::unsupported(
        file,
        "it is not a ggml file; give a model in whisper.cpp's format, such as ggml-base.en.bin",
    ))
}

/// A word while its tokens are gathered: bytes, because a token may end inside a character.
struct Letters {
    bytes: Vec<u8>,
    start: f64,
    end: f64,
    probability: f32,
    tokens: f32,
}

impl Letters {
    fn finish(self, place: impl Fn(f64) -> f64) -> SpokenWord {
        SpokenWord {
            start: place(self.start),
            end: place(self.end.max(self.start)),
            text: String::from_utf8_lossy(&self.bytes).trim().to_owned(),
            probability: self.probability / self.tokens,
        }
    }
}

fn spoken_words(segment: &WhisperSegment<'_>, end_of_text: WhisperTokenId) -> Vec<Letters> {
    let mut words: Vec<Letters> = Vec::new();
    for token in (0..segment.n_tokens()).filter_map(|i| segment.get_token(i)) {
        let Ok(bytes) = token.to_bytes() else {
            continue;
        };
        if token.token_id() >= end_of_text || bytes.is_empty() {
            continue;
        }
        let data = token.token_data();
        match words.last_mut() {
            Some(word) if bytes[0] != b' ' => {
                word.bytes.extend(bytes);
                // whisper.cpp stretches punctuation over the pause that follows.
                if !bytes.iter().all(u8::is_ascii_punctuation) {
                    word.end = seconds(data.t1);
                    word.probability += data.p;
                    word.tokens += 1.0;
                }
            }
            _ => words.push(Letters {
                bytes: bytes.to_vec(),
                start: seconds(data.t0),
                end: seconds(data.t1),
                probability: data.p,
                tokens: 1.0,
            }),
        }
    }
    words
}

/// whisper.cpp counts hundredths of a second.
fn seconds(centiseconds: i64) -> f64 {
    centiseconds as f64 / 100.0
}

/// whisper.cpp and ggml write to standard error unless told otherwise, for the whole process.
fn log_to_tracing() {
    static INSTALL: Once = Once::new();
    INSTALL.call_once(|| {
        whisper_rs::install_logging_hooks();
        // SAFETY: `log` is a plain function, valid for ever, and takes no user data.
        unsafe { whisper_rs::set_log_callback(Some(log), std::ptr::null_mut()) };
    });
}

unsafe extern "C" fn log(_level: c_uint, text: *const c_char, _user_data: *mut c_void) {
    if text.is_null() {
        return;
    }
    // SAFETY: whisper.cpp passes a NUL-terminated string that lives until this returns.
    let text = unsafe { CStr::from_ptr(text) }.to_string_lossy();
    tracing::debug!(message = text.trim(), "whisper.cpp");
}
