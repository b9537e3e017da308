//! Disk, memory and descriptors that this process has and uses.

use std::path::Path;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use stead_store::room::free_bytes;

/// Resources that the operating system gives this process. An argument of the node, so that a simulation gives its own
/// answers.
#[derive(Clone, Copy, Debug)]
pub struct Resources {
    /// Returns the bytes of disk that are free in a folder; `None` where they are unknown.
    pub disk_free: fn(&Path) -> Option<u64>,
    /// Returns the resident memory of the node in bytes; zero where it is unknown.
    pub memory: fn() -> u64,
    /// Most files and connections that the process may have open.
    pub descriptors_max: u64,
}

impl Resources {
    /// Returns the operating system's answers. The limit of descriptors is raised as far as this process may: the one that
    /// shells set is made for programs with a handful of files.
    pub fn real() -> Self {
        Self {
            disk_free: free_bytes,
            memory,
            descriptors_max: raise_descriptor_limit(),
        }
    }
}

/// Raises the limit of descriptors to the highest that this process may set, and returns the one in force.
fn raise_descriptor_limit() -> u64 {
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    // It fails where the highest limit is none, or above the kernel's own.
    let _ = setrlimit(Resource::Nofile, raised);
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Returns the resident memory of this process in bytes; zero where the system does not report it.
fn memory() -> u64 {
    let statm = std::fs::read_to_string("/proc/self/statm").unwrap_or_default();
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    pages * 4096
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptor_limit_is_raised_to_the_highest() {
        let limit = raise_descriptor_limit();
        assert_eq!(limit, getrlimit(Resource::Nofile).maximum.unwrap_or(u64::MAX));
        assert!(limit > 0);
    }
}
