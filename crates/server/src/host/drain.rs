//! Drain of a node that stops: it takes no more work, and leads nothing any more.

use std::time::Duration;

use stead_raft::Group;
use tracing::{info, warn};

use super::context::Host;

/// Longest time for transferring leadership when the node stops.
const LEADER_TRANSFER_MAX: Duration = Duration::from_secs(2);

/// Stops taking work and transfers leadership, so that a planned stop causes no failures.
pub(crate) async fn drain(host: &Host, raft: &stead_raft::Node) {
    host.readiness.start_draining();
    let me = host.config.node.id;
    let transfer = async |group: Group| {
        let numbers = group.metrics();
        let best = numbers
            .replicated
            .iter()
            .filter(|(node, _)| *node != me && numbers.voters.contains(node));
        if let Some((to, _)) = best.max_by_key(|(_, index)| *index).filter(|_| group.is_leader()) {
            match group.transfer_leader(*to).await {
                Ok(()) => info!(group = %group.id(), %to, "leadership transferred"),
                Err(error) => warn!(group = %group.id(), %error, "leadership transfer failed"),
            }
        }
    };
    let all = futures::future::join_all(raft.groups().into_iter().map(transfer));
    if tokio::time::timeout(LEADER_TRANSFER_MAX, all).await.is_err() {
        warn!("leadership transfer timed out");
    }
}
