//! Groups that a node has open, by its view of the directory. They stay as they are for one run of the node: when the view
//! says otherwise the run ends in order, and the next one begins with the new ones.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use stead_raft::Timing;
use stead_state::directory::{Addresses, Command, DirectoryView, Group};
use stead_types::{DirectoryVersion, GroupId, Incarnation, NodeId, RegionName};
use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    config::ValidatedConfig,
    host::Host,
    identity::{self, Claim, Refusal},
    node::initial_cluster,
    supervisor::{BoxError, Supervisor},
};

/// Interval at which a voter of the directory without a leader asks whether it is still one.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Time between two nodes that start again for the same reason, and serve the same groups: the timing of the directory, or a
/// group that is added to a region.
const TURN: Duration = Duration::from_secs(8);
/// Most of them that wait for one another.
const TURNS_MAX: u32 = 10;
/// Pause before a failed update of addresses is retried.
const RETRY_PAUSE: Duration = Duration::from_secs(1);

/// Groups that a node has open.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct HostedSet {
    groups: BTreeMap<GroupId, Incarnation>,
    /// Whether the directory's voters are in several regions, which sets its timing.
    is_wide: bool,
    rtt_ms_max: u32,
}

/// Returns the groups as they are before there is a view: the initial ones, or, on a node that has joined, the directory.
pub(crate) fn first_groups(config: &ValidatedConfig) -> Vec<Group> {
    if !config.has_joined {
        return initial_cluster(config).groups();
    }
    let others = config.members.iter().filter(|member| member.id != config.node.id);
    vec![Group {
        number: GroupId::DIRECTORY,
        region: None,
        voters: others.map(|member| member.id).collect(),
        incarnation: Incarnation::FIRST,
        change: None,
    }]
}

impl HostedSet {
    /// Returns the groups that a node with this view has open.
    pub(crate) fn of(config: &ValidatedConfig, view: &DirectoryView) -> Self {
        let own = config.node.id;
        let mut known: Vec<Group> = view.groups().cloned().collect();
        if known.is_empty() {
            known = first_groups(config);
        }
        let hosted = known.iter().filter(|group| group.is_on(own));
        let directory = known.iter().find(|group| group.number == GroupId::DIRECTORY);
        let voters = directory.map(all_voters).unwrap_or_default();
        let configured = |node: &NodeId| config.members.iter().find(|member| member.id == *node);
        let region = |node: &NodeId| -> Option<RegionName> {
            let in_view = view.node(*node).map(|node| node.region.clone());
            in_view.or_else(|| configured(node).map(|member| member.region.clone()))
        };
        let regions: BTreeSet<RegionName> = voters.iter().filter_map(region).collect();
        Self {
            groups: hosted.map(|group| (group.number, group.incarnation)).collect(),
            is_wide: regions.len() > 1 && voters.contains(&own),
            rtt_ms_max: u32::try_from(config.directory_rtt_max.as_millis()).unwrap_or(u32::MAX),
        }
    }

    /// Returns the groups.
    pub(crate) fn groups(&self) -> impl Iterator<Item = GroupId> + '_ {
        self.groups.keys().copied()
    }

    /// Returns the timing of the directory.
    pub(crate) fn directory_timing(&self) -> Timing {
        match self.is_wide {
            true => Timing::Wide {
                rtt_ms_max: self.rtt_ms_max,
            },
            false => Timing::Region,
        }
    }
}

/// Returns the voters of a group, with those that will be.
fn all_voters(group: &Group) -> BTreeSet<NodeId> {
    let change = group.change.iter().flat_map(|change| &change.voters);
    group.voters.iter().chain(change).copied().collect()
}

/// Waits until the node is to have other groups open.
///
/// # Errors
///
/// The node was removed from the cluster.
pub(crate) async fn wait_for_change(host: &Host, hosted: &HostedSet) -> Result<(), Refusal> {
    let own = host.config.node.id;
    let first = host.directory_view.version();
    let mut versions = host.directory_view.watch();
    let mut due = None;
    let mut checking = std::pin::pin!(check_others(host));
    let mut is_checked = false;
    let mut known_at = None;
    loop {
        versions.borrow_and_update();
        let (is_known, now, version) = host.directory_view.read(|view| {
            let is_known = view.nodes().next().is_none() || view.node(own).is_some();
            (is_known, HostedSet::of(&host.config, view), view.version())
        });
        let is_there = || host.directory_view.read(|view| view.node(own).is_some());
        // Nobody may answer a node that was removed: others end its connections.
        if !is_known && (is_newer(version, known_at) || is_confirmed(host).await && !is_there()) {
            return Err(Refusal::Removed(own));
        }
        if is_there() {
            known_at = Some(version);
        }
        // A voter that a recovery has left out stops by itself.
        let is_left_out = is_recovered_since(first, version) && host.directory.local_voter().is_some();
        let is_due = now != *hosted && !is_left_out;
        let before = host.directory_view.read(|view| nodes_before(view, hosted, &now, own));
        if is_due && before == 0 {
            return Ok(());
        }
        due = match is_due {
            true => due.or_else(|| Some(Instant::now() + TURN * before)),
            false => None,
        };
        tokio::select! {
            changed = versions.changed() => if changed.is_err() {
                return std::future::pending().await;
            },
            checked = &mut checking, if !is_checked => {
                checked?;
                is_checked = true;
            }
            () = sleep_until(due.unwrap_or_else(Instant::now)), if due.is_some() => return Ok(()),
            () = sleep(CHECK_INTERVAL) => check_silence(host).await?,
        }
    }
}

