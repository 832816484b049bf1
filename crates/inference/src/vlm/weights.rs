//! The files of a model's weights: which belong to a precision, and whether they can be loaded at all.

use std::path::{Path, PathBuf};

use crate::vlm::Precision;
use crate::{InferenceError, memory};

/// The file of graph `name` in `precision`: the first of the usual names that is there.
pub(super) fn file(directory: &Path, name: &str, precision: Precision) -> PathBuf {
    let candidates = precision.suffixes().iter();
    let mut candidates =
        candidates.map(|suffix| directory.join(format!("onnx/{name}{suffix}.onnx")));
    let first = candidates.next().expect("every precision has a suffix");
    if first.exists() {
        first
    } else {
        candidates.find(|f| f.exists()).unwrap_or(first)
    }
}

/// `files` with their external data, if they fit into the machine's memory.
pub(super) fn checked(files: &[PathBuf]) -> Result<Vec<PathBuf>, InferenceError> {
    let all: Vec<PathBuf> = files
        .iter()
        .flat_map(|file| with_external_data(file))
        .collect();
    memory::check(&all, memory::available())?;
    Ok(all)
}

/// Large exports keep their weights in further files: `_data`, then `_data_1` and so on.
fn with_external_data(file: &Path) -> Vec<PathBuf> {
    let numbered = (0..).map(|part| {
        let mut data = file.to_owned().into_os_string();
        data.push(match part {
            0 => "_data".to_owned(),
            part => format!("_data_{part}"),
        });
        PathBuf::from(data)
    });
    let data = numbered.take_while(|data| data.exists());
    [file.to_owned()].into_iter().chain(data).collect()
}
