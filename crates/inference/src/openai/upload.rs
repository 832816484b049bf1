//! Samples as a WAV file, and a form that carries it.

use bytes::Bytes;

use super::client::Post;
use crate::whisper::SAMPLE_RATE;

/// Not in any file of ours: fields are short words, and a WAV file of 16 bit samples would need just these letters as sound.
const BOUNDARY: &str = "sightline-7d0f1c2b9a8e4c55-boundary";

/// A form with the file and `fields`.
pub(super) fn form(path: &'static str, pcm: &[f32], fields: &[(&str, &str)]) -> Post {
    let mut body = Vec::with_capacity(pcm.len() * 2 + 2_048);
    for (name, value) in fields {
        let part = format!(
            "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"{name}\"\r\n\r\n{value}\r\n"
        );
        body.extend_from_slice(part.as_bytes());
    }
    let head = format!(
        "--{BOUNDARY}\r\ncontent-disposition: form-data; name=\"file\"; filename=\"speech.wav\"\r\n\
         content-type: audio/wav\r\n\r\n"
    );
    body.extend_from_slice(head.as_bytes());
    wav(pcm, &mut body);
    body.extend_from_slice(format!("\r\n--{BOUNDARY}--\r\n").as_bytes());
    Post {
        path,
        content_type: format!("multipart/form-data; boundary={BOUNDARY}"),
        body: Bytes::from(body),
    }
}

/// 16 bit mono.
fn wav(pcm: &[f32], out: &mut Vec<u8>) {
    let rate = SAMPLE_RATE as u32;
    let bytes = u32::try_from(pcm.len() * 2).unwrap_or(u32::MAX - 36);
    out.extend_from_slice(b"RIFF");
    out.extend_from_slice(&(36 + bytes).to_le_bytes());
    out.extend_from_slice(b"WAVEfmt ");
    out.extend_from_slice(&16u32.to_le_bytes());
    for word in [1u16, 1] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(&rate.to_le_bytes());
    out.extend_from_slice(&(rate * 2).to_le_bytes());
    for word in [2u16, 16] {
        out.extend_from_slice(&word.to_le_bytes());
    }
    out.extend_from_slice(b"data");
    out.extend_from_slice(&bytes.to_le_bytes());
    for sample in pcm {
        let sample = (sample.clamp(-1.0, 1.0) * 32_767.0).round() as i16;
        out.extend_from_slice(&sample.to_le_bytes());
    }
}
