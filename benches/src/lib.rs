//! Helpers of the benchmarks.

use std::net::TcpListener;
use std::time::Duration;

use anyhow::{Context, Result};
use stead_server::config::{Config, ValidatedConfig};

/// Returns the CPU time of all threads of this process, in user and kernel mode.
#[expect(unsafe_code, reason = "the standard library has no clock of a process's CPU time")]
pub fn process_cpu() -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: the pointer is to a valid timespec for the whole call.
    let result = unsafe { libc::clock_gettime(libc::CLOCK_PROCESS_CPUTIME_ID, &raw mut time) };
    assert_eq!(result, 0, "every process has this clock");
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// Returns the configuration of a cluster of one node with in-memory storage, and the node's client address.
///
/// # Errors
///
/// No port is free.
pub fn one_node() -> Result<(ValidatedConfig, String)> {
    one_node_with("")
}

/// Returns the same with further sections of the configuration.
///
/// # Errors
///
/// No port is free, or a setting is invalid.
pub fn one_node_with(sections: &str) -> Result<(ValidatedConfig, String)> {
    let free = || Ok::<_, std::io::Error>(TcpListener::bind("127.0.0.1:0")?.local_addr()?.to_string());
    let (client, peer, http) = (free()?, free()?, free()?);
    let text = format!(
        "[cluster]\ngroups_per_region = 1\n\
         regions = [{{ name = \"here\", jurisdiction = \"EU\" }}]\n\
         initial = [{{ name = \"one\", region = \"here\", peer = \"{peer}\", client = \"{client}\", http = \"{http}\" }}]\n\
         [node]\nname = \"one\"\ndata_dir = \"unused\"\n[storage]\nengine = \"memory\"\n{sections}"
    );
    let config = Config::load(&text, std::iter::empty()).context("the bench's configuration")?;
    Ok((config.validate()?, client))
}
