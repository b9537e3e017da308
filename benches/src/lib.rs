//! Helpers of the benches.

use std::time::Duration;

/// CPU time of all threads of this process, in user and kernel mode.
#[expect(unsafe_code, reason = "the standard library has no clock of a process's CPU time")]
pub fn process_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a valid timespec for the whole call.
    let answer = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(answer, 0, "every process has this clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}
