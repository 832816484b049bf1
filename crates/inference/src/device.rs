//! Where a model computes: on the CPU or on a CUDA device, as asked for and as decided.

use std::fmt;
use std::str::FromStr;

use crate::InferenceError;

/// Where a model is asked to compute.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Device {
    /// The first CUDA device where there is one and this build can use it, else the CPU.
    #[default]
    Auto,
    /// The CPU.
    Cpu,
    /// A CUDA device by its number, and nothing else.
    Cuda(u32),
}

/// Where a model computes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Placed {
    /// On the CPU.
    #[default]
    Cpu,
    /// On a CUDA device.
    Cuda(u32),
}

impl Device {
    /// Decides. `usable` tries a CUDA device, and says why it cannot be used.
    ///
    /// # Errors
    /// When a CUDA device is asked for by its number and cannot be used.
    pub(crate) fn place(
        self,
        usable: impl FnOnce(u32) -> Result<(), String>,
    ) -> Result<Placed, InferenceError> {
        match self {
            Self::Cpu => Ok(Placed::Cpu),
            Self::Cuda(number) => match usable(number) {
                Ok(()) => Ok(Placed::Cuda(number)),
                Err(problem) => Err(InferenceError::Device {
                    device: self,
                    problem,
                }),
            },
            Self::Auto => Ok(match usable(0) {
                Ok(()) => Placed::Cuda(0),
                Err(reason) => {
                    tracing::debug!(reason, "no cuda device, the cpu computes");
                    Placed::Cpu
                }
            }),
        }
    }
}

impl FromStr for Device {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix("cuda:").map(str::parse);
        match (text, number) {
            ("auto", _) => Ok(Self::Auto),
            ("cpu", _) => Ok(Self::Cpu),
            (_, Some(Ok(number))) => Ok(Self::Cuda(number)),
            _ => Err(format!(
                "no device {text:?}; there are auto, cpu and cuda:0 (cuda: and its number)"
            )),
        }
    }
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Auto => f.write_str("auto"),
            Self::Cpu => f.write_str("cpu"),
            Self::Cuda(number) => write!(f, "cuda:{number}"),
        }
    }
}

impl fmt::Display for Placed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cpu => Device::Cpu.fmt(f),
            Self::Cuda(number) => Device::Cuda(*number).fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn auto_takes_what_there_is_and_a_number_takes_nothing_else() {
        let check = |asked: &str, has_gpu: bool, expected: Result<&str, &str>| {
            let usable = |_| {
                has_gpu
                    .then_some(())
                    .ok_or_else(|| "none is here".to_owned())
            };
            let placed = asked.parse::<Device>().expect(asked).place(usable);
            let placed = placed
                .map(|placed| placed.to_string())
                .map_err(|e| e.to_string());
            let expected = expected.map(str::to_owned).map_err(str::to_owned);
            assert_eq!(placed, expected, "{asked}, {has_gpu}");
        };
        check("auto", true, Ok("cuda:0"));
        check("auto", false, Ok("cpu"));
        check("cpu", true, Ok("cpu"));
        check("cuda:3", true, Ok("cuda:3"));
        check(
            "cuda:0",
            false,
            Err("cannot compute on cuda:0: none is here"),
        );
    }

    #[test]
    fn devices_have_names() {
        for text in ["gpu", "cuda", "cuda:", "cuda:-1", "CPU", ""] {
            let refused = text.parse::<Device>().expect_err(text);
            assert!(refused.contains("auto, cpu and cuda:0"), "{refused}");
        }
    }
}
