//! Routing of requests: to this node, to another node of this region, or to another region.
//!
//! The router asks for a decision, carries it out, and asks again when a view, a leader or a record has changed.
//!
//! # Invariants
//!
//! 1. A request is handed on at most [`HOPS_MAX`] times: one hop to a group and one inside it, twice if the tenant
//!    moves meanwhile.
//! 2. A request that was forwarded on account of an epoch is never sent back by a group that has not reached that
//!    epoch: it waits there.
//! 3. A request that must be served by the home is served by the node that leads the home group, or refused.

use stead_types::{Epoch, Error, ErrorKind, GroupId, NodeId, RegionName, limits::HOPS_MAX};

use crate::directory::{DirectoryView, Tenant, TenantState};

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

/// The node that decides.
pub struct LocalNode<'a> {
    /// Its number.
    pub node: NodeId,
    /// Its region.
    pub region: &'a RegionName,
    /// Status of its voter in a group.
    pub voter: &'a dyn Fn(GroupId) -> VoterStatus,
    /// Epoch owned or followed according to its own record of the tenant in a group, [`Epoch::NONE`] without one.
    pub epoch: &'a dyn Fn(GroupId) -> Epoch,
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
        /// Nodes that can serve it, the best first.
        nodes: Vec<NodeId>,
    },
    /// Forward it to the home in another region.
    OtherRegion {
        /// The region.
        region: RegionName,
        /// The group that should serve it.
        group: GroupId,
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
    if let Some(forwarded) = request.forwarded {
        let reached = tenant.epoch.max((here.epoch)(forwarded.group));
        if forwarded.epoch > reached {
            return RouteDecision::Wait { epoch: forwarded.epoch };
        }
    }
    match replica(view, here, &request) {
        Some(RouteDecision::Local { group }) => RouteDecision::Local { group },
        Some(inside) => within_hops(inside, &request),
        None => home(view, here, &request),
    }
}

/// Returns the replica of this region that may serve the request, if one may.
fn replica(view: &DirectoryView, here: &LocalNode<'_>, request: &RouteRequest<'_>) -> Option<RouteDecision> {
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
    let best = Some(tenant.home)
        .filter(|home| mine(home))
        .or_else(|| members().find(mine));
    if let Some(group) = best {
        return Some(RouteDecision::Local { group });
    }
    let in_region = |group: &GroupId| view.region_of(*group).is_some_and(|region| region.name == *here.region);
    members().find(in_region).map(|group| RouteDecision::SameRegion {
        group,
        nodes: voters(view, group),
    })
}

fn home(view: &DirectoryView, here: &LocalNode<'_>, request: &RouteRequest<'_>) -> RouteDecision {
    let group = request.tenant.home;
    match (here.voter)(group) {
        VoterStatus::LedBy(leader) if leader == here.node => RouteDecision::Local { group },
        VoterStatus::LedBy(leader) => within_hops(
            RouteDecision::SameRegion {
                group,
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
        VoterStatus::Absent => elsewhere(view, here, request),
    }
}

fn elsewhere(view: &DirectoryView, here: &LocalNode<'_>, request: &RouteRequest<'_>) -> RouteDecision {
    let group = request.tenant.home;
    let Some(region) = view.region_of(group) else {
        let message = format!(
            "the home of tenant {} is not known here yet: try again",
            request.tenant.name
        );
        return RouteDecision::Refuse(Error::new(ErrorKind::Unavailable, message));
    };
    let nodes = voters(view, group);
    if region.name == *here.region {
        return within_hops(RouteDecision::SameRegion { group, nodes }, request);
    }
    if request.direct {
        return RouteDecision::Refuse(not_home(view, request.tenant, &region.name));
    }
    let region = region.name.clone();
    within_hops(RouteDecision::OtherRegion { region, group, nodes }, request)
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

fn not_home(view: &DirectoryView, tenant: &Tenant, region: &RegionName) -> Error {
    let nodes = voters(view, tenant.home);
    let addresses = nodes
        .iter()
        .filter_map(|node| view.node(*node))
        .map(|node| node.addresses.client.clone());
    let kind = ErrorKind::NotHome {
        region: region.clone(),
        epoch: tenant.epoch,
        endpoints: addresses.filter(|address| !address.is_empty()).collect(),
    };
    Error::new(
        kind,
        format!("tenant {} is at home in {region}: ask there", tenant.name),
    )
}
