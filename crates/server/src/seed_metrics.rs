//! Metrics of the seeds that the groups of this node send.

use std::{collections::BTreeMap, sync::atomic::AtomicU64};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use stead_replication::{SeedPhase, SeedProgress};
use stead_types::GroupId;

/// The seeds from one home group to one follower group.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct SeedLabels {
    home_group: u32,
    follower_group: u32,
}

/// Gauges of seeds, summed up over the tenants of each pair of groups.
#[derive(Debug, Default)]
pub(crate) struct SeedMetrics {
    running: Family<SeedLabels, Gauge>,
    failed: Family<SeedLabels, Gauge>,
    slowed: Family<SeedLabels, Gauge>,
    history: Family<SeedLabels, Gauge>,
    to_go: Family<SeedLabels, Gauge>,
    time_to_go: Family<SeedLabels, Gauge<f64, AtomicU64>>,
}

/// Sums of one pair of groups.
#[derive(Debug, Default)]
struct SeedSums {
    running: u64,
    failed: u64,
    slowed: u64,
    history: u64,
    to_go: u64,
    time_to_go: Option<f64>,
}

impl SeedMetrics {
    /// Registers the gauges.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Tenants that are copied to a follower";
        registry.register("seeds", help, self.running.clone());
        let help = "Tenants whose copy to a follower was given up lately";
        registry.register("seeds_failed", help, self.failed.clone());
        let help = "Tenants whose writers are slowed so that a copy can catch up";
        registry.register("seed_slowed_tenants", help, self.slowed.clone());
        let help = "History that is kept for copies";
        registry.register_with_unit("seed_history", help, Unit::Bytes, self.history.clone());
        let help = "What copies have still to be sent";
        registry.register_with_unit("seed_to_go", help, Unit::Bytes, self.to_go.clone());
        let help = "Time until the last of the copies is complete, at the present rates";
        registry.register_with_unit("seed_time_to_go", help, Unit::Seconds, self.time_to_go.clone());
    }

    /// Sets the gauges to the progress of all seeds of this node, by home group.
    pub(crate) fn set(&self, seeds: impl Iterator<Item = (GroupId, SeedProgress)>) {
        let mut sums: BTreeMap<(GroupId, GroupId), SeedSums> = BTreeMap::new();
        for (home, seed) in seeds {
            sums.entry((home, seed.follower)).or_default().add(&seed);
        }
        self.clear();
        for ((home, follower), sums) in sums {
            let labels = SeedLabels {
                home_group: home.get(),
                follower_group: follower.get(),
            };
            let set = |family: &Family<SeedLabels, Gauge>, value: u64| {
                let value = i64::try_from(value).unwrap_or(i64::MAX);
                family.get_or_create(&labels).set(value);
            };
            set(&self.running, sums.running);
            set(&self.failed, sums.failed);
            set(&self.slowed, sums.slowed);
            set(&self.history, sums.history);
            set(&self.to_go, sums.to_go);
            if let Some(seconds) = sums.time_to_go {
                self.time_to_go.get_or_create(&labels).set(seconds);
            }
        }
    }

    /// Removes the samples of seeds that are over.
    fn clear(&self) {
        for family in [&self.running, &self.failed, &self.slowed, &self.history, &self.to_go] {
            family.clear();
        }
        self.time_to_go.clear();
    }
}

impl SeedSums {
    fn add(&mut self, seed: &SeedProgress) {
        if matches!(seed.phase, SeedPhase::Failed(_)) {
            self.failed += 1;
            return;
        }
        self.running += 1;
        self.slowed += u64::from(seed.writers_slowed_to.is_some());
        self.history += seed.history;
        self.to_go += seed.bytes_to_go;
        if let Some(time) = seed.time_to_go {
            let before = self.time_to_go.unwrap_or(0.0);
            self.time_to_go = Some(before.max(time.as_secs_f64()));
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use std::time::Duration;

    use stead_state::seed_pace::{SeedFailure, SeedFailureReason, SeedRates};
    use stead_types::TenantNumber;

    use super::*;

    /// A seed in progress.
    pub(crate) fn sample_seed() -> SeedProgress {
        SeedProgress {
            tenant: TenantNumber::new(5),
            follower: GroupId::new(2),
            phase: SeedPhase::Loading,
            keys: 1,
            keys_total: 2,
            bytes: 10,
            bytes_total: 20,
            history: 5,
            bytes_to_go: 15,
            time_to_go: Some(Duration::from_secs(3)),
            rates: SeedRates::default(),
            writers_slowed_to: Some(7),
        }
    }

    #[test]
    fn seeds_of_two_groups_are_summed_up_until_they_are_over() {
        let (metrics, mut registry) = (SeedMetrics::default(), Registry::default());
        metrics.register(&mut registry);
        let text = || {
            let mut text = String::new();
            prometheus_client::encoding::text::encode(&mut text, &registry).unwrap();
            text
        };
        let failure = SeedFailure {
            reason: SeedFailureReason::Stalled,
            copy_rate: 0,
            write_rate: 1,
            history: 2,
            history_max: 1,
        };
        let failed = SeedProgress {
            phase: SeedPhase::Failed(failure),
            ..sample_seed()
        };
        let later = SeedProgress {
            time_to_go: Some(Duration::from_secs(9)),
            writers_slowed_to: None,
            ..sample_seed()
        };
        let seeds = [sample_seed(), later, failed];
        metrics.set(seeds.into_iter().map(|seed| (GroupId::new(1), seed)));
        let pair = r#"{home_group="1",follower_group="2"}"#;
        for (name, value) in [
            ("seeds", "2"),
            ("seeds_failed", "1"),
            ("seed_slowed_tenants", "1"),
            ("seed_history_bytes", "10"),
            ("seed_to_go_bytes", "30"),
            ("seed_time_to_go_seconds", "9.0"),
        ] {
            assert!(
                text().contains(&format!("\n{name}{pair} {value}\n")),
                "{name}: {}",
                text()
            );
        }
        metrics.set(std::iter::empty());
        assert!(!text().contains(pair), "they are over: {}", text());
    }
}
