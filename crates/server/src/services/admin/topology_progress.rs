//! Progress of changes of nodes and regions: what the directory knows, and what leaders wait for.

use futures::future::join_all;
use stead_api::proto::admin::v1 as admin;
use stead_state::directory::{DirectoryView, Operation, OperationKind, TopologyChange};
use stead_types::{GroupId, NodeId};

use super::group::status_at;
use crate::host::{self, Host};

/// Converts the progress of a change into a message.
pub(super) fn progress(view: &DirectoryView, change: &TopologyChange) -> admin::TopologyProgress {
    let announced = change.action.announced().into_iter();
    let awaited = announced.filter_map(|node| view.node(node).filter(|node| !node.has_joined()));
    admin::TopologyProgress {
        summary: change.summary.clone(),
        awaited: awaited.map(|node| node.name.clone()).collect(),
        voter_changes: change.begun,
        voter_changes_done: change.changed,
        waits: Vec::new(),
    }
}

/// Asks the leaders of the groups that an operation changes what they wait for.
pub(super) async fn waits(host: &Host, of: &Operation) -> Vec<String> {
    if !matches!(of.kind, OperationKind::Topology(_)) || of.end.is_some() {
        return Vec::new();
    }
    let groups: Vec<(GroupId, Vec<NodeId>)> = host.directory_view.read(|view| {
        let is_changing = |group: &&stead_state::directory::Group| {
            group.change.as_ref().is_some_and(|change| change.operation == of.id)
        };
        let groups = view.groups().filter(is_changing);
        groups.map(|group| (group.number, group.voters.clone())).collect()
    });
    let asked = groups
        .iter()
        .flat_map(|(group, voters)| voters.iter().map(|voter| (*group, *voter)));
    let answers = join_all(asked.map(async |(group, voter)| {
        let status = if voter == host.config.node.id {
            host::group_status(host, group)
        } else {
            status_at(host, group.get(), voter.get()).await
        };
        let waits = status?.voter_change_waits;
        (!waits.is_empty()).then(|| match group {
            GroupId::DIRECTORY => format!("directory: {waits}"),
            group => format!("group {}: {waits}", group.get()),
        })
    }));
    answers.await.into_iter().flatten().collect()
}
