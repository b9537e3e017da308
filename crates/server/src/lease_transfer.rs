//! Task that passes the leadership of groups on to voters with leases, where this node leads without one.
//!
//! The other voters are asked for their status of the group, as operators ask for it; a voter that does not answer has no
//! lease.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use futures::future::join_all;
use stead_state::lease::transfer::LeaseTransfer;
use stead_types::{GroupId, NodeId};
use tokio::time::{sleep, timeout};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    host::{Host, HostedGroup},
    services::admin::group::status_at,
    supervisor::{BoxError, Supervisor},
};

/// Interval at which the node looks at the groups that it leads.
const INTERVAL: Duration = Duration::from_millis(250);
/// Longest time for a voter's answer: one in its own region has answered by then, or is dead.
const ANSWER_MAX: Duration = Duration::from_millis(500);

/// Spawns the task.
pub(crate) fn spawn(host: &Arc<Host>, supervisor: &mut Supervisor) {
    let host = host.clone();
    supervisor.spawn("lease transfers", |stop| run(host, stop));
}

async fn run(host: Arc<Host>, stop: CancellationToken) -> Result<(), BoxError> {
    let mut transfers: BTreeMap<GroupId, LeaseTransfer> = BTreeMap::new();
    while stop.run_until_cancelled(sleep(INTERVAL)).await.is_some() {
        for (group, hosted) in host.groups.iter() {
            let transfer = transfers.entry(*group).or_default();
            let left = host.leases.left(host.directory_view.version(), *group);
            if transfer.is_due(host.leases.now(), hosted.raft.is_leader(), left) {
                stop.run_until_cancelled(look(&host, hosted, transfer)).await;
            }
        }
    }
    Ok(())
}

/// Asks the other voters of a group, and passes leadership on to the one whose lease lasts longest.
async fn look(host: &Host, hosted: &HostedGroup, transfer: &mut LeaseTransfer) {
    let group = hosted.raft.id();
    let own = host.config.node.id;
    let others: BTreeSet<NodeId> = hosted.raft.metrics().voters;
    let others = others.into_iter().filter(|voter| *voter != own);
    let answers = join_all(others.map(async |voter| (voter, lease_left_at(host, group, voter).await))).await;
    let Some(to) = transfer.choose(host.leases.now(), answers) else {
        return;
    };
    match hosted.raft.transfer_leader(to).await {
        Ok(()) => info!(%group, %to, "this node has no lease: leadership transferred to a voter with one"),
        Err(error) => warn!(%group, %to, %error, "this node has no lease, and leadership was not transferred"),
    }
}

/// Returns what is left of a voter's lease for a group, as far as it answers in time.
async fn lease_left_at(host: &Host, group: GroupId, voter: NodeId) -> Duration {
    let asked = timeout(ANSWER_MAX, status_at(host, group.get(), voter.get())).await;
    let left = asked.ok().flatten().and_then(|status| status.lease_left);
    left.and_then(|left| Duration::try_from(left).ok()).unwrap_or_default()
}
