//! Routing of requests: to this node, to another node of this region, or to another region.
//!
//! The router asks for a decision, carries it out, and asks again when a view, a leader or a record has changed.
//!
//! The home is taken from the directory view, and from this node's own records where these know of a later epoch: a
//! group that has relinquished a tenant names its heir, and one that has accepted it owns it, before the directory
//! records either.
//!
//! # Invariants
//!
//! 1. A request is handed on at most [`HOPS_MAX`] times: one hop to a group and one inside it, twice if the tenant
//!    moves meanwhile.
//! 2. A request that was forwarded on account of an epoch is never sent back by a group that has not reached that
//!    epoch: it waits at the leader of the group that it was forwarded to.
//! 3. A request that must be served by the home is served by the node that leads the home group, or refused. While a
//!    promotion has not chosen a home, nobody may serve it.

use stead_types::{Epoch, Error, ErrorKind, GroupId, NodeId, RegionName, limits::HOPS_MAX};

use crate::{
    directory::{DirectoryView, PromotionPhase, Tenant, TenantState},
    shard::record::{Role, TenantRecord},
};

#[cfg(test)]
mod routing_test;

/// Role of the replica that a request needs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ServingRole {
    /// The home's leader: writes and linearizable reads, and reads that no replica here could serve.
    Home,
    /// Any replica, the nearest first; its freshness gate may still forward the request to the home.
    Replica,
}

/// Origin of a request that another node forwarded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ForwardInfo {
    /// Number of hops so far.
    pub hops: u32,
    /// Epoch on account of which it was forwarded.
    pub epoch: Epoch,
    /// Group that should serve it, in the sender's view.
    pub group: GroupId,
}

/// Routing inputs of a request.
#[derive(Clone, Copy, Debug)]
pub struct RouteRequest<'a> {
    /// Its tenant, in this node's view.
    pub tenant: &'a Tenant,
    /// Role of the replica that it needs.
    pub serving_role: ServingRole,
    /// Forwarding data, if another node sent it.
    pub forwarded: Option<ForwardInfo>,
    /// Whether the caller wants the route in the error instead of forwarding to another region.
    pub direct: bool,
}

/// Status of this node's voter in a group.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum VoterStatus {
    /// This node has no voter in the group.
    Absent,
    /// This node has a voter, and knows of no leader.
    LeaderUnknown,
    /// This node has a voter, and knows that this one leads: perhaps this node itself.
    LedBy(NodeId),
}

/// Home of a tenant, in the epoch in which it may write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CurrentHome {
    /// The group.
    pub group: GroupId,
    /// The epoch.
    pub epoch: Epoch,
}

/// Record of a tenant in a group of this node, according to the group's own log.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LocalRecord {
    /// Epoch owned or followed.
    pub epoch: Epoch,
    /// The home that the record names: this group as the owner, the one that it follows, or the one that it has
    /// relinquished the tenant to.
    pub home: Option<CurrentHome>,
}

impl LocalRecord {
    /// Returns what a group's record says.
    pub fn of(group: GroupId, record: &TenantRecord) -> Self {
        let epoch = record.epoch;
        let home = match record.role {
            Role::Owner => Some(CurrentHome { group, epoch }),
            Role::Relinquished { to, epoch, .. } => Some(CurrentHome { group: to, epoch }),
            Role::Follower { home } | Role::Heir { home, .. } => Some(CurrentHome { group: home, epoch }),
            Role::Frozen { .. } | Role::Erased => None,
        };
        Self { epoch, home }
    }
}

/// The node that decides.
pub struct LocalNode<'a> {
    /// Its number.
    pub node: NodeId,
    /// Its region.
    pub region: &'a RegionName,
    /// Status of its voter in a group.
    pub voter: &'a dyn Fn(GroupId) -> VoterStatus,
    /// Records of the tenant in this node's groups.
    pub records: &'a [(GroupId, LocalRecord)],
}

