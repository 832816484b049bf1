//! Whether a model's weights fit into the memory that is free, asked before any of them is read.

use std::fs;
use std::path::PathBuf;

use crate::InferenceError;

/// Memory that could be taken now, where the system says so (Linux).
pub(crate) fn available() -> Option<u64> {
    parse(&fs::read_to_string("/proc/meminfo").ok()?)
}

/// Refuses `files` that together are larger than `available` bytes; the error names the largest of them, their size and
/// the memory. `None`, where the system does not say, refuses nothing.
///
/// # Errors
/// When they are too large, or one cannot be read.
pub(crate) fn check(files: &[PathBuf], available: Option<u64>) -> Result<(), InferenceError> {
    let mut sizes = Vec::new();
    for path in files {
        let size = fs::metadata(path).map_err(|source| InferenceError::Read {
            path: path.clone(),
            source,
        })?;
        sizes.push(size.len());
    }
    let total: u64 = sizes.iter().sum();
    if let Some(memory) = available
        && total > memory
        && let Some((_, largest)) = sizes.iter().zip(files).max()
    {
        let (total, memory) = (total.div_ceil(1 << 20), memory >> 20);
        let problem = format!(
            "with the model's other files it takes {total} MB, but {memory} MB of memory are free: give a \
             smaller model or precision"
        );
        return Err(InferenceError::unsupported(largest, problem));
    }
    Ok(())
}

fn parse(meminfo: &str) -> Option<u64> {
    let line = meminfo.lines().find(|l| l.starts_with("MemAvailable:"))?;
    let kilobytes: u64 = line.split_whitespace().nth(1)?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_does_not_fit_is_refused_with_both_sizes() {
        let dir = tempfile::tempdir().expect("a directory");
        let file = |name: &str, megabytes: u64| {
            let path = dir.path().join(name);
            let made = fs::File::create(&path).expect("made");
            made.set_len(megabytes << 20).expect("sparse");
            path
        };
        let files = [file("a.onnx", 1), file("a.onnx_data", 40)];
        let meminfo = |kb: u64| format!("MemTotal: 9 kB\nMemAvailable:  {kb} kB\nBuffers: 1 kB\n");
        let check = |kb: u64| check(&files, parse(&meminfo(kb)));
        check(41 << 10).expect("just enough");
        let refused = check((41 << 10) - 1).expect_err("too little").to_string();
        assert!(
            refused.contains("a.onnx_data")
                && refused.contains("41 MB")
                && refused.contains("40 MB"),
            "{refused}"
        );
        super::check(&files, parse("MemTotal: 9 kB")).expect("nobody knows");
        assert!(available().is_some_and(|bytes| bytes > 1 << 20));
    }
}