/// Returns how many nodes start again before this one for what has changed: each after those of lower numbers, where all have
/// the same groups open and would be gone at once.
fn nodes_before(view: &DirectoryView, hosted: &HostedSet, now: &HostedSet, own: NodeId) -> u32 {
    let added = now.groups.keys().find(|group| !hosted.groups.contains_key(group));
    let stays = |(group, incarnation): (&GroupId, &Incarnation)| now.groups.get(group) == Some(incarnation);
    let group = match added {
        // Only the distance of the directory's voters is another one.
        None if now.groups == hosted.groups => view.group(GroupId::DIRECTORY),
        Some(added) if !hosted.groups.is_empty() && hosted.groups.iter().all(stays) => {
            view.group(*added).filter(|group| group.is_forming())
        }
        // A group is gone, or this node has left it, as others may have.
        None => {
            let mut left = now.groups.keys().filter(|group| **group != GroupId::DIRECTORY);
            left.find_map(|group| view.group(*group))
        }
        Some(_) => None,
    };
    let voters = group.map(all_voters).unwrap_or_default();
    let before = voters.iter().filter(|voter| **voter < own).count();
    u32::try_from(before).unwrap_or(u32::MAX).min(TURNS_MAX)
}

/// Tells whether a view is newer than one that had this node: numbers are never used twice, so that the node was removed where
/// the newer one does not have it.
fn is_newer(now: DirectoryVersion, known_at: Option<DirectoryVersion>) -> bool {
    known_at.is_some_and(|known_at| now > known_at)
}

/// Tells whether the directory was recovered since a node began with a view. Before there is a view the directory's first
/// incarnation is what the node has open.
fn is_recovered_since(first: DirectoryVersion, now: DirectoryVersion) -> bool {
    now.incarnation > first.incarnation.max(Incarnation::FIRST)
}

/// Asks other nodes whether this one is still a node, if it votes in the directory and hears nothing of it.
async fn check_silence(host: &Host) -> Result<(), Refusal> {
    let local_voter = host.directory.local_voter();
    if local_voter.is_none_or(|local_voter| local_voter.group.is_connected()) {
        return Ok(());
    }
    check_others(host).await
}

/// Asks other nodes whether this one is still a node.
async fn check_others(host: &Host) -> Result<(), Refusal> {
    let claim = Claim {
        node: host.config.node.id,
        process: host.process,
        version: host.directory_view.version(),
    };
    let mut others = identity::others(claim.node, &host.directory_view);
    // A machine with a new disk has the address of the node that it replaces.
    others.retain(|address| *address != host.config.peer.advertise);
    identity::check(&claim, &others, &host.admin_peers.connect()).await
}

/// Tells whether this node's view has reached a version that the directory's leader has confirmed: a voter may have shown it
/// an old one.
async fn is_confirmed(host: &Host) -> bool {
    match host.directory.version().await {
        Ok(version) => host.directory_view.version() >= version,
        Err(_) => false,
    }
}

/// Spawns the task that tells the directory the addresses of this node, where they are not those that it has.
pub(crate) fn spawn_address_update(host: &Arc<Host>, supervisor: &mut Supervisor) {
    let host = host.clone();
    supervisor.spawn("own addresses", |stop| update_addresses(host, stop));
}