/// Routing decision for a request.
#[derive(Clone, Debug, PartialEq)]
pub enum RouteDecision {
    /// Serve it from this group.
    Local {
        /// The group.
        group: GroupId,
    },
    /// Forward it to a node of this region.
    SameRegion {
        /// The group that should serve it.
        group: GroupId,
        /// Epoch on account of which it is forwarded.
        epoch: Epoch,
        /// Nodes that can serve it, the best first.
        nodes: Vec<NodeId>,
    },
    /// Forward it to the home in another region.
    OtherRegion {
        /// The region.
        region: RegionName,
        /// The group that should serve it.
        group: GroupId,
        /// Epoch on account of which it is forwarded.
        epoch: Epoch,
        /// Its voters.
        nodes: Vec<NodeId>,
    },
    /// Keep it until the view or the record has reached this epoch, bounded in number, bytes and time.
    Wait {
        /// Epoch on account of which it was forwarded.
        epoch: Epoch,
    },
    /// Answer with this error; nothing happened.
    Refuse(Error),
}

/// Decides the route of a request.
pub fn route(view: &DirectoryView, here: &LocalNode<'_>, request: RouteRequest<'_>) -> RouteDecision {
    let tenant = request.tenant;
    if tenant.state != TenantState::Active {
        let message = format!(
            "tenant {0} is disabled: an operator can enable it again, `stead tenant update {0} --enable`",
            tenant.name
        );
        return RouteDecision::Refuse(Error::new(ErrorKind::Conflict, message));
    }
    let current = current_home(here, tenant);
    if let Some(forwarded) = request.forwarded.filter(|forwarded| forwarded.epoch > current.epoch) {
        return ahead_of_this_node(here, &request, forwarded);
    }
    match replica(view, here, &request, current) {
        Some(RouteDecision::Local { group }) => RouteDecision::Local { group },
        Some(inside) => within_hops(inside, &request),
        None => home(view, here, &request, current),
    }
}

/// Returns the home of the highest epoch that the view or a record of this node knows.
pub fn current_home(here: &LocalNode<'_>, tenant: &Tenant) -> CurrentHome {
    let recorded = CurrentHome {
        group: tenant.home,
        epoch: tenant.epoch,
    };
    let known = here.records.iter().filter_map(|(_, record)| record.home);
    known.fold(recorded, |best, home| if home.epoch > best.epoch { home } else { best })
}

/// Routes a request that was forwarded on account of an epoch that neither the view nor a record knows yet.
fn ahead_of_this_node(here: &LocalNode<'_>, request: &RouteRequest<'_>, forwarded: ForwardInfo) -> RouteDecision {
    let ForwardInfo { epoch, group, .. } = forwarded;
    let is_reached = here
        .records
        .iter()
        .any(|(of, record)| *of == group && record.epoch >= epoch);
    match (here.voter)(group) {
        // A follower of that epoch serves its copy whatever the view says.
        _ if is_reached && request.serving_role == ServingRole::Replica => RouteDecision::Local { group },
        VoterStatus::LedBy(leader) if leader != here.node => within_hops(
            RouteDecision::SameRegion {
                group,
                epoch,
                nodes: vec![leader],
            },
            request,
        ),
        VoterStatus::LedBy(_) | VoterStatus::LeaderUnknown | VoterStatus::Absent => RouteDecision::Wait { epoch },
    }
}

/// Returns the replica of this region that may serve the request, if one may.
fn replica(
    view: &DirectoryView,
    here: &LocalNode<'_>,
    request: &RouteRequest<'_>,
    current: CurrentHome,
) -> Option<RouteDecision> {
    if request.serving_role != ServingRole::Replica {
        return None;
    }
    let tenant = request.tenant;
    let members = || {
        tenant
            .members
            .iter()
            .filter(|member| member.state.stays())
            .map(|member| member.group)
    };
    if let Some(forwarded) = request.forwarded {
        // The sender has chosen the group; another choice here could make a forwarding loop.
        let served = tenant.has(forwarded.group) && (here.voter)(forwarded.group) != VoterStatus::Absent;
        return served.then_some(RouteDecision::Local { group: forwarded.group });
    }
    let mine = |group: &GroupId| (here.voter)(*group) != VoterStatus::Absent;
    let best = Some(current.group)
        .filter(|home| mine(home))
        .or_else(|| members().find(mine));
    if let Some(group) = best {
        return Some(RouteDecision::Local { group });
    }
    let in_region = |group: &GroupId| view.region_of(*group).is_some_and(|region| region.name == *here.region);
    members().find(in_region).map(|group| RouteDecision::SameRegion {
        group,
        epoch: current.epoch,
        nodes: voters(view, group),
    })
}

