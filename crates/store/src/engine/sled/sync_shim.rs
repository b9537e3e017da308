//! Shim that makes sled sync with `fsync`.
//!
//! On Linux sled calls `sync_file_range`, which flushes neither the drive's cache nor the file's metadata: after power
//! loss acknowledged rows were gone and some files could not be opened. Where the call returns `ENOSYS`, sled falls
//! back to `fsync`. The binary defines the symbol itself, so that it always does. Nothing else in a node uses it.

use std::sync::atomic::{AtomicU64, Ordering};

static CALLS: AtomicU64 = AtomicU64::new(0);

/// Returns how often the shim was called. If the count does not rise with a sync, the shim is not linked in.
pub(super) fn calls() -> u64 {
    CALLS.load(Ordering::Relaxed)
}

/// Replaces the C library's function of this name, and reports that the kernel lacks it.
#[cfg(target_os = "linux")]
#[expect(unsafe_code, reason = "the symbol must bear the C library's name to stand before it")]
#[unsafe(no_mangle)]
extern "C" fn sync_file_range(
    _file: libc::c_int,
    _offset: libc::off64_t,
    _len: libc::off64_t,
    _flags: libc::c_uint,
) -> libc::c_int {
    CALLS.fetch_add(1, Ordering::Relaxed);
    // SAFETY: errno's location is valid for the thread that asks for it.
    unsafe { *libc::__errno_location() = libc::ENOSYS };
    -1
}
