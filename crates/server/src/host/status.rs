//! Status messages for operators: of this node, of its groups, and of the followers that it leads.

use std::time::Duration;

use stead_api::{convert, proto::admin::v1 as admin};
use stead_replication::{Lag, SeedPhase, SeedProgress};
use stead_types::{GroupId, NodeId, RegionName};

use super::context::Host;

/// Returns the status of this node.
pub(crate) fn node_status(host: &Host) -> admin::NodeStatus {
    let seconds = i64::try_from(host.started_ms / 1000).unwrap_or(i64::MAX);
    let nanos = i32::try_from((host.started_ms % 1000) * 1_000_000).unwrap_or(0);
    let ready = host.readiness.node.report();
    admin::NodeStatus {
        version: env!("CARGO_PKG_VERSION").to_owned(),
        start_time: Some(prost_types::Timestamp { seconds, nanos }),
        ready: ready.is_ready(),
        leads: host
            .raft_groups()
            .filter(|group| group.is_leader() && group.is_connected())
            .map(|group| group.id().get())
            .collect(),
        view_version: Some(convert::id::from_directory_version(host.directory_view.version())),
        engine: host.config.engine.clone(),
        disk_used_bytes: (host.disk_len)(),
        // Zero stands for "not known".
        disk_free_bytes: (host.resources.disk_free)(&host.config.data_dir).map_or(0, |free| free.max(1)),
        memory_bytes: (host.resources.memory)(),
        lease_left: shortest_lease(host),
        warnings: ready.warnings(),
    }
}

/// Returns the status of a group, as this node sees it.
pub(crate) fn group_status(host: &Host, group: GroupId) -> Option<admin::GroupStatus> {
    let raft = host.raft_group(group)?;
    let numbers = raft.metrics();
    let clocks = raft.clocks().unwrap_or_default();
    let voter = |voter: &NodeId| {
        let found = numbers.replicated.iter().find(|(node, _)| node == voter);
        admin::VoterStatus {
            node: voter.get(),
            matched_index: found.map(|(_, index)| *index),
            clock_ahead: clocks.clocks.get(voter).copied().map(convert::read::clock_difference),
        }
    };
    let view = host.directory_view.version();
    let is_data = group != GroupId::DIRECTORY;
    let lost = host.leases.lost(view, group).filter(|_| is_data);
    Some(admin::GroupStatus {
        lease_left: lease_left(host.leases.left(view, group)).filter(|_| is_data),
        no_lease_since: lost.map(|lost| convert::read::timestamp_ms(lost.since_ms)),
        // A leader that is not heard of, or that does not reach its majority, is not reported.
        leader: numbers
            .leadership
            .leader
            .filter(|_| raft.is_connected())
            .map(NodeId::get),
        term: numbers.leadership.term,
        applied_index: numbers.applied,
        durable_index: numbers.checkpoint,
        voters: numbers.voters.iter().map(voter).collect(),
        logged_time_ahead: clocks.logged.map(convert::read::clock_difference),
        voter_change_waits: host.voter_changes.of(group).unwrap_or_default(),
    })
}

/// Returns the shortest of the leases of this node's groups; `None` if one has none, or if none is needed.
fn shortest_lease(host: &Host) -> Option<prost_types::Duration> {
    let view = host.directory_view.version();
    let left = host.groups.keys().map(|group| host.leases.left(view, *group));
    lease_left(left.min()?)
}

/// Converts the time that is left of a lease: none without a lease, and where none is needed.
fn lease_left(left: Duration) -> Option<prost_types::Duration> {
    (!left.is_zero() && left != Duration::MAX).then(|| convert::read::duration(left))
}

/// Returns the lag of each follower group of a region that this node leads.
pub(crate) fn follower_lags(host: &Host, region: &RegionName) -> Vec<admin::FollowerLag> {
    if *region != host.config.node.region {
        return Vec::new();
    }
    let region_of = |group| {
        host.directory_view
            .read(|view| view.region_of(group).map(|region| region.name.to_string()))
    };
    let lag = |(group, lag): (GroupId, Lag)| admin::FollowerLag {
        home_group: lag.home.get(),
        home_region: region_of(lag.home).unwrap_or_default(),
        follower_group: group.get(),
        follower_region: region.to_string(),
        connected: lag.connected,
        applied_offset: lag.offset.index,
        staleness: lag.staleness.map(convert::read::duration),
        attached_tenants: lag.attached,
        detached_tenants: lag.detached,
        unreadable_tenants: lag.unreadable,
    };
    let led = host.groups.iter().filter(|(_, hosted)| hosted.raft.is_leader());
    let lags = led.flat_map(|(id, hosted)| hosted.freshness.lags().into_iter().map(|lag| (*id, lag)));
    lags.map(lag).collect()
}

/// Returns the copies that groups that this node leads make for a region.
pub(crate) fn seeds_to(host: &Host, region: &RegionName) -> Vec<admin::SeedProgress> {
    let led = host.groups.iter().filter(|(_, hosted)| hosted.raft.is_leader());
    let seeds = led.flat_map(|(home, hosted)| hosted.seeds.progress().into_iter().map(|seed| (*home, seed)));
    let message = |(home, seed): (GroupId, SeedProgress)| {
        host.directory_view.read(|view| {
            let region_of = |group| view.region_of(group).map(|region| region.name.to_string());
            let tenant = view.tenant(seed.tenant)?;
            view.region_of(seed.follower).filter(|of| of.name == *region)?;
            Some(admin::SeedProgress {
                tenant: tenant.name.to_string(),
                home_group: home.get(),
                home_region: region_of(home).unwrap_or_default(),
                follower_region: region.to_string(),
                ..seed_message(&seed)
            })
        })
    };
    seeds.filter_map(message).collect()
}

fn seed_message(seed: &SeedProgress) -> admin::SeedProgress {
    use admin::seed_progress::Phase;
    let (phase, failure) = match seed.phase {
        SeedPhase::Loading => (Phase::Loading, None),
        SeedPhase::CatchingUp => (Phase::CatchingUp, None),
        SeedPhase::Failed(failure) => (Phase::Failed, Some(failure)),
    };
    admin::SeedProgress {
        follower_group: seed.follower.get(),
        phase: phase.into(),
        keys: seed.keys,
        keys_total: seed.keys_total,
        bytes: seed.bytes,
        bytes_total: seed.bytes_total,
        history_bytes: seed.history,
        bytes_to_go: seed.bytes_to_go,
        time_to_go: seed.time_to_go.map(convert::read::duration),
        copy_bytes_per_second: seed.rates.copy,
        write_bytes_per_second: seed.rates.write,
        writers_slowed_to: seed.writers_slowed_to,
        failure: failure.map(|failure| failure.to_string()).unwrap_or_default(),
        ..admin::SeedProgress::default()
    }
}
