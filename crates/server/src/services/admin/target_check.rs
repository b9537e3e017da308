//! Check of the groups to which tenants are to move: whether their nodes are ready and have room, and whether their time
//! is right. What does not answer blocks nothing here: the directory refuses groups without a majority.

use std::sync::Arc;

use stead_api::{convert::read::clock_difference_ms, proto::admin::v1 as admin};
use stead_types::{Error, ErrorKind, GroupId};

use super::{group, node};
use crate::host::Host;

/// How far a target's logged time may be ahead of its nodes' clocks: a tenant's own time goes on from the baton, and the
/// group's would draw it forward. Behind them it may be as far as it likes: time without a leader does not count, so that a
/// region that returns is as far behind as it was away, and takes ten times that to catch up.
const CLOCK_AHEAD_MS_MAX: i64 = 60_000;

/// Reports of the nodes of a target.
#[derive(Clone, Debug, Default, PartialEq)]
struct TargetStatus {
    group: u32,
    /// Milliseconds by which logged time is ahead of the nodes' clocks, if that is known.
    time_ahead_ms: Option<i64>,
    nodes: Vec<NodeReport>,
}

#[derive(Clone, Debug, PartialEq)]
struct NodeReport {
    name: String,
    is_ready: bool,
    /// Bytes of disk that are free; zero where they are unknown.
    disk_free: u64,
}

/// Refuses a move to these groups, to each of which so many bytes are copied, if anything speaks against one of them.
pub(super) async fn check(host: &Arc<Host>, targets: &[(GroupId, u64)]) -> Result<(), Error> {
    let blockers = blockers(host, targets).await;
    if blockers.is_empty() {
        return Ok(());
    }
    Err(Error::new(ErrorKind::Conflict, blockers.join("; ")))
}

/// Returns what speaks against these groups, to each of which so many bytes are copied.
pub(super) async fn blockers(host: &Arc<Host>, targets: &[(GroupId, u64)]) -> Vec<String> {
    let ask = targets.iter().map(async |(target, bytes)| {
        let status = status(host, *target).await;
        decide(&status, host.config.disk_reserve.saturating_add(*bytes))
    });
    futures::future::join_all(ask).await.concat()
}

async fn status(host: &Arc<Host>, target: GroupId) -> TargetStatus {
    let (message, nodes) = host.directory_view.read(|view| {
        let known = view.group(target);
        let voters = known.map(|known| known.voters.to_vec()).unwrap_or_default();
        let nodes = voters.iter().filter_map(|voter| view.node(*voter));
        let nodes: Vec<admin::Node> = nodes.map(|node| node::message(view, node)).collect();
        (known.map(|known| group::message(view, known)), nodes)
    });
    let nodes = futures::future::join_all(nodes.into_iter().map(|node| node::with_status(host, node)));
    let group = async {
        match message {
            Some(message) => group::with_status(host, message, true).await.status,
            None => None,
        }
    };
    let (nodes, group) = futures::future::join(nodes, group).await;
    let report = |node: admin::Node| {
        let status = node.status?;
        Some(NodeReport {
            name: node.name,
            is_ready: status.ready,
            disk_free: status.disk_free_bytes,
        })
    };
    TargetStatus {
        group: target.get(),
        time_ahead_ms: group.and_then(|status| status.logged_time_ahead.as_ref().map(clock_difference_ms)),
        nodes: nodes.into_iter().filter_map(report).collect(),
    }
}

/// Decides what speaks against a target whose nodes need so many free bytes: their reserve, and what is copied.
fn decide(target: &TargetStatus, needed: u64) -> Vec<String> {
    let group = target.group;
    let mut blockers = Vec::new();
    for node in &target.nodes {
        let NodeReport { name, disk_free, .. } = node;
        if (1..needed).contains(disk_free) {
            let (free, needed) = (disk_free >> 20, needed.div_ceil(1 << 20));
            blockers.push(format!(
                "node {name} of group {group} has {free} MiB of free disk, the move needs {needed} MiB: free some, or name \
                 another group"
            ));
        } else if !node.is_ready {
            blockers.push(format!(
                "node {name} of group {group} is not ready: wait until it is, or name another group"
            ));
        }
    }
    if let Some(ahead) = target.time_ahead_ms.filter(|ahead| *ahead > CLOCK_AHEAD_MS_MAX) {
        let seconds = ahead / 1_000;
        blockers.push(format!(
            "logged time of group {group} is {seconds} s ahead of its nodes' clocks: wait until it is steered back, or name \
             another group"
        ));
    }
    blockers
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target(is_ready: bool, disk_free: u64, time_ahead_ms: i64) -> TargetStatus {
        TargetStatus {
            group: 5,
            time_ahead_ms: Some(time_ahead_ms),
            nodes: vec![NodeReport {
                name: "us-east-1".into(),
                is_ready,
                disk_free,
            }],
        }
    }

    #[test]
    fn target_needs_room_for_what_is_copied() {
        assert_eq!(decide(&target(true, 300 << 20, 0), 256 << 20), [""; 0]);
        let blocked = decide(&target(true, 300 << 20, 0), 356 << 20);
        assert_eq!(
            blocked,
            [
                "node us-east-1 of group 5 has 300 MiB of free disk, the move needs 356 MiB: free some, or name another group"
            ]
        );
    }

    #[test]
    fn target_that_is_not_ready_or_whose_time_is_wrong_is_refused() {
        assert!(decide(&target(false, 1 << 40, 0), 0)[0].contains("is not ready"));
        assert_eq!(decide(&target(true, 1 << 40, 60_000), 0), [""; 0]);
        assert!(decide(&target(true, 1 << 40, 74_000), 0)[0].contains("is 74 s ahead of"));
        assert_eq!(
            decide(&target(true, 1 << 40, -3_600_000), 0),
            [""; 0],
            "its region was away for an hour"
        );
        assert_eq!(decide(&target(true, 0, 0), 1 << 30), [""; 0], "free disk is unknown");
        assert_eq!(decide(&TargetStatus::default(), 1 << 40), [""; 0], "nobody answers");
    }
}
