//! Finds the leader of a group, which alone can tell what the group's log has.

use stead_types::{Error, ErrorKind, GroupId, NodeId};
use tonic::transport::Channel;

use super::group;
use crate::host::{Host, HostedGroup};

/// Where a group is led.
pub(crate) enum Leader<'a> {
    /// By this node.
    Here(&'a HostedGroup),
    /// By the node at the other end, whose client listener it is.
    At(NodeId, Channel),
}

/// Finds the leader of a group of tenants.
///
/// # Errors
///
/// There is no such group, or no leader of it answers.
pub(crate) async fn find(host: &Host, group: GroupId, may_ask_peers: bool) -> Result<Leader<'_>, Error> {
    let known = host.directory_view.read(|view| {
        let known = view.group(group).filter(|_| group != GroupId::DIRECTORY);
        known.map(|known| group::message(view, known))
    });
    let known = known.ok_or_else(|| no_group(group))?;
    let hosted = host.groups.get(&group);
    if let Some(hosted) = hosted.filter(|hosted| hosted.raft.is_leader() && hosted.raft.is_connected()) {
        return Ok(Leader::Here(hosted));
    }
    let leaderless = || {
        let message = format!("no leader of group {} answers now: try again", group.get());
        Error::new(ErrorKind::NoLeader, message)
    };
    if !may_ask_peers {
        return Err(leaderless());
    }
    let status = group::with_status(host, known, true).await.status;
    let leader = status.and_then(|status| status.leader).map(NodeId::new);
    let found = leader.and_then(|leader| {
        let address = host.admin_address(leader)?;
        Some(Leader::At(leader, host.admin_peers.channel(&address)?))
    });
    found.ok_or_else(leaderless)
}

/// Returns the error of a group that does not exist, or holds no tenants.
pub(crate) fn no_group(group: GroupId) -> Error {
    let message = format!(
        "there is no group {} that holds tenants: see `stead group list`",
        group.get()
    );
    Error::new(ErrorKind::NotFound, message)
}
