//! The one ONNX Runtime of this process: loaded from an explicit path, never unloaded.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use ort::environment::Environment;
use ort::ep::{self, ExecutionProviderDispatch};
use ort::logging::LogLevel;
use ort::session::builder::SessionBuilder;
use ort::session::{RunOptions, Session};

use crate::{Device, InferenceError, Placed};

struct Runtime {
    library: PathBuf,
    environment: Environment,
}

/// ONNX Runtime allows one environment in a process, for the process's whole life.
static RUNTIME: Mutex<Option<Runtime>> = Mutex::new(None);

/// Loads ONNX Runtime (1.24 or newer) from `library`, the path of `libonnxruntime.so*`, without
/// telemetry. Calling it again with the same path does nothing; with another path it is an error,
/// because a process keeps the first one.
pub fn init(library: &Path) -> Result<(), InferenceError> {
    let refuse = |problem: String| InferenceError::Runtime {
        library: library.to_owned(),
        problem,
    };
    let path = library.canonicalize().map_err(|e| refuse(e.to_string()))?;
    let mut runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    if let Some(Runtime {
        library: loaded, ..
    }) = &*runtime
    {
        return if *loaded == path {
            Ok(())
        } else {
            Err(refuse(format!(
                "this process already uses {}",
                loaded.display()
            )))
        };
    }
    let environment = ort::init_from(&path)
        .map_err(|e| refuse(load_problem(&e)))?
        .with_name("sightline")
        .with_telemetry(false)
        .with_logger(Arc::new(log))
        .build()
        .map_err(|e| refuse(e.to_string()))?;
    environment.set_log_level(LogLevel::Warning);
    tracing::debug!(library = %path.display(), build = ort::info(), "loaded onnx runtime");
    *runtime = Some(Runtime {
        library: path,
        environment,
    });
    Ok(())
}

fn load_problem(error: &ort::LoadDynamicError) -> String {
    match error {
        ort::LoadDynamicError::Dlopen { error, .. } => error.to_string(),
        ort::LoadDynamicError::MissingApi { .. } => "it is another library".to_owned(),
        ort::LoadDynamicError::BadVersion { version_str, .. } => {
            format!("its version {version_str} is too old")
        }
        other => other.to_string(),
    }
}

/// The environment of [`init`].
pub(crate) fn environment() -> Result<Environment, InferenceError> {
    let runtime = RUNTIME.lock().unwrap_or_else(PoisonError::into_inner);
    let runtime = runtime
        .as_ref()
        .ok_or(InferenceError::RuntimeNotInitialised)?;
    Ok(runtime.environment.clone())
}

/// Decides where a model computes, by trying. [`init`] comes first.
///
/// # Errors
/// When a CUDA device is asked for by its number and cannot be used; the error says what is missing.
pub fn place(device: Device) -> Result<Placed, InferenceError> {
    device.place(try_cuda)
}

/// What a session does with the memory of its intermediate results.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Memory {
    /// Gives each back as soon as it is used up.
    Returned,
    /// Keeps it for the next result: a vision encoder spends half of its time on fresh pages from the system
    /// otherwise. Runs with [`giving_back`] return it at their end.
    Kept,
}

/// Options of a run after which a session with [`Memory::Kept`] keeps nothing: costs a hundredth of such a run, and
/// what comes after it has the memory.
pub(crate) fn giving_back() -> ort::Result<RunOptions> {
    let mut options = RunOptions::new()?;
    options.set("memory.enable_memory_arena_shrinkage", "cpu:0")?;
    Ok(options)
}

/// What a session on `device` computes with, in order of preference. The CPU is without its arena unless memory is kept:
/// an arena keeps the largest size ever asked for, in every session.
pub(crate) fn providers(device: Placed, memory: Memory) -> Vec<ExecutionProviderDispatch> {
    let kept = memory == Memory::Kept;
    let cpu = ep::CPU::default().with_arena_allocator(kept).build();
    match device {
        Placed::Cpu => vec![cpu],
        Placed::Cuda(number) => cuda(number).into_iter().chain([cpu]).collect(),
    }
}

