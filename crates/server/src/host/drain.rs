//! Drain of a node that stops: it takes no more work, and leads nothing any more.

use std::time::Duration;

use stead_raft::Group;
use tracing::{info, warn};

use super::context::Host;
use crate::successor;

/// Longest time for transferring leadership when the node stops.
const LEADER_TRANSFER_MAX: Duration = Duration::from_secs(2);

/// Stops taking work and transfers leadership, so that a planned stop causes no failures.
pub(crate) async fn drain(host: &Host, raft: &stead_raft::Node) {
    host.readiness.start_draining();
    let transfer = async |group: Group| {
        if !group.is_leader() {
            return;
        }
        let to = match successor::choose(host, &group, None).await {
            Ok(to) => to,
            Err(error) => {
                return warn!(group = %group.id(), %error, "leadership not transferred: others elect a leader");
            }
        };
        match group.transfer_leader(to).await {
            Ok(()) => info!(group = %group.id(), %to, "leadership transferred"),
            Err(error) => warn!(group = %group.id(), %error, "leadership transfer failed"),
        }
    };
    let all = futures::future::join_all(raft.groups().into_iter().map(transfer));
    if tokio::time::timeout(LEADER_TRANSFER_MAX, all).await.is_err() {
        warn!("leadership transfer timed out");
    }
}
