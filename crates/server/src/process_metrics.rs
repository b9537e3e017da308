//! Metrics of the process, by the names that Prometheus' own clients give them.

use std::{fs, sync::atomic::AtomicU64};

use prometheus_client::{
    metrics::{counter::Counter, gauge::Gauge},
    registry::{Registry, Unit},
};

/// Ticks of the kernel's clock per second in `/proc`: fixed for programs, whatever the kernel was built with
/// (`man 5 proc`, `man 3 sysconf`).
const TICKS_PER_SECOND: f64 = 100.0;

/// Size of a page of memory in bytes.
const PAGE: u64 = 4096;

/// Figures of this process from the operating system; a value is absent where the system does not tell it.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(crate) struct ProcessSample {
    /// CPU time used, in seconds.
    cpu: Option<f64>,
    /// Resident memory in bytes.
    resident: Option<u64>,
    /// Address space in bytes.
    virtual_memory: Option<u64>,
    /// Open files and connections.
    descriptors: Option<u64>,
}

impl ProcessSample {
    /// Asks the system.
    pub(crate) fn read() -> Self {
        let stat = fs::read_to_string("/proc/self/stat").unwrap_or_default();
        let statm = fs::read_to_string("/proc/self/statm").unwrap_or_default();
        let descriptors = fs::read_dir("/proc/self/fd").ok();
        Self {
            // One of them is the folder that is being read.
            descriptors: descriptors.map(|open| (open.count() as u64).saturating_sub(1)),
            ..Self::parse(&stat, &statm)
        }
    }

    /// Reads the formats of `/proc/self/stat` and `/proc/self/statm` (`man 5 proc`).
    fn parse(stat: &str, statm: &str) -> Self {
        // The name of the program is in parentheses, and may hold spaces.
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let field = |number: usize| after_name.split(' ').nth(number - 3)?.parse::<f64>().ok();
        let pages = |at: usize| statm.split(' ').nth(at)?.parse::<u64>().ok();
        Self {
            cpu: field(14)
                .zip(field(15))
                .map(|(user, system)| (user + system) / TICKS_PER_SECOND),
            resident: pages(1).map(|pages| pages * PAGE),
            virtual_memory: pages(0).map(|pages| pages * PAGE),
            descriptors: None,
        }
    }
}

/// Metrics of the process.
#[derive(Debug)]
pub(crate) struct ProcessMetrics {
    registry: Registry,
    cpu: Counter<f64, AtomicU64>,
    resident: Gauge,
    virtual_memory: Gauge,
    descriptors: Gauge,
    descriptors_max: Gauge,
}

impl Default for ProcessMetrics {
    fn default() -> Self {
        let mut metrics = Self {
            registry: Registry::with_prefix("process"),
            cpu: Counter::default(),
            resident: Gauge::default(),
            virtual_memory: Gauge::default(),
            descriptors: Gauge::default(),
            descriptors_max: Gauge::default(),
        };
        let registry = &mut metrics.registry;
        let help = "CPU time that the process has used";
        registry.register_with_unit("cpu", help, Unit::Seconds, metrics.cpu.clone());
        let help = "Resident memory of the process";
        registry.register_with_unit("resident_memory", help, Unit::Bytes, metrics.resident.clone());
        let help = "Address space of the process";
        registry.register_with_unit("virtual_memory", help, Unit::Bytes, metrics.virtual_memory.clone());
        let help = "Files and connections that the process has open";
        registry.register("open_fds", help, metrics.descriptors.clone());
        let help = "Most files and connections that the process may have open";
        registry.register("max_fds", help, metrics.descriptors_max.clone());
        metrics
    }
}

impl ProcessMetrics {
    /// Returns the registry of the metrics, which have no prefix of Stead's.
    pub(crate) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// Sets the metrics.
    pub(crate) fn set(&self, sample: ProcessSample, descriptors_max: u64) {
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        if let Some(cpu) = sample.cpu {
            let before = self.cpu.get();
            self.cpu.inc_by((cpu - before).max(0.0));
        }
        for (gauge, value) in [
            (&self.resident, sample.resident),
            (&self.virtual_memory, sample.virtual_memory),
            (&self.descriptors, sample.descriptors),
            (&self.descriptors_max, Some(descriptors_max)),
        ] {
            if let Some(value) = value {
                gauge.set(number(value));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn formats_of_proc_are_read() {
        let stat = "7 (a name) x) S 1 7 7 0 -1 4194560 1 2 3 4 250 50 0 0 20 0 9 0 100 1000 25";
        let sample = ProcessSample::parse(stat, "300 25 9 1 0 7 0\n");
        assert_eq!(sample.cpu, Some(3.0));
        assert_eq!(
            (sample.virtual_memory, sample.resident),
            (Some(300 * PAGE), Some(25 * PAGE))
        );
        assert_eq!(ProcessSample::parse("", ""), ProcessSample::default());
    }

    #[test]
    fn this_process_is_measured() {
        let sample = ProcessSample::read();
        assert!(sample.cpu.is_some() && sample.resident > Some(1 << 20), "{sample:?}");
        assert!(sample.descriptors > Some(2), "{sample:?}");
    }
}
