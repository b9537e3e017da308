//! Text of the metrics: what is counted where it happens, with samples of what changes by itself.

use stead_state::directory::BulkMoveState;
use stead_types::{Durability, TenantNumber};

use super::{context::Host, hosted_group::HostedGroup};
use crate::{disk::DiskSample, metrics::GroupSample, process_metrics::ProcessSample, remote_metrics::RemoteTenants};

/// Updates the metrics and returns them as text for Prometheus.
pub(crate) fn metrics_text(host: &Host) -> String {
    let metrics = &host.metrics;
    metrics.forget_clocks();
    host.tls.sample((host.wall)());
    for group in host.raft_groups() {
        let numbers = group.metrics();
        if let Some(report) = group.clocks() {
            metrics.clocks(group.id(), &report);
        }
        metrics.group(GroupSample {
            group: group.id().get(),
            // One that does not reach its majority commits nothing, and may have been replaced.
            is_leader: numbers.leadership.is_here && group.is_connected(),
            term: numbers.leadership.term,
            applied: numbers.applied,
            durable: numbers.checkpoint,
            purged: numbers.purged,
            snapshot_received: numbers.snapshot_received_bytes,
            differs: group.differs(),
        });
    }
    operations(host);
    let version = host.directory_view.version();
    for (group, hosted) in host.groups.iter() {
        metrics.lease(*group, host.leases.left(version, *group));
        // A node whose rows cannot be read is about to stop.
        if let Ok(tenants) = hosted.machine.read(|view| view.shard().forked_count()) {
            metrics.forks(*group, tenants);
        }
        let tenants = hosted.raft.is_leader().then(|| remote_tenants(host, hosted));
        metrics.remote.set_tenants(*group, tenants);
    }
    for (pair, bytes) in host.traffic.totals() {
        metrics.traffic(&pair, bytes);
    }
    for lag in host
        .groups
        .iter()
        .flat_map(|(id, hosted)| hosted.freshness.lags().into_iter().map(|lag| (*id, lag)))
    {
        metrics.lag(lag.0, &lag.1);
    }
    let seeds = host.groups.iter();
    let seeds = seeds.flat_map(|(home, hosted)| hosted.seeds.progress().into_iter().map(|seed| (*home, seed)));
    metrics.seeds.set(seeds);
    for (part, total) in host.health.retries() {
        metrics.retries(part, total);
    }
    let (index, tenants) = host
        .directory_view
        .read(|view| (view.version().index, view.tenant_count()));
    metrics.latencies.set_log_sync((host.log_sync_latency)());
    for (group, hosted) in host.groups.iter() {
        let (apply, feed) = (hosted.machine.apply_latency(), hosted.freshness.batch_latency());
        metrics.latencies.set_group(*group, apply, feed);
    }
    metrics
        .process
        .set(ProcessSample::read(), host.resources.descriptors_max);
    metrics.peers(&host.peer_alarms);
    metrics.answers_unsent(host.answers.len());
    metrics.view(index, tenants);
    metrics.disk.set(DiskSample {
        free: (host.resources.disk_free)(&host.config.data_dir),
        reserve: host.config.disk_reserve,
        rows: (host.disk_len)(),
    });
    metrics.ready(host.readiness.node.report().is_ready());
    metrics.text()
}

/// Counts the tenants with durability `REMOTE` of a group that this node leads.
fn remote_tenants(host: &Host, hosted: &HostedGroup) -> RemoteTenants {
    let group = hosted.raft.id();
    let all: Vec<TenantNumber> = host.directory_view.read(|view| {
        let tenants = view.tenants_from(TenantNumber::new(0));
        let remote = tenants.filter(|tenant| tenant.home == group && tenant.durability == Durability::Remote);
        remote.map(|tenant| tenant.number).collect()
    });
    let is_unconfirmed = |tenant: &&TenantNumber| {
        let last = hosted
            .machine
            .read(|held| held.record(**tenant).map(|record| record.live.evaluation_point()));
        // A node whose rows cannot be read is about to stop.
        last.ok()
            .flatten()
            .is_some_and(|last| !hosted.remote.is_confirmed(**tenant, last))
    };
    RemoteTenants {
        unconfirmed: all.iter().filter(is_unconfirmed).count(),
        all: all.len(),
        waiting: hosted.remote.tenants_waiting(),
    }
}

/// Samples bulk moves and promotions, which only voters of the directory know.
fn operations(host: &Host) {
    let Some(local_voter) = host.directory.local_voter() else {
        return;
    };
    // A node whose rows cannot be read is about to stop.
    let _ = local_voter.machine.read(|directory| {
        let operations = directory.operations();
        let count = |is: fn(&BulkMoveState) -> bool| {
            let mut in_flight = operations.bulk_in_flight();
            let bulk = in_flight.by_ref().filter_map(|id| operations.bulk_move(id));
            bulk.filter(|bulk| is(&bulk.state)).count()
        };
        let metrics = &host.metrics;
        metrics.bulk_moves("running", count(|state| *state == BulkMoveState::Running));
        metrics.bulk_moves("cancelling", count(|state| *state == BulkMoveState::Cancelling));
        metrics.bulk_moves("paused", count(|state| matches!(state, BulkMoveState::Paused { .. })));
        let promotions = operations.promotions().in_flight();
        let promotions = promotions.filter_map(|id| operations.promotion(id));
        metrics.promotions.set(promotions.map(|promotion| &promotion.counts));
        let view = directory.view();
        let is_region = |tenant: &TenantNumber| {
            view.tenant(*tenant)
                .is_some_and(|tenant| tenant.durability == Durability::Region)
        };
        let lowered = operations.promotions().lowered_durability().into_iter();
        metrics.remote.set_lowered(lowered.filter(is_region).count());
    });
}
