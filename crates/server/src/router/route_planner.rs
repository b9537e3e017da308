//! Planner of routes: which node serves an operation or a watch, as far as this node knows.

use std::sync::Arc;

use futures::future::OptionFuture;
use stead_api::{convert::read::Consistency, proto::v1::Routing};
use stead_replication::SharedDirectoryView;
use stead_state::{
    directory::Tenant,
    routing::{self, LocalNode, LocalRecord, RouteDecision, ServingRole, VoterStatus},
};
use stead_types::{GroupId, TenantName};
use tokio::time::{Instant, timeout_at};

use super::{
    call::{Call, ForwardOrigin, ForwardTarget},
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
        let records = self.records(tenant);
        let voter = |group: GroupId| match self.groups.get(&group).map(|hosted| hosted.raft.leader()) {
            None => VoterStatus::Absent,
            Some(None) => VoterStatus::LeaderUnknown,
            Some(Some(leader)) => VoterStatus::LedBy(leader),
        };
        let here = LocalNode {
            node: self.node.id,
            region: &self.node.region,
            voter: &voter,
            records: &records,
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

    /// Returns the records of a tenant in the groups of this node that are its members.
    fn records(&self, tenant: &Tenant) -> Vec<(GroupId, LocalRecord)> {
        let groups = self.groups.iter();
        let members = groups.filter(|(group, _)| tenant.home == **group || tenant.member(**group).is_some());
        members
            .filter_map(|(group, hosted)| Some((*group, hosted.local_record(tenant.number)?)))
            .collect()
    }

    /// Waits until this node's view or its records have reached what the sender of an operation or a watch knew of its
    /// tenant, or name a node that may have; returns whether they did in time.
    pub(crate) async fn wait_for_sender(&self, target: &ForwardTarget, tenant: &TenantName, until: Instant) -> bool {
        let mut versions = self.directory_view.watch();
        let mut applied = self.groups.get(&target.group).map(|hosted| hosted.raft.applied());
        loop {
            versions.borrow_and_update();
            if let Some(applied) = &mut applied {
                applied.borrow_and_update();
            }
            let known = self.directory_view.read(|view| view.tenant_named(tenant).cloned());
            if known.is_some_and(|known| self.has_reached(target, &known)) {
                return true;
            }
            let applied: OptionFuture<_> = applied.as_mut().map(|applied| applied.changed()).into();
            let changed = async {
                tokio::select! {
                    changed = versions.changed() => changed.is_ok(),
                    Some(changed) = applied => changed.is_ok(),
                }
            };
            if timeout_at(until, changed).await != Ok(true) {
                return false;
            }
        }
    }

    fn has_reached(&self, target: &ForwardTarget, tenant: &Tenant) -> bool {
        if tenant.number != target.tenant {
            return false;
        }
        let forwarded_by = Some(ForwardOrigin {
            target: *target,
            hops: 0,
        });
        !matches!(
            self.decide(tenant, ServingRole::Home, forwarded_by, false),
            RouteDecision::Wait { .. }
        )
    }
}
