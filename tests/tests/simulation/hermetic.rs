//! Hermetic process: entropy, clocks and addresses do not come from the system and threads are forbidden, so that a seed
//! repeats exactly.
//!
//! The functions below interpose libc's of the same names in this binary. In a process that was started by [`command`]
//! entropy comes from the seed, clocks show the simulation's time, and a thread that is started inside the simulation
//! aborts the process with a backtrace of the caller. In any other process they call the system.
//!
//! # Invariants
//!
//! 1. A hermetic process is hermetic from its first call on: nothing keeps entropy of the system from before.
//! 2. Addresses are not randomised: some hashers are seeded by them.
#![expect(
    unsafe_code,
    unreachable_pub,
    reason = "these are libc's functions, called by all callers of libc"
)]

use std::{
    ffi::c_void,
    os::unix::process::CommandExt,
    process::Command,
    sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use libc::{c_int, clockid_t, pthread_attr_t, pthread_t, size_t, ssize_t, timespec};

/// Environment variable that makes a process hermetic; its value is the seed.
const SEED: &str = "STEAD_SEED";
/// Wall clock at the start of every simulation, in seconds since 1970.
pub(crate) const EPOCH_SECONDS: u64 = 1_750_000_000;
/// Other clocks at the start of every simulation, in seconds.
const BOOTED_SECONDS: u64 = 10_000;

const UNKNOWN: u8 = 0;
const OPEN: u8 = 1;
const HERMETIC: u8 = 2;

static STATE: AtomicU8 = AtomicU8::new(UNKNOWN);
static ENTROPY: AtomicU64 = AtomicU64::new(0);
static ELAPSED_NS: AtomicU64 = AtomicU64::new(0);
static RUNNING: AtomicBool = AtomicBool::new(false);

/// Limit of processor time of a hermetic process: an endless loop ends.
pub(crate) const CPU_SECONDS_MAX: u64 = 180;

/// Returns a command that runs this binary again, made hermetic by a seed, with an environment that is always the same.
pub(crate) fn command(seed: u64) -> Command {
    let mut command = Command::new(std::env::current_exe().unwrap());
    command
        .env_clear()
        .env(SEED, seed.to_string())
        .env("RUST_BACKTRACE", "1");
    let cpu = libc::rlimit {
        rlim_cur: CPU_SECONDS_MAX,
        rlim_max: CPU_SECONDS_MAX,
    };
    // SAFETY: between fork and exec only system calls are made.
    unsafe {
        command.pre_exec(move || {
            if libc::personality(libc::ADDR_NO_RANDOMIZE as libc::c_ulong) == -1
                || libc::setrlimit(libc::RLIMIT_CPU, &cpu) == -1
            {
                return Err(std::io::Error::last_os_error());
            }
            Ok(())
        });
    }
    command
}

/// Returns the seed of a hermetic process.
pub(crate) fn seed() -> Option<u64> {
    std::env::var(SEED).ok()?.parse().ok()
}

/// Sets the clocks of a hermetic process.
pub(crate) fn set_elapsed(elapsed: Duration) {
    ELAPSED_NS.store(u64::try_from(elapsed.as_nanos()).unwrap(), Relaxed);
}

/// Forbids threads from now on.
pub(crate) fn forbid_threads() {
    RUNNING.store(true, Relaxed);
}

fn is_hermetic() -> bool {
    if STATE.load(Relaxed) == UNKNOWN {
        // SAFETY: the environment of this process is not changed.
        let text = unsafe { libc::getenv(c"STEAD_SEED".as_ptr()) };
        let seed = (!text.is_null()).then(|| unsafe { libc::atoll(text) });
        ENTROPY.store(seed.unwrap_or(0).unsigned_abs(), Relaxed);
        STATE.store(if seed.is_some() { HERMETIC } else { OPEN }, Relaxed);
    }
    STATE.load(Relaxed) == HERMETIC
}

/// Returns the next number of SplitMix64.
fn next_number() -> u64 {
    const STEP: u64 = 0x9e37_79b9_7f4a_7c15;
    let mut z = ENTROPY.fetch_add(STEP, Relaxed).wrapping_add(STEP);
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// SAFETY: `buffer` must be good for `len` bytes.
unsafe fn fill(buffer: *mut u8, len: size_t) {
    // SAFETY: the caller's promise.
    let buffer = unsafe { std::slice::from_raw_parts_mut(buffer, len) };
    for chunk in buffer.chunks_mut(8) {
        chunk.copy_from_slice(&next_number().to_le_bytes()[..chunk.len()]);
    }
}

/// SAFETY: as libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getrandom(buffer: *mut u8, len: size_t, flags: u32) -> ssize_t {
    if !is_hermetic() {
        // SAFETY: the caller's promise.
        return unsafe { libc::syscall(libc::SYS_getrandom, buffer, len, flags) as ssize_t };
    }
    // SAFETY: the caller's promise.
    unsafe { fill(buffer, len) };
    len as ssize_t
}

/// SAFETY: as libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn getentropy(buffer: *mut u8, len: size_t) -> c_int {
    if !is_hermetic() {
        // SAFETY: the caller's promise.
        let filled = unsafe { libc::syscall(libc::SYS_getrandom, buffer, len, 0) };
        return if usize::try_from(filled) == Ok(len) { 0 } else { -1 };
    }
    // SAFETY: the caller's promise.
    unsafe { fill(buffer, len) };
    0
}

/// SAFETY: as libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn clock_gettime(clock: clockid_t, time: *mut timespec) -> c_int {
    if !is_hermetic() {
        // SAFETY: the caller's promise.
        return unsafe { libc::syscall(libc::SYS_clock_gettime, clock, time) as c_int };
    }
    let start = match clock {
        libc::CLOCK_REALTIME | libc::CLOCK_REALTIME_COARSE => EPOCH_SECONDS,
        _ => BOOTED_SECONDS,
    };
    let now = Duration::from_secs(start) + Duration::from_nanos(ELAPSED_NS.load(Relaxed));
    // SAFETY: the caller's promise.
    unsafe {
        *time = timespec {
            tv_sec: now.as_secs() as i64,
            tv_nsec: i64::from(now.subsec_nanos()),
        }
    };
    0
}

type Main = extern "C" fn(*mut c_void) -> *mut c_void;
type Create = unsafe extern "C" fn(*mut pthread_t, *const pthread_attr_t, Main, *mut c_void) -> c_int;

/// SAFETY: as libc's.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn pthread_create(
    thread: *mut pthread_t,
    attributes: *const pthread_attr_t,
    main: Main,
    argument: *mut c_void,
) -> c_int {
    assert!(!RUNNING.load(Relaxed), "a thread was started inside the simulation");
    // SAFETY: the next definition of this name is libc's.
    let create = unsafe { libc::dlsym(libc::RTLD_NEXT, c"pthread_create".as_ptr()) };
    assert!(!create.is_null(), "libc has pthread_create");
    // SAFETY: this is libc's type of it.
    let create: Create = unsafe { std::mem::transmute::<*mut c_void, Create>(create) };
    // SAFETY: the caller's promise.
    unsafe { create(thread, attributes, main, argument) }
}