/// Its memory grows by what is asked for rather than by doubling, so that several workers fit on one device.
#[cfg(feature = "cuda-onnx")]
fn cuda(number: u32) -> Option<ExecutionProviderDispatch> {
    let number = i32::try_from(number).unwrap_or(i32::MAX);
    let cuda = ep::CUDA::default()
        .with_device_id(number)
        .with_arena_extend_strategy(ep::ArenaExtendStrategy::SameAsRequested);
    Some(cuda.build().error_on_failure())
}

#[cfg(not(feature = "cuda-onnx"))]
fn cuda(_number: u32) -> Option<ExecutionProviderDispatch> {
    None
}

/// Opens a tiny model on a CUDA device: what is compiled in, a library on the path or a file below /dev says less.
fn try_cuda(number: u32) -> Result<(), String> {
    /// y = x + x over one float, in ONNX's format.
    const TINY: &[u8] = b"\x08\x08:5\n\x0e\n\x01x\n\x01x\x12\x01y\"\x03Add\x12\x01gZ\x0f\n\x01x\x12\n\n\x08\x08\x01\
        \x12\x04\n\x02\x08\x01b\x0f\n\x01y\x12\n\n\x08\x08\x01\x12\x04\n\x02\x08\x01B\x02\x10\r";
    if cuda(number).is_none() {
        return Err(
            "this sightline was built without the feature cuda; build it with one of the features cuda and cuda-onnx, \
             or take the device cpu"
                .to_owned(),
        );
    }
    let environment = environment().map_err(|e| e.to_string())?;
    let providers = providers(Placed::Cuda(number), Memory::Returned);
    let open = || {
        Session::builder(&environment)?
            .with_execution_providers(providers)?
            .commit_from_memory(TINY)
    };
    open().map(drop).map_err(|e| {
        format!(
            "{e}; it takes a driver, the CUDA and cuDNN libraries, and ONNX Runtime as the PyPI wheel onnxruntime-gpu \
             has it (docs/models.md)"
        )
    })
}

/// Opens the model in `file` on `device` with `threads` threads that sleep when idle.
pub(crate) fn open_session(
    file: &Path,
    device: Placed,
    threads: usize,
    memory: Memory,
) -> Result<Session, InferenceError> {
    if let Err(source) = std::fs::File::open(file) {
        return Err(InferenceError::Read {
            path: file.to_owned(),
            source,
        });
    }
    let environment = environment()?;
    let open = || builder(&environment, device, threads, memory)?.commit_from_file(file);
    open().map_err(|e| InferenceError::load(file, e))
}

/// As [`open_session`], from `model`, which was made of what is in `file`.
pub(crate) fn open_rewritten(
    file: &Path,
    model: &[u8],
    device: Placed,
    threads: usize,
    memory: Memory,
) -> Result<Session, InferenceError> {
    let environment = environment()?;
    let open = || builder(&environment, device, threads, memory)?.commit_from_memory(model);
    open().map_err(|e| InferenceError::load(file, e))
}

fn builder(
    environment: &Environment,
    device: Placed,
    threads: usize,
    memory: Memory,
) -> ort::Result<SessionBuilder> {
    let builder = Session::builder(environment)?
        .with_execution_providers(providers(device, memory))?
        .with_intra_threads(threads.max(1))?
        .with_inter_threads(1)?
        .with_intra_op_spinning(false)?
        // Patterns are kept per input shape, and every decoding step has another one.
        .with_memory_pattern(false)?;
    Ok(builder)
}

fn log(level: LogLevel, category: &str, _id: &str, location: &str, message: &str) {
    match level {
        LogLevel::Error | LogLevel::Fatal => {
            tracing::warn!(category, location, message, "onnx runtime");
        }
        _ => tracing::debug!(category, location, message, "onnx runtime"),
    }
}
