//! Metrics of the disk.

use prometheus_client::{
    metrics::gauge::Gauge,
    registry::{Registry, Unit},
};

/// Sizes of the node's disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct DiskSample {
    /// Bytes that are free; `None` where they are unknown.
    pub(crate) free: Option<u64>,
    /// Bytes that are kept free.
    pub(crate) reserve: u64,
    /// Bytes that the rows use.
    pub(crate) rows: u64,
}

/// Metrics of the node's disk.
#[derive(Debug, Default)]
pub(crate) struct DiskMetrics {
    free: Gauge,
    reserve: Gauge,
    rows: Gauge,
}

impl DiskMetrics {
    /// Registers the metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let gauges = [
            ("disk_free", "Free disk space of the data directory", &self.free),
            ("disk_reserve", "Disk space that is kept free", &self.reserve),
            ("disk_rows", "Disk space that the rows use", &self.rows),
        ];
        for (name, help, gauge) in gauges {
            registry.register_with_unit(name, help, Unit::Bytes, gauge.clone());
        }
    }

    /// Sets the sizes.
    pub(crate) fn set(&self, sample: DiskSample) {
        let number = |bytes: u64| i64::try_from(bytes).unwrap_or(i64::MAX);
        // Where it is unknown there is no alert either.
        self.free.set(number(sample.free.unwrap_or(u64::MAX)));
        self.reserve.set(number(sample.reserve));
        self.rows.set(number(sample.rows));
    }
}
