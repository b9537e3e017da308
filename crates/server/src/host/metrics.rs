//! Text of the metrics: what is counted where it happens, with samples of what changes by itself.

use super::context::Host;
use crate::metrics::GroupSample;

/// Updates the metrics and returns them as text for Prometheus.
pub(crate) fn metrics_text(host: &Host) -> String {
    let metrics = &host.metrics;
    metrics.forget_clocks();
    for group in host.raft_groups() {
        let numbers = group.metrics();
        if let Some(report) = group.clocks() {
            metrics.clocks(group.id(), &report);
        }
        metrics.group(GroupSample {
            group: group.id().get(),
            is_leader: numbers.leadership.is_here,
            term: numbers.leadership.term,
            applied: numbers.applied,
            durable: numbers.checkpoint,
            purged: numbers.purged,
            differs: group.differs(),
        });
    }
    let version = host.directory_view.version();
    for group in host.groups.keys() {
        metrics.lease(*group, host.leases.left(version, *group));
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
    metrics.peers(&host.peer_alarms);
    metrics.view(index, tenants);
    metrics.ready(host.readiness.node.report().is_ready());
    metrics.text()
}
