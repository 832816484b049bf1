//! Where the shipped models and the runtime are, and how to read test data.

use std::fs::{self, File};
use std::io::BufReader;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;
use sightline_inference::{RgbImage, onnx};

pub fn models() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../models")
}

fn data_path(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/data")
        .join(name)
}

pub fn data(name: &str) -> Vec<u8> {
    fs::read(data_path(name)).unwrap()
}

pub fn init_runtime() {
    onnx::init(&runtime_library()).unwrap();
}

#[expect(clippy::disallowed_methods, reason = "a test's only configuration")]
fn runtime_library() -> PathBuf {
    std::env::var_os("SIGHTLINE_ONNXRUNTIME")
        .expect("SIGHTLINE_ONNXRUNTIME is not set: run `make test`, or give it libonnxruntime.so's path")
        .into()
}

pub fn json<T: DeserializeOwned>(path: &Path) -> T {
    serde_json::from_reader(BufReader::new(File::open(path).unwrap())).unwrap()
}

pub fn png_image(path: &Path) -> RgbImage {
    let decoder = png::Decoder::new(BufReader::new(File::open(path).unwrap()));
    let mut reader = decoder.read_info().unwrap();
    let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
    let info = reader.next_frame(&mut pixels).unwrap();
    assert_eq!(
        (info.color_type, info.bit_depth),
        (png::ColorType::Rgb, png::BitDepth::Eight)
    );
    RgbImage::new(info.width as usize, info.height as usize, pixels).unwrap()
}

/// Samples of a 16 kHz mono 16 bit WAV file with the usual 44 byte header.
pub fn wav_samples(path: &Path) -> Vec<f32> {
    let bytes = fs::read(path).unwrap();
    assert_eq!((&bytes[..4], &bytes[36..40]), (&b"RIFF"[..], &b"data"[..]));
    let samples = bytes[44..]
        .chunks_exact(2)
        .map(|b| i16::from_le_bytes([b[0], b[1]]));
    samples.map(|s| f32::from(s) / 32768.0).collect()
}

/// A copy of a model's directory that a test may damage, golden data left out.
pub fn copy_of(model: &str) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    copy_files(&models().join(model), copy.path());
    copy
}

/// Copies the files of `from` and of its folder `onnx` over those of `to`.
pub fn copy_files(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(Result::unwrap) {
        let target = to.join(entry.file_name());
        if entry.file_type().unwrap().is_file() {
            fs::copy(entry.path(), target).unwrap();
        } else if entry.file_name() == "onnx" {
            fs::create_dir_all(&target).unwrap();
            copy_files(&entry.path(), &target);
        }
    }
}

/// Golden data of models/parity.
pub fn parity_data(model: &str) -> PathBuf {
    data_path("parity").join(model)
}
