//! Histogram of latencies, which storage and replication fill and the node's metrics show.

use std::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

/// Upper bounds of the buckets, in microseconds: from a cached write to a disk that hangs.
const BOUNDS_US: [u64; 14] = [
    50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000,
];

/// Latencies since the node started, by bucket. Recording takes no lock.
#[derive(Debug, Default)]
pub struct LatencyHistogram {
    buckets: [AtomicU64; BOUNDS_US.len()],
    /// Latencies beyond the last bound.
    longer: AtomicU64,
    sum_us: AtomicU64,
}

/// State of a histogram.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct LatencySnapshot {
    /// Sum of all latencies.
    pub sum: Duration,
    /// Upper bounds in seconds, the last one infinite, with the number of latencies in each bucket alone.
    pub buckets: Vec<(f64, u64)>,
}

impl LatencyHistogram {
    /// Counts a latency.
    pub fn record(&self, latency: Duration) {
        let micros = u64::try_from(latency.as_micros()).unwrap_or(u64::MAX);
        let at = BOUNDS_US.partition_point(|bound| *bound < micros);
        self.buckets.get(at).unwrap_or(&self.longer).fetch_add(1, Relaxed);
        self.sum_us.fetch_add(micros, Relaxed);
    }

    /// Returns what was counted so far.
    pub fn snapshot(&self) -> LatencySnapshot {
        let bounds = BOUNDS_US
            .iter()
            .map(|bound| Duration::from_micros(*bound).as_secs_f64());
        let counts = self.buckets.iter().chain([&self.longer]);
        LatencySnapshot {
            sum: Duration::from_micros(self.sum_us.load(Relaxed)),
            buckets: bounds
                .chain([f64::INFINITY])
                .zip(counts.map(|count| count.load(Relaxed)))
                .collect(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn latency_is_counted_in_first_bucket_that_holds_it() {
        let histogram = LatencyHistogram::default();
        for micros in [0, 50, 51, 5_000_000, 5_000_001] {
            histogram.record(Duration::from_micros(micros));
        }
        let LatencySnapshot { sum, buckets } = histogram.snapshot();
        assert_eq!(sum, Duration::from_micros(10_000_102));
        let counted: Vec<_> = buckets.into_iter().filter(|(_, count)| *count > 0).collect();
        assert_eq!(counted, [(0.00005, 2), (0.0001, 1), (5.0, 1), (f64::INFINITY, 1)]);
    }
}
