//! Number formats of weights.

use std::fmt;
use std::str::FromStr;

use crate::InferenceError;

/// Number format of the weights, as an export offers it beside the others.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Precision {
    /// 32 bit floats: `*.onnx`.
    Fp32,
    /// 16 bit floats: `*_fp16.onnx`.
    Fp16,
    /// 8 bit integers: `*_quantized.onnx` or `*_int8.onnx`.
    Int8,
    /// 4 bit blocks: `*_q4.onnx`.
    Q4,
    /// 4 bit blocks and 16 bit floats: `*_q4f16.onnx`.
    Q4F16,
}

impl Precision {
    const ALL: [Self; 5] = [Self::Fp32, Self::Fp16, Self::Int8, Self::Q4, Self::Q4F16];

    /// What stands before `.onnx`, most usual first.
    pub(super) fn suffixes(self) -> &'static [&'static str] {
        match self {
            Self::Fp32 => &[""],
            Self::Fp16 => &["_fp16"],
            Self::Int8 => &["_quantized", "_int8"],
            Self::Q4 => &["_q4"],
            Self::Q4F16 => &["_q4f16"],
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Fp32 => "fp32",
            Self::Fp16 => "fp16",
            Self::Int8 => "int8",
            Self::Q4 => "q4",
            Self::Q4F16 => "q4f16",
        })
    }
}

impl FromStr for Precision {
    type Err = InferenceError;

    fn from_str(name: &str) -> Result<Self, InferenceError> {
        Self::ALL
            .into_iter()
            .find(|p| p.to_string() == name)
            .ok_or_else(|| {
                let known = Self::ALL.map(|p| p.to_string()).join(", ");
                InferenceError::InvalidInput(format!("no precision {name:?}; there are {known}"))
            })
    }
}
