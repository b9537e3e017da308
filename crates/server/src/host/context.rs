//! Shared state of a node: its directory view, its groups, the client of the directory, health and metrics.

use std::{sync::Arc, time::Duration};

use stead_api::peer_codec::PeerAlarms;
use stead_raft::Group;
use stead_replication::{EpochsSeen, SharedDirectoryView, TrafficCounters};
use stead_state::directory::{DirectoryView, Tenant};
use stead_store::{health::Health, latency::LatencySnapshot};
use stead_types::{Epoch, Error, ErrorKind, GroupId, NodeId, TenantName, TenantNumber};

use super::{
    hosted_group::{HostedGroups, raft_groups},
    readiness::Readiness,
};
use crate::{
    admin_peers::AdminPeers, answers::AnswerBudget, auth::Authenticator, config::ValidatedConfig,
    directory::DirectoryClient, disk::DiskRoom, lease::NodeLeases, metrics::Metrics, resources::Resources,
    tls::NodeTls, voter_changes::VoterChangeWaits,
};

/// Longest wait for the directory view when a name is unknown.
const VIEW_WAIT: Duration = Duration::from_secs(3);

/// Shared state of a node.
pub(crate) struct Host {
    /// The node's configuration.
    pub(crate) config: ValidatedConfig,
    /// Authenticator of callers.
    pub(crate) auth: Arc<Authenticator>,
    /// Its directory view.
    pub(crate) directory_view: SharedDirectoryView,
    /// Client of the directory's leader.
    pub(crate) directory: Arc<DirectoryClient>,
    /// The data groups in which it votes.
    pub(crate) groups: Arc<HostedGroups>,
    /// Its leases.
    pub(crate) leases: NodeLeases,
    /// Epochs that other nodes have shown.
    pub(crate) epochs_seen: EpochsSeen,
    /// Channels to other nodes' client listeners.
    pub(crate) admin_peers: AdminPeers,
    /// Readiness checks of this node and of its region.
    pub(crate) readiness: Readiness,
    /// Metrics.
    pub(crate) metrics: Arc<Metrics>,
    /// Certificates, and the ways into the listeners.
    pub(crate) tls: NodeTls,
    /// Traffic sent from region to region.
    pub(crate) traffic: Arc<TrafficCounters>,
    /// Messages of other nodes that could not be read.
    pub(crate) peer_alarms: PeerAlarms,
    /// Answers that wait for their readers.
    pub(crate) answers: Arc<AnswerBudget>,
    /// Wall clock, in milliseconds since 1970.
    pub(crate) wall: Arc<dyn Fn() -> u64 + Send + Sync>,
    /// Start time in milliseconds since 1970.
    pub(crate) started_ms: u64,
    /// Failure of the node, if any, and its retries.
    pub(crate) health: Health,
    /// Room on the disks of this node and of other voters.
    pub(crate) disk_room: Arc<DiskRoom>,
    /// Disk and memory of the node.
    pub(crate) resources: Resources,
    /// Waits of changes of voters, of the groups that this node leads.
    pub(crate) voter_changes: VoterChangeWaits,
    /// Number of this process, which another one with the same identity does not have.
    pub(crate) process: u64,
    /// Returns the bytes of disk that the rows use.
    pub(crate) disk_len: Box<dyn Fn() -> u64 + Send + Sync>,
    /// Returns the latencies of the Raft log's syncs.
    pub(crate) log_sync_latency: Box<dyn Fn() -> LatencySnapshot + Send + Sync>,
}

impl Host {
    /// Returns a tenant by its name. A name that the view does not have is reported as unknown only once the view has
    /// reached a version of the directory that was read after this call.
    pub(crate) async fn resolve(&self, name: &TenantName) -> Result<Arc<Tenant>, Error> {
        if let Some(tenant) = self.tenant_in_view(name) {
            return Ok(tenant);
        }
        let version = self.directory.version().await?;
        if !self.directory_view.wait_for(version, VIEW_WAIT).await {
            let message = format!("this node's copy of the directory is behind {version}; try another node");
            return Err(Error::new(ErrorKind::Unavailable, message));
        }
        let unknown = || {
            Error::new(
                ErrorKind::TenantNotFound,
                format!("there is no tenant {name}: create it first"),
            )
        };
        self.tenant_in_view(name).ok_or_else(unknown)
    }

    /// Returns a tenant from the directory view.
    pub(crate) fn tenant_in_view(&self, name: &TenantName) -> Option<Arc<Tenant>> {
        self.directory_view.read(|view| view.tenant_named(name).cloned())
    }

    /// Fails while this node has no view of the directory: "there is none" would be false.
    pub(crate) fn check_view_loaded(&self) -> Result<(), Error> {
        if self.directory_view.read(|view| view.nodes().next().is_some()) {
            return Ok(());
        }
        let message = "this node has not read the directory yet: ask another node, or try again";
        Err(Error::new(ErrorKind::Unavailable, message))
    }

    /// Takes note of an epoch on account of which another node has sent a call.
    pub(crate) fn see_epoch(&self, tenant: TenantNumber, epoch: Epoch) {
        for hosted in self.groups.values() {
            // If the rows are closed the node stops.
            let _ = hosted.machine.read(|view| {
                if let Some(record) = view.record(tenant) {
                    self.epochs_seen.see(tenant, epoch, record);
                }
            });
        }
    }

    /// Returns the client addresses of a group's voters.
    pub(crate) fn client_addresses(&self, group: GroupId) -> Vec<String> {
        self.directory_view.read(|view| {
            let voters = view.group(group).map(|group| group.voters.clone()).unwrap_or_default();
            voters
                .into_iter()
                .filter_map(|voter| Some(view.node(voter)?.addresses.client.clone()))
                .collect()
        })
    }

    /// Returns the address at which another node answers what only it can tell operators: its peer listener, which takes a
    /// node's word for who asks; while nodes of earlier versions may be there, its client listener.
    pub(crate) fn admin_address(&self, node: NodeId) -> Option<String> {
        self.directory_view.read(|view| admin_address(view, node))
    }

    /// Returns these addresses of a group's voters.
    pub(crate) fn admin_addresses(&self, group: GroupId) -> Vec<String> {
        self.directory_view.read(|view| {
            let voters = view.group(group).map(|group| group.voters.clone()).unwrap_or_default();
            voters
                .into_iter()
                .filter_map(|voter| admin_address(view, voter))
                .collect()
        })
    }

    /// Returns a group of this node, the directory included.
    pub(crate) fn raft_group(&self, group: GroupId) -> Option<Group> {
        if group == GroupId::DIRECTORY {
            return self
                .directory
                .local_voter()
                .map(|local_voter| local_voter.group.untyped());
        }
        self.groups.get(&group).map(|hosted| hosted.raft.untyped())
    }

    /// Returns the groups of this node, the directory included.
    pub(crate) fn raft_groups(&self) -> impl Iterator<Item = Group> + use<'_> {
        raft_groups(&self.directory, &self.groups)
    }
}

fn admin_address(view: &DirectoryView, node: NodeId) -> Option<String> {
    let addresses = &view.node(node)?.addresses;
    Some(match view.settings().has_roles() {
        true => addresses.peer.clone(),
        false => addresses.client.clone(),
    })
}
