//! Where a request is served: here, at another node of this region, or in another region.
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

use crate::directory::{State, Tenant, View};

#[cfg(test)]
mod routing_test;

/// Who can serve a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// The home's leader: writes and linearizable reads, and reads that no replica here could serve.
    Home,
    /// Any replica, the nearest first; its gate may still send the request home.
    Replica,
}

/// How a request came from another node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Forwarded {
    /// How often it has been handed on.
    pub hops: u32,
    /// On whose account.
    pub epoch: Epoch,
    /// The group that was to serve it, in the sender's view.
    pub group: GroupId,
}

/// A request, as far as it matters where it goes.
#[derive(Clone, Copy, Debug)]
pub struct Request<'a> {
    /// Whose it is, in this node's view.
    pub tenant: &'a Tenant,
    /// Who can serve it.
    pub need: Need,
    /// How it came here, if another node sent it.
    pub forwarded: Option<Forwarded>,
    /// The caller wants to be told the route rather than be forwarded to another region.
    pub direct: bool,
}

/// What a node knows of a group of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Voter {
    /// The node has no voter in it.
    No,
    /// It has one, and knows of no leader.
    WithoutLeader,
    /// It has one, and this node leads, perhaps itself.
    LedBy(NodeId),
}

/// The node that decides.
pub struct Here<'a> {
    /// Its number.
    pub node: NodeId,
    /// Where it stands.
    pub region: &'a RegionName,
    /// What it knows of a group.
    pub voter: &'a dyn Fn(GroupId) -> Voter,
    /// The epoch that its own record of the tenant says is owned or followed in a group, [`Epoch::NONE`] without one.
    pub epoch: &'a dyn Fn(GroupId) -> Epoch,
}

/// What to do with a request.
#[derive(Clone, Debug, PartialEq)]
pub enum Route {
    /// Serve it from this group.
    Here {
        /// The group.
        group: GroupId,
    },
    /// Hand it to a node of this region.
    Inside {
        /// The group that shall serve it.
        group: GroupId,
        /// Nodes that can, the best first.
        nodes: Vec<NodeId>,
    },
    /// Hand it to the home in another region.
    Away {
        /// Where.
        region: RegionName,
        /// The group that shall serve it.
        group: GroupId,
        /// Its voters.
        nodes: Vec<NodeId>,
    },
    /// Keep it until the view or the record has reached this epoch, bounded in number, bytes and time.
    Wait {
        /// On whose account it was forwarded.
        epoch: Epoch,
    },
    /// Answer with this error; nothing happened.
    Refuse(Error),
}

/// Decides where a request goes.
pub fn route(view: &View, here: &Here<'_>, request: Request<'_>) -> Route {
    let tenant = request.tenant;
    if tenant.state != State::Active {
        let message = format!(
            "tenant {0} is disabled: an operator can enable it again, `stead tenant update {0} --enable`",
            tenant.name
        );
        return Route::Refuse(Error::new(ErrorKind::Conflict, message));
    }
    if let Some(forwarded) = request.forwarded {
        let reached = tenant.epoch.max((here.epoch)(forwarded.group));
        if forwarded.epoch > reached {
            return Route::Wait { epoch: forwarded.epoch };
        }
    }
    match replica(view, here, &request) {
        Some(Route::Here { group }) => Route::Here { group },
        Some(inside) => within_hops(inside, &request),
        None => home(view, here, &request),
    }
}

/// Returns the replica of this region that may serve the request, if one may.
fn replica(view: &View, here: &Here<'_>, request: &Request<'_>) -> Option<Route> {
    if request.need != Need::Replica {
        return None;
    }
    let tenant = request.tenant;
    let members = || {
        tenant
            .members
            .iter()
            .filter(|member| !member.leaving)
            .map(|member| member.group)
    };
    if let Some(forwarded) = request.forwarded {
        // The sender has chosen; another choice here could send the request round in circles.
        let served = tenant.has(forwarded.group) && (here.voter)(forwarded.group) != Voter::No;
        return served.then_some(Route::Here { group: forwarded.group });
    }
    let mine = |group: &GroupId| (here.voter)(*group) != Voter::No;
    let best = Some(tenant.home)
        .filter(|home| mine(home))
        .or_else(|| members().find(mine));
    if let Some(group) = best {
        return Some(Route::Here { group });
    }
    let in_region = |group: &GroupId| view.region_of(*group).is_some_and(|region| region.name == *here.region);
    members().find(in_region).map(|group| Route::Inside {
        group,
        nodes: voters(view, group),
    })
}

fn home(view: &View, here: &Here<'_>, request: &Request<'_>) -> Route {
    let group = request.tenant.home;
    match (here.voter)(group) {
        Voter::LedBy(leader) if leader == here.node => Route::Here { group },
        Voter::LedBy(leader) => within_hops(
            Route::Inside {
                group,
                nodes: vec![leader],
            },
            request,
        ),
        Voter::WithoutLeader => {
            let message = format!(
                "the home of tenant {} is electing a leader: try again",
                request.tenant.name
            );
            Route::Refuse(Error::new(ErrorKind::NoLeader, message))
        }
        Voter::No => elsewhere(view, here, request),
    }
}

fn elsewhere(view: &View, here: &Here<'_>, request: &Request<'_>) -> Route {
    let group = request.tenant.home;
    let Some(region) = view.region_of(group) else {
        let message = format!(
            "the home of tenant {} is not known here yet: try again",
            request.tenant.name
        );
        return Route::Refuse(Error::new(ErrorKind::Unavailable, message));
    };
    let nodes = voters(view, group);
    if region.name == *here.region {
        return within_hops(Route::Inside { group, nodes }, request);
    }
    if request.direct {
        return Route::Refuse(not_home(view, request.tenant, &region.name));
    }
    let region = region.name.clone();
    within_hops(Route::Away { region, group, nodes }, request)
}

/// Invariant 1.
fn within_hops(route: Route, request: &Request<'_>) -> Route {
    let hops = request.forwarded.map_or(0, |forwarded| forwarded.hops);
    if hops < HOPS_MAX {
        return route;
    }
    let message = format!(
        "the request for tenant {} was handed on {hops} times: try again",
        request.tenant.name
    );
    Route::Refuse(Error::new(ErrorKind::TenantMoving, message))
}

fn voters(view: &View, group: GroupId) -> Vec<NodeId> {
    view.group(group).map(|group| group.voters.clone()).unwrap_or_default()
}

fn not_home(view: &View, tenant: &Tenant, region: &RegionName) -> Error {
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
