//! Histograms of latencies: of operations, of syncs of the Raft log, of applying entries, and of the changes that followers
//! log and apply.

use std::{fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::{MetricType, TypedMetric, family::Family, histogram::Histogram},
    registry::{Registry, Unit},
};
use stead_store::latency::LatencySnapshot;
use stead_types::GroupId;

use crate::metric_labels::{GroupLabels, OperationLabel, ServedFrom};

/// Upper bounds of the buckets of operations, in seconds: from a read of a hot key to a write that waits for an election.
const OPERATION_BUCKETS: [f64; 14] = [
    0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0,
];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabels {
    op: OperationLabel,
    served_from: ServedFrom,
}

/// Histogram that is counted elsewhere, as it was when it was asked last.
#[derive(Clone, Debug, Default)]
struct SampledHistogram(Arc<Mutex<LatencySnapshot>>);

impl SampledHistogram {
    fn set(&self, sample: LatencySnapshot) {
        *self.0.lock() = sample;
    }
}

impl EncodeMetric for SampledHistogram {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), fmt::Error> {
        let LatencySnapshot { sum, buckets } = self.0.lock().clone();
        let count = buckets.iter().map(|(_, count)| count).sum();
        encoder.encode_histogram::<NoLabelSet>(sum.as_secs_f64(), count, &buckets, None)
    }

    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for SampledHistogram {
    const TYPE: MetricType = MetricType::Histogram;
}

/// Histograms of latencies.
#[derive(Debug)]
pub(crate) struct LatencyMetrics {
    operations: Family<OperationLabels, Histogram, fn() -> Histogram>,
    log_sync: SampledHistogram,
    apply: Family<GroupLabels, SampledHistogram>,
    feed: Family<GroupLabels, SampledHistogram>,
}

impl Default for LatencyMetrics {
    fn default() -> Self {
        Self {
            operations: Family::new_with_constructor(|| Histogram::new(OPERATION_BUCKETS)),
            log_sync: SampledHistogram::default(),
            apply: Family::default(),
            feed: Family::default(),
        }
    }
}

impl LatencyMetrics {
    /// Registers the metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Time from the arrival of an operation to its answer, where it was served";
        registry.register_with_unit("request", help, Unit::Seconds, self.operations.clone());
        let help = "Time of a write to the Raft log with its sync";
        registry.register_with_unit("log_sync", help, Unit::Seconds, self.log_sync.clone());
        let help = "Time of applying an entry of a group's log";
        registry.register_with_unit("raft_apply", help, Unit::Seconds, self.apply.clone());
        let help = "Time in which a follower's group has logged and applied a batch of changes";
        registry.register_with_unit("feed_apply", help, Unit::Seconds, self.feed.clone());
    }

    /// Counts an operation that was answered.
    pub(crate) fn operation(&self, op: OperationLabel, served_from: ServedFrom, took: Duration) {
        let labels = OperationLabels { op, served_from };
        self.operations.get_or_create(&labels).observe(took.as_secs_f64());
    }

    /// Sets the latencies of the Raft log's syncs.
    pub(crate) fn set_log_sync(&self, sample: LatencySnapshot) {
        self.log_sync.set(sample);
    }

    /// Sets a group's latencies of applying entries, and of batches of changes that it follows.
    pub(crate) fn set_group(&self, group: GroupId, apply: LatencySnapshot, feed: LatencySnapshot) {
        let labels = GroupLabels { group: group.get() };
        self.apply.get_or_create(&labels).set(apply);
        self.feed.get_or_create(&labels).set(feed);
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::encoding::text::encode;
    use stead_store::latency::LatencyHistogram;

    use super::*;

    #[test]
    fn sampled_histogram_has_cumulative_buckets() {
        let (metrics, histogram) = (LatencyMetrics::default(), LatencyHistogram::default());
        for millis in [2, 2, 30_000] {
            histogram.record(Duration::from_millis(millis));
        }
        metrics.set_log_sync(histogram.snapshot());
        let (mut registry, mut text) = (Registry::default(), String::new());
        metrics.register(&mut registry);
        encode(&mut text, &registry).unwrap();
        for line in [
            "log_sync_seconds_bucket{le=\"0.001\"} 0",
            "log_sync_seconds_bucket{le=\"0.0025\"} 2",
            "log_sync_seconds_bucket{le=\"+Inf\"} 3",
            "log_sync_seconds_count 3",
        ] {
            assert!(text.contains(line), "{line}: {text}");
        }
    }
}
