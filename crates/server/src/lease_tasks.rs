//! The tasks and calls by which a node's leases reach the directory and its groups.

use std::sync::Arc;

use stead_replication::{LeaseLeft, SharedDirectoryView};
use stead_types::NodeId;

use crate::{
    directory::DirectoryClient,
    host::Host,
    lease::{LeaseRenewal, NodeLeases, Renew},
    supervisor::Supervisor,
};

/// Spawns the task that renews the node's leases.
pub(crate) fn spawn_renewal(host: &Arc<Host>, supervisor: &mut Supervisor) {
    let seen_by = host.clone();
    let renewal = LeaseRenewal {
        leases: host.leases.clone(),
        directory_view: host.directory_view.clone(),
        groups: host.groups.keys().copied().collect(),
        renew: renew(&host.directory, host.config.node.id),
        see_epoch: Arc::new(move |tenant, epoch| seen_by.see_epoch(tenant, epoch)),
    };
    supervisor.spawn("leases", |stop| renewal.run(stop));
}

/// Returns how long a lease of a group lasts that counts by the view.
pub(crate) fn lease_left(leases: &NodeLeases, directory_view: &SharedDirectoryView) -> LeaseLeft {
    let (leases, directory_view) = (leases.clone(), directory_view.clone());
    Arc::new(move |group| {
        let lease = leases.full_lease(directory_view.version(), group)?;
        Some(lease.left)
    })
}

/// Returns the call that renews a node's leases.
fn renew(directory: &Arc<DirectoryClient>, node: NodeId) -> Renew {
    let directory = directory.clone();
    Arc::new(move |renewal| {
        let directory = directory.clone();
        Box::pin(async move { directory.renew_lease(node, &renewal).await })
    })
}
