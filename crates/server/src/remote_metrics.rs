//! Metrics of durability `REMOTE`: how long answers wait for another region, and what waits.

use std::time::Duration;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::{Registry, Unit},
};
use stead_replication::RemoteWait;
use stead_types::GroupId;

use crate::metric_labels::GroupLabels;

/// Upper bounds of the buckets of waits, in seconds: round trips within a continent and around the world, and what lasts
/// longer because a link is down.
const BUCKETS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OutcomeLabels {
    outcome: &'static str,
}

/// Metrics of waits for another region.
#[derive(Debug)]
pub(crate) struct RemoteMetrics {
    waits: Histogram,
    unconfirmed: Family<OutcomeLabels, Counter>,
    waiting: Family<GroupLabels, Gauge>,
    tenants: Family<GroupLabels, Gauge>,
    unconfirmed_tenants: Family<GroupLabels, Gauge>,
    lowered: Gauge,
}

impl Default for RemoteMetrics {
    fn default() -> Self {
        Self {
            waits: Histogram::new(BUCKETS),
            unconfirmed: Family::default(),
            waiting: Family::default(),
            tenants: Family::default(),
            unconfirmed_tenants: Family::default(),
            lowered: Gauge::default(),
        }
    }
}

/// Tenants of a home with durability `REMOTE`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct RemoteTenants {
    /// All of them.
    pub(crate) all: usize,
    /// Those whose last change no other region has confirmed.
    pub(crate) unconfirmed: usize,
    /// Tenants of which an answer waits for another region now, whatever their default is.
    pub(crate) waiting: usize,
}

impl RemoteMetrics {
    /// Registers the metrics.
    pub(crate) fn register(&self, registry: &mut Registry) {
        let help = "Time that answers with durability REMOTE waited until another region had what they depend on";
        registry.register_with_unit("remote_wait", help, Unit::Seconds, self.waits.clone());
        let help = "Answers with durability REMOTE that no other region confirmed, by why";
        registry.register("remote_unconfirmed_answers", help, self.unconfirmed.clone());
        let help = "On the leader: tenants of which an answer waits for another region now";
        registry.register("remote_waiting_tenants", help, self.waiting.clone());
        let help = "On the leader: tenants with durability REMOTE that the group is home to";
        registry.register("remote_tenants", help, self.tenants.clone());
        let help = "On the leader: of these, those whose last change no other region has confirmed";
        registry.register("remote_unconfirmed_tenants", help, self.unconfirmed_tenants.clone());
        let help =
            "On voters of the directory: tenants whose durability a promotion made REGION, until it is REMOTE again";
        registry.register("remote_lowered_tenants", help, self.lowered.clone());
    }

    /// Counts a wait.
    pub(crate) fn record_wait(&self, took: Duration, wait: RemoteWait) {
        let outcome = match wait {
            RemoteWait::Confirmed => return self.waits.observe(took.as_secs_f64()),
            RemoteWait::TimedOut => "deadline",
            RemoteWait::LeaderChanged => "leader",
            RemoteWait::NotOwner => "home",
        };
        self.unconfirmed.get_or_create(&OutcomeLabels { outcome }).inc();
    }

    /// Sets the tenants of a group that this node leads; `None` if another node does.
    pub(crate) fn set_tenants(&self, group: GroupId, tenants: Option<RemoteTenants>) {
        let labels = GroupLabels { group: group.get() };
        let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
        let RemoteTenants {
            all,
            unconfirmed,
            waiting,
        } = tenants.unwrap_or_default();
        self.tenants.get_or_create(&labels).set(number(all));
        self.unconfirmed_tenants.get_or_create(&labels).set(number(unconfirmed));
        self.waiting.get_or_create(&labels).set(number(waiting));
    }

    /// Sets the number of tenants whose durability a promotion has lowered.
    pub(crate) fn set_lowered(&self, tenants: usize) {
        self.lowered.set(i64::try_from(tenants).unwrap_or(i64::MAX));
    }
}
