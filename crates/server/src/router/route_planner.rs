//! Planner of routes: which node serves an operation or a watch, as far as this node knows.

use std::{collections::BTreeMap, sync::Arc};

use stead_api::{convert::read::Consistency, proto::v1::Routing};
use stead_replication::SharedDirectoryView;
use stead_state::{
    directory::Tenant,
    routing::{self, LocalNode, RouteDecision, ServingRole, VoterStatus},
};
use stead_types::{Epoch, GroupId};

use super::{
    call::{Call, ForwardOrigin},
    request::{Action, ReadRequest},
};
use crate::{
    config::NodeConfig,
    host::{Host, HostedGroups},
};

/// Planner of routes, from the directory view and the groups of this node.
pub(crate) struct RoutePlanner {
    node: NodeConfig,
    groups: Arc<HostedGroups>,
    directory_view: SharedDirectoryView,
}

impl RoutePlanner {
    /// Returns the planner of a node.
    pub(crate) fn new(host: &Host) -> Self {
        Self {
            node: host.config.node.clone(),
            groups: host.groups.clone(),
            directory_view: host.directory_view.clone(),
        }
    }

    /// Routes an operation, which may have been forwarded by another node.
    pub(super) fn route(&self, call: &Call, tenant: &Tenant, role: ServingRole) -> RouteDecision {
        let forwarded_by = call.forwarded.map(|target| ForwardOrigin {
            target,
            hops: call.hops,
        });
        let direct = call.operation.routing == i32::from(Routing::Direct);
        self.decide(tenant, role, forwarded_by, direct)
    }

    /// Routes a watch, which may have been forwarded by another node.
    pub(crate) fn route_watch(
        &self,
        tenant: &Tenant,
        role: ServingRole,
        forwarded_by: Option<ForwardOrigin>,
    ) -> RouteDecision {
        self.decide(tenant, role, forwarded_by, false)
    }

    /// Returns the role that an operation needs.
    pub(super) fn required_role(&self, action: &Action, tenant: &Tenant) -> ServingRole {
        match action {
            Action::Write(_) => ServingRole::Home,
            Action::Read(read) => match read.consistency {
                Consistency::Linearizable => ServingRole::Home,
                // At home the leader answers: nobody is fresher.
                Consistency::Bounded(_) if self.groups.contains_key(&tenant.home) => ServingRole::Home,
                Consistency::Bounded(_) | Consistency::Session(_) | Consistency::Local => ServingRole::Replica,
            },
        }
    }

    /// Tells whether a read that is served here takes a read index: the home's leader answers bounded reads that way.
    pub(super) fn is_linearizable(&self, read: &ReadRequest, tenant: &Tenant) -> bool {
        match read.consistency {
            Consistency::Linearizable => true,
            Consistency::Bounded(_) => self
                .groups
                .get(&tenant.home)
                .is_some_and(|hosted| hosted.raft.is_leader()),
            Consistency::Session(_) | Consistency::Local => false,
        }
    }

    fn decide(
        &self,
        tenant: &Tenant,
        role: ServingRole,
        forwarded_by: Option<ForwardOrigin>,
        direct: bool,
    ) -> RouteDecision {
        // Lock order: the machines are read before the view, because a reader of a machine may read the view, and not
        // the other way round.
        let known_epochs: BTreeMap<GroupId, Epoch> = self.known_epochs(tenant);
        let voter = |group: GroupId| match self.groups.get(&group).map(|hosted| hosted.raft.leader()) {
            None => VoterStatus::Absent,
            Some(None) => VoterStatus::LeaderUnknown,
            Some(Some(leader)) => VoterStatus::LedBy(leader),
        };
        let epoch = |group: GroupId| known_epochs.get(&group).copied().unwrap_or(Epoch::NONE);
        let here = LocalNode {
            node: self.node.id,
            region: &self.node.region,
            voter: &voter,
            epoch: &epoch,
        };
        let forwarded = forwarded_by.map(|origin| routing::ForwardInfo {
            hops: origin.hops,
            epoch: origin.target.epoch,
            group: origin.target.group,
        });
        self.directory_view.read(|view| {
            routing::route(
                view,
                &here,
                routing::RouteRequest {
                    tenant,
                    serving_role: role,
                    forwarded,
                    direct,
                },
            )
        })
    }

    /// Returns the epochs of a tenant in the groups of this node that hold it.
    fn known_epochs(&self, tenant: &Tenant) -> BTreeMap<GroupId, Epoch> {
        let groups = self.groups.iter();
        let held = groups.filter(|(group, _)| tenant.home == **group || tenant.has(**group));
        held.filter_map(|(group, hosted)| Some((*group, hosted.epoch(tenant.number)?)))
            .collect()
    }
}
