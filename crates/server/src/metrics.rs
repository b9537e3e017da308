//! Metrics of a node for Prometheus. Names follow its conventions: `stead_`, base units, `_total`.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use prometheus_client::{
    encoding::{
        EncodeLabelSet,
        text::{encode_eof, encode_registry},
    },
    metrics::{counter::Counter, family::Family, gauge::Gauge, info::Info},
    registry::{Registry, Unit},
};
use stead_api::peer_codec::PeerAlarms;
use stead_replication::{Lag, RegionPair, TrafficBytes};
use stead_state::logged_time::ClockReport;
use stead_types::GroupId;
use tokio::time::Instant;

pub(crate) use crate::metric_labels::{OperationLabel, ServedFrom};
use crate::{
    auth_metrics::AuthMetrics, config::NodeConfig, disk::DiskMetrics, latency_metrics::LatencyMetrics,
    metric_labels::GroupLabels, process_metrics::ProcessMetrics, promotion_metrics::PromotionMetrics,
    readiness_metrics::ReadinessMetrics, remote_metrics::RemoteMetrics, seed_metrics::SeedMetrics,
    tenant_loads::TenantLoads, tls::TlsMetrics,
};

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    op: OperationLabel,
    served_from: ServedFrom,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LimitLabels {
    limit: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct StateLabels {
    state: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct PartLabels {
    part: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct VoterLabels {
    group: u32,
    node: u64,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct FeedLabels {
    home_group: u32,
    follower_group: u32,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RegionPairLabels {
    from_region: String,
    to_region: String,
}

/// Sample of one group's values.
#[derive(Clone, Copy, Debug)]
pub(crate) struct GroupSample {
    /// Its number.
    pub(crate) group: u32,
    /// Whether this node leads it.
    pub(crate) is_leader: bool,
    /// Raft term.
    pub(crate) term: u64,
    /// Index of the last applied entry.
    pub(crate) applied: u64,
    /// Index up to which rows are durable.
    pub(crate) durable: u64,
    /// Index up to which the log is purged.
    pub(crate) purged: u64,
    /// Bytes of the snapshot that is being received or installed.
    pub(crate) snapshot_received: u64,
    /// Whether replicas differed when this node compared them last.
    pub(crate) differs: bool,
}

/// The metrics of a node.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    refused: Family<LimitLabels, Counter>,
    unconfirmed: Counter,
    is_leader: Family<GroupLabels, Gauge>,
    term: Family<GroupLabels, Gauge>,
    applied: Family<GroupLabels, Gauge>,
    durable: Family<GroupLabels, Gauge>,
    lease_remaining: Family<GroupLabels, Gauge<f64, AtomicU64>>,
    purged: Family<GroupLabels, Gauge>,
    snapshot_received: Family<GroupLabels, Gauge>,
    differs: Family<GroupLabels, Gauge>,
    forks: Family<GroupLabels, Gauge>,
    logged_time_ahead: Family<GroupLabels, Gauge<f64, AtomicU64>>,
    clock_ahead: Family<VoterLabels, Gauge<f64, AtomicU64>>,
    clocks_answering: Family<GroupLabels, Gauge>,
    bulk_moves: Family<StateLabels, Gauge>,
    view_index: Gauge,
    tenants: Gauge,
    watches: Gauge,
    feed_raw: Family<RegionPairLabels, Counter>,
    feed_wire: Family<RegionPairLabels, Counter>,
    feed_detached: Family<FeedLabels, Gauge>,
    feed_unreadable: Family<FeedLabels, Gauge>,
    staleness: Family<FeedLabels, Gauge<f64, AtomicU64>>,
    /// Seeds that are sent.
    pub(crate) seeds: SeedMetrics,
    /// Promotions that the directory has in flight.
    pub(crate) promotions: PromotionMetrics,
    /// Readiness of the regions for their loss.
    pub(crate) readiness: ReadinessMetrics,
    /// Waits for other regions.
    pub(crate) remote: RemoteMetrics,
    /// Latencies of operations, syncs and applying.
    pub(crate) latencies: LatencyMetrics,
    /// Resources that the process uses.
    pub(crate) process: ProcessMetrics,
    /// Loads of tenants, which are too many for labels.
    pub(crate) loads: TenantLoads,
    /// Authentication and authorization.
    pub(crate) auth: AuthMetrics,
    /// Of the node's disk.
    pub(crate) disk: DiskMetrics,
    retries: Family<PartLabels, Counter>,
    peers_damaged: Counter,
    peers_unreadable: Counter,
    answers_unsent: Gauge,
    ready: Gauge,
    /// Connections and handshakes.
    pub(crate) tls: Arc<TlsMetrics>,
}

impl Metrics {
    /// Registers the metrics of a node.
    pub(crate) fn of(node: &NodeConfig, tls: Arc<TlsMetrics>) -> Self {
        let metrics = Self {
            registry: Registry::with_prefix("stead"),
            requests: Family::default(),
            refused: Family::default(),
            unconfirmed: Counter::default(),
            is_leader: Family::default(),
            term: Family::default(),
            applied: Family::default(),
            durable: Family::default(),
            lease_remaining: Family::default(),
            purged: Family::default(),
            snapshot_received: Family::default(),
            differs: Family::default(),
            forks: Family::default(),
            logged_time_ahead: Family::default(),
            clock_ahead: Family::default(),
            clocks_answering: Family::default(),
            bulk_moves: Family::default(),
            view_index: Gauge::default(),
            tenants: Gauge::default(),
            watches: Gauge::default(),
            feed_raw: Family::default(),
            feed_wire: Family::default(),
            feed_detached: Family::default(),
            feed_unreadable: Family::default(),
            staleness: Family::default(),
            seeds: SeedMetrics::default(),
            promotions: PromotionMetrics::default(),
            readiness: ReadinessMetrics::default(),
            remote: RemoteMetrics::default(),
            latencies: LatencyMetrics::default(),
            process: ProcessMetrics::default(),
            loads: TenantLoads::new(Instant::now()),
            auth: AuthMetrics::default(),
            disk: DiskMetrics::default(),
            retries: Family::default(),
            peers_damaged: Counter::default(),
            peers_unreadable: Counter::default(),
            answers_unsent: Gauge::default(),
            ready: Gauge::default(),
            tls,
        };
        let labels = [
            ("version", env!("CARGO_PKG_VERSION").to_owned()),
            ("region", node.region.to_string()),
            ("node", node.name.clone()),
        ];
        metrics.registered(labels.to_vec())
    }

    fn registered(mut self, labels: Vec<(&'static str, String)>) -> Self {
        let registry = &mut self.registry;
        registry.register("build", "What runs here", Info::new(labels));
        registry.register(
            "requests",
            "Operations, by kind and by who served them",
            self.requests.clone(),
        );
        registry.register(
            "refused",
            "Operations beyond a limit, by the limit's name",
            self.refused.clone(),
        );
        registry.register("ready", "1 if the node can serve", self.ready.clone());
        self.register_groups();
        self.tls.register(&mut self.registry);
        self.register_clocks();
        let registry = &mut self.registry;
        registry.register(
            "view_index",
            "Directory index that this node's view has reached",
            self.view_index.clone(),
        );
        registry.register("view_tenants", "Tenants in this node's view", self.tenants.clone());
        registry.register("watches", "Watches that this node serves", self.watches.clone());
        let unit = Unit::Bytes;
        registry.register_with_unit(
            "feed_raw",
            "Change records sent, before compression",
            unit,
            self.feed_raw.clone(),
        );
        let unit = Unit::Bytes;
        registry.register_with_unit(
            "feed_wire",
            "Change records sent, as they crossed",
            unit,
            self.feed_wire.clone(),
        );
        let help = "How far a follower is behind at most, measured without clocks";
        registry.register_with_unit("feed_staleness", help, Unit::Seconds, self.staleness.clone());
        self.seeds.register(registry);
        let help = "What did not come about and was tried again, by what it was";
        registry.register("retries", help, self.retries.clone());
        let help = "Tenants that are followed and not attached: what they hold may be old";
        registry.register("feed_detached_tenants", help, self.feed_detached.clone());
        let help = "Tenants that are detached because of what their home has sent";
        registry.register("feed_unreadable_tenants", help, self.feed_unreadable.clone());
        let help = "Messages of other nodes that did not fit their checksum";
        registry.register("peer_messages_damaged", help, self.peers_damaged.clone());
        let help = "Messages of other nodes that this version cannot take";
        registry.register("peer_messages_unreadable", help, self.peers_unreadable.clone());
        let help = "Bytes of answers that wait for their readers";
        registry.register_with_unit("answers_unsent", help, Unit::Bytes, self.answers_unsent.clone());
        self
    }

    fn register_groups(&mut self) {
        let registry = &mut self.registry;
        registry.register(
            "raft_is_leader",
            "1 if this node leads the group",
            self.is_leader.clone(),
        );
        registry.register("raft_term", "Raft term of the group", self.term.clone());
        registry.register(
            "raft_applied_index",
            "Last applied entry of the group",
            self.applied.clone(),
        );
        registry.register(
            "raft_durable_index",
            "Rows are durable without the log up to here",
            self.durable.clone(),
        );
        registry.register(
            "raft_purged_index",
            "Entries up to here left the log",
            self.purged.clone(),
        );
        let help = "Bytes of the snapshot that is being received or installed; 0 without one";
        registry.register_with_unit(
            "raft_snapshot_received",
            help,
            Unit::Bytes,
            self.snapshot_received.clone(),
        );
        let help = "Seconds for which this node may serve a group that it leads; 0 without a lease";
        registry.register("lease_remaining_seconds", help, self.lease_remaining.clone());
        let help = "Answers of a home without a lease";
        registry.register("unconfirmed_answers", help, self.unconfirmed.clone());
        let help = "1 where replicas of the group differed when this node compared them last";
        registry.register("group_replicas_differ", help, self.differs.clone());
        let help = "Tenants of which the group keeps a fork: what a promotion has cut";
        registry.register("forks", help, self.forks.clone());
        let help = "On voters of the directory: bulk moves in flight, by state";
        registry.register("bulk_moves", help, self.bulk_moves.clone());
        self.promotions.register(registry);
        self.readiness.register(registry);
        self.remote.register(registry);
        self.latencies.register(registry);
        self.disk.register(registry);
        self.auth.register(registry);
    }

    fn register_clocks(&mut self) {
        let registry = &mut self.registry;
        let help = "On the leader: how far logged time is ahead of the median of the voters' wall clocks";
        registry.register_with_unit("logged_time_ahead", help, Unit::Seconds, self.logged_time_ahead.clone());
        let help = "On the leader: how far a voter's wall clock is ahead of the median of all";
        registry.register_with_unit("clock_ahead", help, Unit::Seconds, self.clock_ahead.clone());
        let help = "On the leader: voters whose wall clocks are known; below three nothing is steered by them";
        registry.register("clocks_answering", help, self.clocks_answering.clone());
    }

    /// Sets the clock metrics of a group, which only its leader knows.
    pub(crate) fn clocks(&self, group: GroupId, report: &ClockReport) {
        let labels = GroupLabels { group: group.get() };
        let answering = i64::try_from(report.answering).unwrap_or(i64::MAX);
        self.clocks_answering.get_or_create(&labels).set(answering);
        if let Some(micros) = report.logged {
            self.logged_time_ahead.get_or_create(&labels).set(seconds(micros));
        }
        for (node, micros) in &report.clocks {
            let labels = VoterLabels {
                group: group.get(),
                node: node.get(),
            };
            self.clock_ahead.get_or_create(&labels).set(seconds(*micros));
        }
    }

    /// Clears the clock metrics: a node that no longer leads does not know them.
    pub(crate) fn forget_clocks(&self) {
        self.clocks_answering.clear();
        self.logged_time_ahead.clear();
        self.clock_ahead.clear();
    }

    /// Counts an operation.
    pub(crate) fn request(&self, op: OperationLabel, served_from: ServedFrom) {
        self.requests.get_or_create(&RequestLabels { op, served_from }).inc();
    }

    /// Counts an operation that was refused for a limit. There is no label for the tenant: tenants are too many.
    pub(crate) fn refused(&self, limit: &'static str) {
        self.refused.get_or_create(&LimitLabels { limit }).inc();
    }

    /// Sets the number of retries of a task since the node started.
    pub(crate) fn retries(&self, part: &'static str, total: u64) {
        let counter = self.retries.get_or_create(&PartLabels { part }).clone();
        counter.inner().store(total, Ordering::Relaxed);
    }

    /// Sets the metrics of a group.
    pub(crate) fn group(&self, sample: GroupSample) {
        let labels = GroupLabels { group: sample.group };
        let number = |value: u64| i64::try_from(value).unwrap_or(i64::MAX);
        self.is_leader.get_or_create(&labels).set(sample.is_leader.into());
        self.term.get_or_create(&labels).set(number(sample.term));
        self.applied.get_or_create(&labels).set(number(sample.applied));
        self.durable.get_or_create(&labels).set(number(sample.durable));
        self.purged.get_or_create(&labels).set(number(sample.purged));
        self.snapshot_received
            .get_or_create(&labels)
            .set(number(sample.snapshot_received));
        self.differs.get_or_create(&labels).set(i64::from(sample.differs));
    }

    /// Sets the bytes sent from one region to another since the node started.
    pub(crate) fn traffic(&self, pair: &RegionPair, bytes: TrafficBytes) {
        let labels = RegionPairLabels {
            from_region: pair.from.to_string(),
            to_region: pair.to.to_string(),
        };
        let set = |family: &Family<RegionPairLabels, Counter>, total: u64| {
            family.get_or_create(&labels).inner().store(total, Ordering::Relaxed);
        };
        set(&self.feed_raw, bytes.raw);
        set(&self.feed_wire, bytes.wire);
    }

    /// Counts an answer of a home that had no lease.
    pub(crate) fn unconfirmed(&self) {
        self.unconfirmed.inc();
    }

    /// Sets the time that is left of a group's lease; a group that needs none has no sample.
    pub(crate) fn lease(&self, group: GroupId, left: Duration) {
        let labels = GroupLabels { group: group.get() };
        if left == Duration::MAX {
            self.lease_remaining.remove(&labels);
        } else {
            self.lease_remaining.get_or_create(&labels).set(left.as_secs_f64());
        }
    }

    /// Sets the number of tenants of which a group keeps a fork.
    pub(crate) fn forks(&self, group: GroupId, tenants: usize) {
        let tenants = i64::try_from(tenants).unwrap_or(i64::MAX);
        let labels = GroupLabels { group: group.get() };
        self.forks.get_or_create(&labels).set(tenants);
    }

    /// Sets the number of bulk moves that are in a state.
    pub(crate) fn bulk_moves(&self, state: &'static str, count: usize) {
        let count = i64::try_from(count).unwrap_or(i64::MAX);
        self.bulk_moves.get_or_create(&StateLabels { state }).set(count);
    }

    /// Sets the metrics of a feed that a group of this node follows.
    pub(crate) fn lag(&self, follower: GroupId, lag: &Lag) {
        let labels = FeedLabels {
            home_group: lag.home.get(),
            follower_group: follower.get(),
        };
        let detached = i64::try_from(lag.detached).unwrap_or(i64::MAX);
        self.feed_detached.get_or_create(&labels).set(detached);
        let unreadable = i64::try_from(lag.unreadable).unwrap_or(i64::MAX);
        self.feed_unreadable.get_or_create(&labels).set(unreadable);
        match lag.staleness {
            Some(staleness) => {
                self.staleness.get_or_create(&labels).set(staleness.as_secs_f64());
            }
            None => {
                self.staleness.remove(&labels);
            }
        }
    }

    /// Sets the counts of unreadable and damaged messages of other nodes since the node started.
    pub(crate) fn peers(&self, alarms: &PeerAlarms) {
        let set = |counter: &Counter, to: u64| counter.inner().store(to, Ordering::Relaxed);
        set(&self.peers_damaged, alarms.damaged_count());
        set(&self.peers_unreadable, alarms.unreadable_count());
    }

    /// Sets the bytes of answers that wait for their readers.
    pub(crate) fn answers_unsent(&self, bytes: u64) {
        self.answers_unsent.set(i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Sets the metrics of the directory view.
    pub(crate) fn view(&self, index: u64, tenants: usize) {
        self.view_index.set(i64::try_from(index).unwrap_or(i64::MAX));
        self.tenants.set(i64::try_from(tenants).unwrap_or(i64::MAX));
    }

    /// Counts a watch as open.
    pub(crate) fn watch_opened(&self) {
        self.watches.inc();
    }

    /// Counts a watch as closed.
    pub(crate) fn watch_closed(&self) {
        self.watches.dec();
    }

    /// Sets whether the node is ready.
    pub(crate) fn ready(&self, ready: bool) {
        self.ready.set(ready.into());
    }

    /// Returns all metrics as text.
    pub(crate) fn text(&self) -> String {
        let mut text = String::new();
        for registry in [&self.registry, self.process.registry()] {
            encode_registry(&mut text, registry).expect("a string takes every write");
        }
        encode_eof(&mut text).expect("a string takes every write");
        text
    }
}

#[expect(clippy::cast_precision_loss, reason = "a gauge is a float")]
fn seconds(micros: i64) -> f64 {
    micros as f64 / 1e6
}

#[cfg(test)]
#[path = "metrics_test.rs"]
mod metrics_test;
