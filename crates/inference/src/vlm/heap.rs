//! How the C library keeps memory for ONNX Runtime, which takes all of its own from there.

/// Blocks of so many bytes and more are given back to the system when they are freed.
///
/// Loading a model frees copies of its weights. glibc would raise this threshold by itself to the largest block freed (32 MB
/// at most) and from then on keep such blocks in its heap, in pieces that nothing fits into: 90 MB for SmolVLM-256M in int8.
/// Much lower than this, the intermediate results of every run would come as fresh pages, which costs time.
#[cfg(all(target_os = "linux", target_env = "gnu"))]
pub(super) fn give_back_large_blocks() {
    use std::ffi::c_int;

    const BYTES: c_int = 4 << 20;
    const M_MMAP_THRESHOLD: c_int = -3;
    unsafe extern "C" {
        fn mallopt(parameter: c_int, value: c_int) -> c_int;
    }
    // SAFETY: glibc locks its heap for it, so it may be called at any time on any thread; the value is within bounds.
    unsafe { mallopt(M_MMAP_THRESHOLD, BYTES) };
}

/// Other C libraries have no such threshold.
#[cfg(not(all(target_os = "linux", target_env = "gnu")))]
pub(super) fn give_back_large_blocks() {}