async fn update_addresses(host: Arc<Host>, stop: CancellationToken) -> Result<(), BoxError> {
    let own = host.config.node.id;
    let addresses = Addresses {
        client: host.config.client.advertise.clone(),
        peer: host.config.peer.advertise.clone(),
        http: host.config.http.advertise.clone(),
    };
    let mut versions = host.directory_view.watch();
    loop {
        versions.borrow_and_update();
        let is_other = host.directory_view.read(|view| {
            view.node(own)
                .map(|node| node.has_joined() && node.addresses != addresses)
        });
        match is_other {
            Some(true) => {}
            // Once the view has them nothing changes them but this task.
            Some(false) => return Ok(()),
            None => {
                if !matches!(stop.run_until_cancelled(versions.changed()).await, Some(Ok(()))) {
                    return Ok(());
                }
                continue;
            }
        }
        // A copy of this data directory, on another machine, must not take the node's address.
        let claim = Claim {
            node: own,
            process: host.process,
            version: host.directory_view.version(),
        };
        let former = identity::former_address(&host.config, &host.directory_view);
        identity::check(&claim, &former, &host.admin_peers.connect()).await?;
        let command = Command::UpdateAddresses(own, addresses.clone());
        match stop.run_until_cancelled(host.directory.propose(&command)).await {
            None => return Ok(()),
            Some(Ok(_)) => {
                info!(
                    client = addresses.client,
                    peer = addresses.peer,
                    "the directory has this node's new addresses"
                );
                return Ok(());
            }
            Some(Err(error)) => warn!(%error, "the directory does not have this node's new addresses yet"),
        }
        if stop.run_until_cancelled(sleep(RETRY_PAUSE)).await.is_none() {
            return Ok(());
        }
    }
}

#[cfg(test)]
mod tests {
    use stead_replication::SharedDirectoryView;
    use stead_state::directory::{DirectoryChange, VoterChange};

    use super::*;

    fn ids(numbers: &[u64]) -> Vec<NodeId> {
        numbers.iter().copied().map(NodeId::new).collect()
    }

    fn group(number: u32, voters: &[u64], next: Option<&[u64]>) -> Group {
        Group {
            number: GroupId::new(number),
            region: None,
            voters: ids(voters),
            incarnation: Incarnation::FIRST,
            change: next.map(|next| VoterChange {
                voters: ids(next),
                operation: 1,
                withdrawn: false,
            }),
        }
    }

    fn hosted(groups: &[u32], is_wide: bool) -> HostedSet {
        HostedSet {
            groups: groups
                .iter()
                .map(|group| (GroupId::new(*group), Incarnation::FIRST))
                .collect(),
            is_wide,
            rtt_ms_max: 100,
        }
    }

    #[test]
    fn nodes_of_added_group_start_again_in_turns_and_others_at_once() {
        let directory_view = SharedDirectoryView::new(DirectoryView::default());
        let groups = [
            group(0, &[1, 2, 3], None),
            group(1, &[1, 2, 3], None),
            group(2, &[1, 2, 3], Some(&[1, 2, 3])),
            group(3, &[1, 2, 4], Some(&[1, 2, 3])),
        ];
        let version = DirectoryVersion {
            incarnation: Incarnation::FIRST,
            index: 1,
        };
        directory_view.apply(false, groups.map(DirectoryChange::Group).into(), version);
        let before = |from: &[u32], to: &[u32], own| {
            let (from, to) = (hosted(from, false), hosted(to, false));
            directory_view.read(|view| nodes_before(view, &from, &to, NodeId::new(own)))
        };
        assert_eq!([1, 2, 3].map(|own| before(&[0, 1], &[0, 1, 2], own)), [0, 1, 2]);
        assert_eq!(before(&[], &[2], 3), 0, "it has nothing open that others have");
        assert_eq!(before(&[0, 1], &[0, 1, 3], 3), 0, "one node takes the place of another");
        assert_eq!([1, 2, 3].map(|own| before(&[0, 1], &[1], own)), [0, 1, 2], "some leave");
        assert_eq!(before(&[1], &[], 3), 0, "nothing is left");
        let wide = [1, 2, 3].map(|own| {
            let (from, to) = (hosted(&[0, 1], false), hosted(&[0, 1], true));
            directory_view.read(|view| nodes_before(view, &from, &to, NodeId::new(own)))
        });
        assert_eq!(wide, [0, 1, 2], "the directory's timing");
    }

    #[test]
    fn node_that_a_newer_view_lacks_was_removed() {
        let version = |incarnation, index| DirectoryVersion {
            incarnation: Incarnation(incarnation),
            index,
        };
        assert!(is_newer(version(1, 8), Some(version(1, 7))));
        assert!(
            is_newer(version(2, 3), Some(version(1, 7))),
            "a recovery has left it out"
        );
        assert!(!is_newer(version(1, 6), Some(version(1, 7))), "an old view");
        assert!(!is_newer(version(1, 8), None), "it may join later");
    }

    #[test]
    fn first_view_is_no_recovery() {
        let version = |incarnation, index| DirectoryVersion {
            incarnation: Incarnation(incarnation),
            index,
        };
        assert!(!is_recovered_since(DirectoryVersion::ZERO, version(1, 7)));
        assert!(!is_recovered_since(version(2, 7), version(2, 9)));
        assert!(is_recovered_since(version(1, 7), version(2, 8)));
        assert!(is_recovered_since(DirectoryVersion::ZERO, version(2, 8)));
    }
}
