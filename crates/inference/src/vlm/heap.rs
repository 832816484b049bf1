//! How the C library keeps memory for ONNX Runtime, which takes all of its own from there.

/// Gives the system what loading a model has left behind: copies of its weights, freed by now, but kept in glibc's heap (100 MB
/// for SmolVLM-256M in int8). From then on large blocks go back when they are freed; glibc would raise what it calls large to
/// 32 MB by itself, and keep caches of answers long ended. Much less than 4 MB, and the results within each run would come as
/// fresh pages, which costs time.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) fn give_back() {
    use std::ffi::c_int;

    const LARGE: c_int = 4 << 20;
    const M_MMAP_THRESHOLD: c_int = -3;
    unsafe extern "C" {
        fn mallopt(parameter: c_int, value: c_int) -> c_int;
        fn malloc_trim(kept: usize) -> c_int;
    }
    // SAFETY: glibc locks its heap for both, so they may be called at any time on any thread; the value is within bounds.
    unsafe {
        mallopt(M_MMAP_THRESHOLD, LARGE);
        malloc_trim(0);
    }
}

/// Other C libraries keep less.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn give_back() {}
