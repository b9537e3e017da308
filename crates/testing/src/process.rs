//! CPU and memory usage of a process, from `/proc`; interrupts.

use std::{fs, io, time::Duration};

use tokio::process::Child;

/// Resource usage of a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// CPU time so far: user and system, all threads.
    pub cpu: Duration,
    /// Resident memory in bytes.
    pub resident: u64,
}

/// Ticks a second in `/proc`: fixed at 100 for programs, whatever the kernel's own tick rate.
const TICKS: u64 = 100;

/// Reads the resource usage of a process.
///
/// # Errors
///
/// No such process.
pub fn usage(process: u32) -> io::Result<Usage> {
    let stat = fs::read_to_string(format!("/proc/{process}/stat"))?;
    let status = fs::read_to_string(format!("/proc/{process}/status"))?;
    parse(&stat, &status).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "/proc has an unknown format"))
}

/// Interrupts a child, as Ctrl-C does; one that was waited for has ended.
#[expect(
    unsafe_code,
    reason = "a signal to a child that was not waited for yet, so the number is its own"
)]
pub fn interrupt(child: &Child) {
    if let Some(process) = child.id() {
        unsafe {
            libc::kill(process.cast_signed(), libc::SIGINT);
        }
    }
}

fn parse(stat: &str, status: &str) -> Option<Usage> {
    // The name, in brackets, may hold anything; fields count from behind it.
    let fields: Vec<&str> = stat.rsplit_once(')')?.1.split_whitespace().collect();
    let ticks = fields.get(11)?.parse::<u64>().ok()? + fields.get(12)?.parse::<u64>().ok()?;
    let resident = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = resident.split_whitespace().next()?.parse().ok()?;
    Some(Usage {
        cpu: Duration::from_millis(ticks * 1_000 / TICKS),
        resident: kilobytes << 10,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn usage_of_own_process_is_read() {
        let usage = usage(std::process::id()).unwrap();
        assert!(usage.resident > 100 << 10, "{usage:?}");
    }

    #[test]
    fn process_name_with_brackets_is_parsed() {
        let stat = "7 (a ) 1 b) S 1 1 1 0 -1 4194560 1 0 0 0 250 50 0 0 20 0 1 0 1 1 1";
        let usage = parse(stat, "Name:\tx\nVmRSS:\t  2048 kB\n").unwrap();
        assert_eq!(usage.cpu, Duration::from_secs(3));
        assert_eq!(usage.resident, 2 << 20);
    }
}
