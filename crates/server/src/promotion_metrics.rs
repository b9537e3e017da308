//! Metrics of promotions, on voters of the directory.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use stead_state::directory::PromotionCounts;

/// State of the tenants of promotions.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLabels {
    state: &'static str,
}

/// Gauges of promotions in flight.
#[derive(Debug, Default)]
pub(crate) struct PromotionMetrics {
    in_flight: Gauge,
    tenants: Family<TenantLabels, Gauge>,
    wait: Gauge<f64, AtomicU64>,
}

impl PromotionMetrics {
    /// Registers the gauges.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "On voters of the directory: promotions in flight";
        registry.register("promotions", help, self.in_flight.clone());
        let help = "On voters of the directory: tenants of promotions in flight, by state";
        registry.register("promoting_tenants", help, self.tenants.clone());
        let help = "How long this node, as the directory's leader, has waited for leases below the last fence";
        registry.register_with_unit("promotion_wait", help, Unit::Seconds, self.wait.clone());
    }

    /// Sets the gauges to the promotions in flight.
    pub(crate) fn set<'a>(&self, in_flight: impl Iterator<Item = &'a PromotionCounts>) {
        let (mut promotions, mut sums) = (0, [0; 7]);
        for counts in in_flight {
            promotions += 1;
            for (sum, (_, count)) in sums.iter_mut().zip(states(counts)) {
                *sum += count;
            }
        }
        self.in_flight.set(promotions);
        for (sum, (state, _)) in sums.into_iter().zip(states(&PromotionCounts::default())) {
            let sum = i64::try_from(sum).unwrap_or(i64::MAX);
            self.tenants.get_or_create(&TenantLabels { state }).set(sum);
        }
    }

    /// Sets how long the last wait for leases took.
    pub(crate) fn set_wait(&self, took: Duration) {
        self.wait.set(took.as_secs_f64());
    }
}

fn states(counts: &PromotionCounts) -> [(&'static str, u64); 7] {
    [
        ("waiting", counts.waiting),
        ("moving", counts.moving),
        ("fenced", counts.fenced),
        ("freezing", counts.freezing),
        ("blocked", counts.blocked),
        ("pulling", counts.pulling),
        ("activating", counts.activating),
    ]
}
