//! Progress of changes of nodes and regions: what the directory knows, and what leaders wait for.

use std::collections::BTreeSet;

use futures::future::join_all;
use stead_api::proto::admin::v1 as admin;
use stead_state::directory::{DirectoryView, Operation, OperationKind, TopologyAction, TopologyChange};
use stead_types::{GroupId, NodeId, RegionName};

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
    let OperationKind::Topology(change) = &of.kind else {
        return Vec::new();
    };
    if of.end.is_some() {
        return Vec::new();
    }
    let mut waits = match &change.action {
        TopologyAction::RemoveRegion { region, lost } => waits_of_removal(host, region, *lost).await,
        TopologyAction::AddNode(_)
        | TopologyAction::ReplaceNode { .. }
        | TopologyAction::RemoveNode(_)
        | TopologyAction::AddRegion { .. }
        | TopologyAction::RestoreDirectory
        | TopologyAction::AddGroup { .. } => Vec::new(),
    };
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
    waits.extend(answers.await.into_iter().flatten());
    waits
}

/// Returns what the removal of a region waits for: copies that it has, and nodes that are not lost.
async fn waits_of_removal(host: &Host, region: &RegionName, lost: bool) -> Vec<String> {
    let (copies, voters) = host.directory_view.read(|view| {
        let groups = || view.groups_of(region);
        let copies: u64 = groups().map(|group| view.load(group.number).members).sum();
        let voters = groups().flat_map(|group| group.voters.iter().map(|voter| (group.number, *voter)));
        (copies, voters.collect::<Vec<_>>())
    });
    if copies == 0 {
        return Vec::new();
    }
    let asked = voters
        .iter()
        .map(async |(group, voter)| status_at(host, group.get(), voter.get()).await.map(|_| *voter));
    let answering: BTreeSet<NodeId> = join_all(asked).await.into_iter().flatten().collect();
    let what = match (lost, answering.first()) {
        (true, Some(node)) => {
            format!("{node} of region {region} answers: cancel this, and remove the region without --lost")
        }
        (false, None) => format!(
            "no node of region {region} answers, which has {copies} copies of tenants to erase: start them, or cancel this, \
             and remove the region with --lost"
        ),
        (true, None) | (false, Some(_)) => format!("{copies} copies of tenants are left in region {region}"),
    };
    vec![what]
}
