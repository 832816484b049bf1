//! Places between two side effects where a test may kill the process, as `kill -9` would.
//!
//! They are in the binary that ships, so that what is tested is what runs; unarmed, a pass costs one map look-up. They are
//! armed by the hidden flag `--failpoint NAME=N` alone.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use thiserror::Error;

/// A `--failpoint` that can't be read.
#[derive(Debug, Error)]
pub enum FailpointError {
    /// Not `NAME=N`.
    #[error("{0:?} is not NAME=N with N from 1: the process is killed at the Nth pass of NAME")]
    Malformed(String),
    /// The library refused it.
    #[error("failpoint {name:?}: {reason}")]
    Refused {
        /// The place.
        name: String,
        /// Why.
        reason: String,
    },
}

/// Kills the process here if the test armed this place and its pass has come.
pub fn hit(name: &str) {
    fail::fail_point!(name);
}

/// Arms one place from `NAME=N`: the process gets SIGKILL at the Nth pass.
pub fn arm(spec: &str) -> Result<(), FailpointError> {
    let malformed = || FailpointError::Malformed(spec.to_owned());
    let (name, nth) = spec.split_once('=').ok_or_else(malformed)?;
    let nth: u64 = nth.parse().ok().filter(|n| *n > 0).ok_or_else(malformed)?;
    let passes = Arc::new(AtomicU64::new(0));
    fail::cfg_callback(name, move || {
        if passes.fetch_add(1, Ordering::SeqCst) + 1 == nth {
            kill_self();
        }
    })
    .map_err(|reason| FailpointError::Refused {
        name: name.to_owned(),
        reason,
    })
}

fn kill_self() {
    let own = rustix::process::getpid();
    // A process can always signal itself; the loop covers the moment until the signal arrives.
    let _ = rustix::process::kill_process(own, rustix::process::Signal::KILL);
    loop {
        std::thread::park();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_name_and_count_are_taken() {
        for bad in ["", "place", "place=", "place=0", "place=-1", "place=x"] {
            assert!(arm(bad).is_err(), "{bad:?}");
        }
        arm("place.never.passed=1").expect("well formed");
        hit("another.place");
    }
}
