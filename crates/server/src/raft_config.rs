//! Configuration of a node's Raft groups.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use stead_raft::{BlockingMode, CopyBandwidth};
use stead_replication::SharedDirectoryView;
use stead_state::directory::DirectoryView;
use stead_store::Store;
use stead_types::{GroupId, NodeId, RegionName};

use crate::{config::ValidatedConfig, environment::Environment};

/// Least time between two rebuilds of rows: rows that differ again so soon would differ after another rebuild too.
const REBUILD_INTERVAL_MIN: Duration = Duration::from_secs(3600);

/// Returns the configuration; addresses of nodes are those of the view, and of the configuration until it has them.
pub(crate) fn of(
    config: &ValidatedConfig,
    environment: &Environment,
    store: &Store,
    directory_view: &SharedDirectoryView,
) -> stead_raft::Config {
    let first: BTreeMap<NodeId, String> = config
        .members
        .iter()
        .map(|member| (member.id, member.peer.clone()))
        .collect();
    let viewed = directory_view.clone();
    let may_send = move |group: GroupId, node: NodeId, region: &RegionName| {
        viewed.read(|view| may_send(view, group, node, region))
    };
    let directory_view = directory_view.clone();
    let resolve = move |node: NodeId| {
        let known = directory_view.read(|view| view.node(node).map(|node| node.addresses.peer.clone()));
        known
            .filter(|address| !address.is_empty())
            .or_else(|| first.get(&node).cloned())
    };
    let time_since_rebuild = store.time_since_rebuild();
    let spool: Option<PathBuf> = store.dir.as_ref().map(|_| config.data_dir.join("snapshots"));
    stead_raft::Config {
        node: config.node.id,
        log: store.log.clone(),
        connect: environment.connect.clone(),
        resolve: Arc::new(resolve),
        clocks: environment.clocks.clone(),
        blocking: if environment.threads {
            BlockingMode::Pool
        } else {
            BlockingMode::Inline
        },
        spool,
        copies: Arc::new(CopyBandwidth::new(config.seeds.bytes_per_second_max)),
        limits: environment.retention.log,
        may_rebuild: Arc::new(move || time_since_rebuild().is_none_or(|time| time > REBUILD_INTERVAL_MIN)),
        may_send: Arc::new(may_send),
    }
}

/// Tells whether a node may send messages of a group: one of the group's region, or a voter of the directory, now or soon.
/// Of a group that the view does not have yet, any node may.
fn may_send(view: &DirectoryView, group: GroupId, node: NodeId, region: &RegionName) -> bool {
    let Some(group) = view.group(group) else {
        return true;
    };
    match &group.region {
        Some(of) => of == region,
        None => {
            let soon = group.change.iter().flat_map(|change| &change.voters);
            group.voters.iter().chain(soon).any(|voter| *voter == node)
        }
    }
}

#[cfg(test)]
mod tests {
    use stead_state::directory::{DirectoryChange, Group, VoterChange};
    use stead_types::{DirectoryVersion, Incarnation};

    use super::*;

    fn group(number: GroupId, region: Option<&str>, voters: &[u64], soon: &[u64]) -> DirectoryChange {
        let nodes = |of: &[u64]| of.iter().copied().map(NodeId::new).collect::<Vec<_>>();
        DirectoryChange::Group(Group {
            number,
            region: region.map(|region| region.parse().unwrap()),
            voters: nodes(voters),
            incarnation: Incarnation::FIRST,
            change: (!soon.is_empty()).then(|| VoterChange {
                voters: nodes(soon),
                operation: 1,
                withdrawn: false,
            }),
        })
    }

    #[test]
    fn sender_is_of_the_groups_region_or_a_voter_of_the_directory() {
        let viewed = SharedDirectoryView::new(DirectoryView::default());
        let version = DirectoryVersion {
            incarnation: Incarnation::FIRST,
            index: 1,
        };
        let changes = vec![
            group(GroupId::DIRECTORY, None, &[1, 2, 3], &[1, 2, 7]),
            group(GroupId::new(2), Some("eu-west"), &[1], &[]),
        ];
        viewed.apply(true, changes, version);
        let may = |group: GroupId, node: u64, region: &str| {
            viewed.read(|view| may_send(view, group, NodeId::new(node), &region.parse().unwrap()))
        };
        assert!(
            may(GroupId::new(2), 9, "eu-west"),
            "this node's log may be older than the leader"
        );
        assert!(!may(GroupId::new(2), 1, "us-east"));
        assert!(may(GroupId::DIRECTORY, 3, "us-east") && may(GroupId::DIRECTORY, 7, "us-east"));
        assert!(!may(GroupId::DIRECTORY, 9, "eu-west"));
        assert!(may(GroupId::new(5), 9, "us-east"), "the view does not have it yet");
    }
}
