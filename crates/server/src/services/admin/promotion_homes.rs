//! Homes of the tenants of a promotion: which of them answer, and what is said to an operator whose homes do.

use std::collections::{BTreeMap, BTreeSet};

use stead_api::proto::admin::v1::{self as admin, promotion_plan};
use stead_state::directory::{DirectoryView, PromotionRequest, PromotionSelection, Tenant};
use stead_types::{Error, ErrorKind, GroupId, NodeId, TenantNumber};

use super::{group, place, promotion_message, tenant_move};
use crate::host::Host;

/// Home of selected tenants, as it answers this node.
pub(super) struct HomeStatus {
    pub(super) group: GroupId,
    tenants: u64,
    voters: usize,
    answering: usize,
    /// A leader with a majority answers, and serves.
    pub(super) healthy: bool,
}

/// Returns the homes of selected tenants that answer and serve.
pub(super) async fn healthy_homes(host: &Host, view: &DirectoryView, request: &PromotionRequest) -> Vec<GroupId> {
    let homes = home_statuses(host, view, request).await;
    let healthy = homes.iter().filter(|home| home.healthy);
    healthy.map(|home| home.group).collect()
}

/// Returns the groups that are to lose their tenants, with the number of those that are not being promoted: a home below
/// whose fence a promotion is in flight serves none of these, however healthy it is.
fn lost_homes(view: &DirectoryView, selection: &PromotionSelection) -> BTreeMap<GroupId, u64> {
    let mut homes = BTreeMap::new();
    let mut add = |tenant: &Tenant| {
        if tenant.promoting.is_none() {
            *homes.entry(tenant.home).or_default() += 1;
        }
    };
    match selection {
        PromotionSelection::Tenants(names) => {
            names
                .iter()
                .filter_map(|name| view.tenant_named(name))
                .for_each(|tenant| add(tenant));
        }
        PromotionSelection::Region(region) => {
            let groups: BTreeSet<GroupId> = view.groups_of(region).map(|group| group.number).collect();
            let all = view.tenants_from(TenantNumber::new(0));
            all.filter(|tenant| groups.contains(&tenant.home))
                .for_each(|tenant| add(tenant));
        }
        PromotionSelection::Group(group) => {
            let all = view.tenants_from(TenantNumber::new(0));
            all.filter(|tenant| tenant.home == *group)
                .for_each(|tenant| add(tenant));
        }
    }
    homes
}

/// Asks the homes of a promotion.
pub(super) async fn home_statuses(host: &Host, view: &DirectoryView, request: &PromotionRequest) -> Vec<HomeStatus> {
    let homes = lost_homes(view, &request.selection);
    let ask = homes.into_iter().map(async |(group, tenants)| {
        let voters = view.group(group).map(|known| known.voters.to_vec()).unwrap_or_default();
        let statuses = voters
            .iter()
            .map(async |voter| (*voter, voter_status(host, group, *voter).await));
        let statuses: Vec<_> = futures::future::join_all(statuses).await;
        let serves = |voter: NodeId, status: &admin::GroupStatus| {
            status.leader == Some(voter.get()) && status.no_lease_since.is_none()
        };
        HomeStatus {
            group,
            tenants,
            voters: voters.len(),
            answering: statuses.iter().filter(|(_, status)| status.is_some()).count(),
            healthy: statuses
                .iter()
                .any(|(voter, status)| status.as_ref().is_some_and(|status| serves(*voter, status))),
        }
    });
    futures::future::join_all(ask).await
}

async fn voter_status(host: &Host, group: GroupId, voter: NodeId) -> Option<admin::GroupStatus> {
    if voter == host.config.node.id {
        return crate::host::group_status(host, group);
    }
    group::status_at(host, group.get(), voter.get()).await
}

/// Returns the error of a promotion by force of homes that answer: what it would cost, and what to do instead.
pub(super) fn refusal(view: &DirectoryView, request: &PromotionRequest, healthy: &[GroupId]) -> Error {
    let groups: Vec<String> = healthy
        .iter()
        .map(|group| promotion_message::named(view, *group))
        .collect();
    let message = format!(
        "{} {} and can hand over: {}. A promotion stops the tenants until their new homes have taken over, and cuts what \
         those have not received should the old homes go silent meanwhile. --graceful-for 10s tries planned moves first; \
         --even-if-healthy promotes by force all the same",
        groups.join(", "),
        if groups.len() == 1 { "answers" } else { "answer" },
        planned_move(request)
    );
    Error::new(ErrorKind::Conflict, message)
}

/// Returns the command that loses nothing, for people.
pub(super) fn planned_move(request: &PromotionRequest) -> String {
    match &request.selection {
        PromotionSelection::Region(region) => format!("a planned move loses nothing, `stead region drain {region}`"),
        PromotionSelection::Group(_) => "a planned move loses nothing".to_owned(),
        PromotionSelection::Tenants(names) => {
            let name = names.first().map(ToString::to_string).unwrap_or_default();
            format!("a planned move loses nothing, `stead tenant move {name} --to REGION`")
        }
    }
}

/// Converts a home.
pub(super) fn home_message(view: &DirectoryView, home: &HomeStatus) -> promotion_plan::Home {
    promotion_plan::Home {
        place: Some(place(view, home.group)),
        tenants: home.tenants,
        voters: u32::try_from(home.voters).unwrap_or(u32::MAX),
        voters_answering: u32::try_from(home.answering).unwrap_or(u32::MAX),
        healthy: home.healthy,
    }
}

/// Returns the nodes that do not answer this one, of groups of which no majority answers.
pub(super) async fn unreachable(host: &Host, view: &DirectoryView) -> Vec<NodeId> {
    let groups = view.groups().filter(|group| group.region.is_some());
    let groups: Vec<(GroupId, &[NodeId])> = groups.map(|group| (group.number, &group.voters[..])).collect();
    let ask = groups
        .iter()
        .map(|(group, voters)| tenant_move::silent_voters(host, *group, voters));
    let silent: BTreeSet<NodeId> = futures::future::join_all(ask).await.into_iter().flatten().collect();
    silent.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request() -> PromotionRequest {
        PromotionRequest {
            selection: PromotionSelection::Region("eu-west".parse().unwrap()),
            to: None,
            allow_loss: false,
            replace: false,
            durability: None,
            graceful_ms: 0,
            is_down: false,
            unreachable: Vec::new(),
        }
    }

    #[test]
    fn refusal_names_planned_move_and_consequence() {
        let view = DirectoryView::default();
        let refused = refusal(&view, &request(), &[GroupId::new(2)]);
        assert_eq!(refused.kind, ErrorKind::Conflict);
        for words in [
            "stead region drain eu-west",
            "cuts what those have not received",
            "--graceful-for 10s",
            "--even-if-healthy",
        ] {
            assert!(refused.message.contains(words), "{}", refused.message);
        }
    }
}
