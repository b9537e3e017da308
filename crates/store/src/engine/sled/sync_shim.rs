//! Makes every sync of sled a real one.
//!
//! On Linux sled calls `sync_file_range`, which flushes neither the drive's cache nor the file's metadata: after power
//! loss acknowledged rows were gone and some files could not be opened. Where the call answers `ENOSYS`, sled falls back
//! to `fsync`. This defines the call in the binary itself, so that it always does. Nothing else in a node uses it.

use std::sync::atomic::{AtomicU64, Ordering};

static CALLS: AtomicU64 = AtomicU64::new(0);

/// Returns how often the shim was called. Only where the count rises with a sync is the shim linked in.
pub(super) fn calls() -> u64 {
    CALLS.load(Ordering::Relaxed)
}

/// Stands in the way of the C library's function of this name; says that the kernel lacks it.
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
