//! Metrics of the regions' readiness for their loss, on the directory's leader.

use std::{sync::atomic::AtomicU64, time::Duration};

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{family::Family, gauge::Gauge},
    registry::{Registry, Unit},
};
use stead_state::directory::RegionLossDecision;
use stead_types::RegionName;

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RegionLabels {
    region: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct TenantLabels {
    region: String,
    state: &'static str,
}

/// Readiness of a region, as it was checked last.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct RegionSample {
    /// Name of the region.
    pub(crate) region: String,
    /// Tenants that would get another home and lose nothing.
    pub(crate) ready: u64,
    /// Tenants that would get another home and may lose acknowledged writes.
    pub(crate) at_risk: u64,
    /// Tenants that no region would serve.
    pub(crate) blocked: u64,
    /// How long no region would serve them at most.
    pub(crate) wait_seconds: Option<f64>,
    /// Longest window of loss.
    pub(crate) loss_seconds: Option<f64>,
    /// When it was checked, in seconds since 1970.
    pub(crate) checked: Option<i64>,
    /// When its loss was rehearsed last, in seconds since 1970.
    pub(crate) rehearsed: Option<i64>,
}

/// Gauges of the regions' readiness.
#[derive(Debug, Default)]
pub(crate) struct ReadinessMetrics {
    tenants: Family<TenantLabels, Gauge>,
    wait: Family<RegionLabels, Gauge<f64, AtomicU64>>,
    loss: Family<RegionLabels, Gauge<f64, AtomicU64>>,
    checked: Family<RegionLabels, Gauge>,
    rehearsed: Family<RegionLabels, Gauge>,
    silence: Family<RegionLabels, Gauge<f64, AtomicU64>>,
    decisions: Family<DecisionLabels, Gauge>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct DecisionLabels {
    region: String,
    decision: &'static str,
}

impl ReadinessMetrics {
    /// Registers the gauges.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help =
            "On the directory's leader: tenants of a region, by what a promotion would do with them if it were lost";
        registry.register("readiness_tenants", help, self.tenants.clone());
        let help = "How long no region would serve them at most";
        registry.register_with_unit("readiness_wait", help, Unit::Seconds, self.wait.clone());
        let help = "Longest window in which acknowledged writes could be lost";
        registry.register_with_unit("readiness_loss_window", help, Unit::Seconds, self.loss.clone());
        let help = "When it was checked last, in seconds since 1970";
        registry.register_with_unit("readiness_check_time", help, Unit::Seconds, self.checked.clone());
        let help = "When the loss of a region was rehearsed last with success, in seconds since 1970";
        registry.register_with_unit("rehearsal_time", help, Unit::Seconds, self.rehearsed.clone());
        let help = "Time since a node of the region renewed its lease, or since the directory's leader leads";
        registry.register_with_unit("region_silence", help, Unit::Seconds, self.silence.clone());
        let help = "Tenants of a silent region whose on_region_loss is due, by what it leads to";
        registry.register("region_loss_tenants", help, self.decisions.clone());
    }

    /// Sets the gauges to what was checked; regions that are not among it have none.
    pub(crate) fn set(&self, samples: &[RegionSample]) {
        self.clear();
        for sample in samples {
            let labels = RegionLabels {
                region: sample.region.clone(),
            };
            for (state, count) in [
                ("ready", sample.ready),
                ("at_risk", sample.at_risk),
                ("blocked", sample.blocked),
            ] {
                let labels = TenantLabels {
                    region: sample.region.clone(),
                    state,
                };
                let count = i64::try_from(count).unwrap_or(i64::MAX);
                self.tenants.get_or_create(&labels).set(count);
            }
            if let Some(seconds) = sample.wait_seconds {
                self.wait.get_or_create(&labels).set(seconds);
            }
            if let Some(seconds) = sample.loss_seconds {
                self.loss.get_or_create(&labels).set(seconds);
            }
            if let Some(time) = sample.checked {
                self.checked.get_or_create(&labels).set(time);
            }
            if let Some(time) = sample.rehearsed {
                self.rehearsed.get_or_create(&labels).set(time);
            }
        }
    }

    /// Sets for how long no node of a region has renewed its lease.
    pub(crate) fn set_silence(&self, region: &RegionName, silent_ms: u64) {
        let labels = RegionLabels {
            region: region.to_string(),
        };
        let silence = Duration::from_millis(silent_ms);
        self.silence.get_or_create(&labels).set(silence.as_secs_f64());
    }

    /// Sets what is due for the tenants of a region.
    pub(crate) fn set_decision(&self, region: &RegionName, decision: &RegionLossDecision) {
        for (name, count) in [
            ("promoted", decision.promote.len()),
            ("observed", decision.observed.len()),
            ("withheld", decision.withheld.len()),
        ] {
            let labels = DecisionLabels {
                region: region.to_string(),
                decision: name,
            };
            let count = i64::try_from(count).unwrap_or(i64::MAX);
            self.decisions.get_or_create(&labels).set(count);
        }
    }

    /// Clears what is known of silent regions: this node does not lead the directory.
    pub(crate) fn clear_silence(&self) {
        self.silence.clear();
        self.decisions.clear();
    }

    /// Clears what was checked: this node does not lead the directory.
    pub(crate) fn clear(&self) {
        self.tenants.clear();
        self.wait.clear();
        self.loss.clear();
        self.checked.clear();
        self.rehearsed.clear();
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Sets each gauge.
    pub(crate) fn set_sample(metrics: &ReadinessMetrics, region: &RegionName) {
        metrics.set_silence(region, 1_500);
        metrics.set_decision(region, &RegionLossDecision::default());
        metrics.set(&[RegionSample {
            region: region.to_string(),
            ready: 1,
            at_risk: 0,
            blocked: 0,
            wait_seconds: Some(60.6),
            loss_seconds: Some(0.1),
            checked: Some(1),
            rehearsed: Some(1),
        }]);
    }
}
