//! What can go wrong in loading and running a model.

use std::path::PathBuf;

use crate::Device;

type Source = Box<dyn std::error::Error + Send + Sync>;

/// Why a model could not be loaded or run. Load errors name the file and say what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InferenceError {
    /// The ONNX Runtime shared library could not be used.
    #[error(
        "cannot use {} as ONNX Runtime: {problem}; give the path of libonnxruntime.so from the \
         PyPI wheel onnxruntime, 1.24 or newer", .library.display()
    )]
    Runtime {
        /// The library asked for.
        library: PathBuf,
        /// What is wrong with it.
        problem: String,
    },

    /// A model was loaded before [`crate::onnx::init`] had succeeded.
    #[error("ONNX Runtime is not initialised: call onnx::init before loading a model")]
    RuntimeNotInitialised,

    /// The device that was asked for cannot be used.
    #[error("cannot compute on {device}: {problem}")]
    Device {
        /// The device.
        device: Device,
        /// Why not, and what to do.
        problem: String,
    },

    /// A file of a model could not be read.
    #[error("cannot read {}: check that the model's directory is complete, or pull it again", .path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: std::io::Error,
    },

    /// A file of a model was read, but does not hold what it should.
    #[error("{} cannot be used: {problem}", .path.display())]
    Unsupported {
        /// The file.
        path: PathBuf,
        /// What is wrong, and what to do.
        problem: String,
    },

    /// A file of a model is damaged, or of a kind that its runtime refuses.
    #[error("cannot load {}: it may be truncated or damaged; pull the model again", .path.display())]
    Load {
        /// The file.
        path: PathBuf,
        /// What its loader said.
        #[source]
        source: Source,
    },

    /// A frame could not be decoded.
    #[error("cannot decode the frame as a JPEG: {problem}")]
    Image {
        /// What is wrong with it.
        problem: String,
    },

    /// The caller asked for something that the model cannot do.
    #[error("{0}")]
    InvalidInput(String),

    /// A loaded model failed while computing.
    #[error("{what} failed")]
    Run {
        /// The step that failed.
        what: &'static str,
        /// What its runtime said.
        #[source]
        source: Source,
    },
}

impl InferenceError {
    pub(crate) fn run(what: &'static str, source: impl Into<Source>) -> Self {
        Self::Run {
            what,
            source: source.into(),
        }
    }

    pub(crate) fn load(path: impl Into<PathBuf>, source: impl Into<Source>) -> Self {
        Self::Load {
            path: path.into(),
            source: source.into(),
        }
    }

    pub(crate) fn unsupported(path: impl Into<PathBuf>, problem: impl Into<String>) -> Self {
        Self::Unsupported {
            path: path.into(),
            problem: problem.into(),
        }
    }
}