fn home(view: &DirectoryView, here: &LocalNode<'_>, request: &RouteRequest<'_>, current: CurrentHome) -> RouteDecision {
    if is_between_homes(request.tenant, current) {
        return RouteDecision::Refuse(promoting(request.tenant));
    }
    let CurrentHome { group, epoch } = current;
    match (here.voter)(group) {
        VoterStatus::LedBy(leader) if leader == here.node => RouteDecision::Local { group },
        VoterStatus::LedBy(leader) => within_hops(
            RouteDecision::SameRegion {
                group,
                epoch,
                nodes: vec![leader],
            },
            request,
        ),
        VoterStatus::LeaderUnknown => {
            let message = format!(
                "the home of tenant {} is electing a leader: try again",
                request.tenant.name
            );
            RouteDecision::Refuse(Error::new(ErrorKind::NoLeader, message))
        }
        VoterStatus::Absent => elsewhere(view, here, request, current),
    }
}

fn elsewhere(
    view: &DirectoryView,
    here: &LocalNode<'_>,
    request: &RouteRequest<'_>,
    current: CurrentHome,
) -> RouteDecision {
    let CurrentHome { group, epoch } = current;
    let Some(region) = view.region_of(group) else {
        let message = format!(
            "the home of tenant {} is not known here yet: try again",
            request.tenant.name
        );
        return RouteDecision::Refuse(Error::new(ErrorKind::Unavailable, message));
    };
    let nodes = voters(view, group);
    if region.name == *here.region {
        return within_hops(RouteDecision::SameRegion { group, epoch, nodes }, request);
    }
    if request.direct {
        return RouteDecision::Refuse(not_home(view, request.tenant, current, &region.name));
    }
    let region = region.name.clone();
    within_hops(
        RouteDecision::OtherRegion {
            region,
            group,
            epoch,
            nodes,
        },
        request,
    )
}

/// Tells whether a promotion has fenced the tenant and has not chosen its home yet, as far as this node knows.
pub fn is_between_homes(tenant: &Tenant, current: CurrentHome) -> bool {
    tenant.promoting.as_deref().is_some_and(|promotion| {
        !matches!(promotion.phase, PromotionPhase::Activating { .. }) && current.epoch < promotion.epoch
    })
}

/// Returns the error of a request to a tenant that is being promoted.
fn promoting(tenant: &Tenant) -> Error {
    let message = format!(
        "tenant {} is being promoted, its home is lost: try again; reads of other consistency levels are served where \
         there is a copy",
        tenant.name
    );
    Error::new(ErrorKind::TenantMoving, message)
}

/// Invariant 1.
fn within_hops(route: RouteDecision, request: &RouteRequest<'_>) -> RouteDecision {
    let hops = request.forwarded.map_or(0, |forwarded| forwarded.hops);
    if hops < HOPS_MAX {
        return route;
    }
    let message = format!(
        "the request for tenant {} was forwarded {hops} times, at most {HOPS_MAX}: try again",
        request.tenant.name
    );
    RouteDecision::Refuse(Error::new(ErrorKind::TenantMoving, message))
}

fn voters(view: &DirectoryView, group: GroupId) -> Vec<NodeId> {
    view.group(group).map(|group| group.voters.clone()).unwrap_or_default()
}

fn not_home(view: &DirectoryView, tenant: &Tenant, current: CurrentHome, region: &RegionName) -> Error {
    let nodes = voters(view, current.group);
    let addresses = nodes
        .iter()
        .filter_map(|node| view.node(*node))
        .map(|node| node.addresses.client.clone());
    let kind = ErrorKind::NotHome {
        region: region.clone(),
        epoch: current.epoch,
        endpoints: addresses.filter(|address| !address.is_empty()).collect(),
    };
    Error::new(
        kind,
        format!("tenant {} is at home in {region}: ask there", tenant.name),
    )
}
