//! Measurement of CPU time, wall time and the longest batch.

use std::fmt;
use std::time::{Duration, Instant};

use stead_benches::process_cpu;

/// A running measurement.
pub(crate) struct Measurement {
    cpu: Duration,
    start: Instant,
    lap: Instant,
    longest: Duration,
}

/// Figures of a phase.
pub(crate) struct Figures {
    phase: &'static str,
    puts: u64,
    cpu: Duration,
    wall: Duration,
    longest: Duration,
    disk_len: u64,
}

impl Measurement {
    pub(crate) fn start() -> Self {
        let start = Instant::now();
        Self {
            cpu: process_cpu(),
            start,
            lap: start,
            longest: Duration::ZERO,
        }
    }

    /// Ends a batch.
    pub(crate) fn lap(&mut self) {
        let now = Instant::now();
        self.longest = self.longest.max(now - self.lap);
        self.lap = now;
    }

    pub(crate) fn stop(self, phase: &'static str, puts: u64, disk_len: u64) -> Figures {
        Figures {
            phase,
            puts,
            cpu: process_cpu() - self.cpu,
            wall: self.start.elapsed(),
            longest: self.longest,
            disk_len,
        }
    }
}

impl fmt::Display for Figures {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            phase,
            puts,
            cpu,
            wall,
            longest,
            disk_len,
        } = self;
        let each = cpu.as_secs_f64() * 1e6 / *puts as f64;
        let rate = *puts as f64 / wall.as_secs_f64();
        let (longest, disk) = (longest.as_millis(), disk_len / 1_000_000);
        write!(f, "{phase} | {each:.1} | {rate:.0} | {longest} | {disk}")
    }
}
