//! What the tasks of one group on one node share.

use std::sync::Arc;

use stead_raft::Group;
use stead_state::{directory::View, rows::Unreadable};
use stead_store::{health::Failure, shard::ShardMachine};
use stead_types::{GroupId, TenantNumber};

use crate::{
    Views,
    counters::{Border, Counters},
    freshness::Freshness,
    source::acknowledged::Acknowledged,
};

/// A group of this node, and what its tasks know.
pub(crate) struct Local {
    pub(crate) group: Group,
    pub(crate) machine: Arc<ShardMachine>,
    pub(crate) views: Views,
    pub(crate) counters: Arc<Counters>,
    pub(crate) acknowledged: Arc<Acknowledged>,
    pub(crate) freshness: Arc<Freshness>,
}

impl Local {
    pub(crate) fn id(&self) -> GroupId {
        self.group.id()
    }

    /// Stops the node: its storage could not be read.
    pub(crate) fn unreadable(&self, unreadable: Unreadable) {
        let failure = Failure::of_group(self.id(), "reading rows", unreadable);
        self.group.health().fail(failure);
    }

    /// Tells that something did not come about and will be tried again.
    pub(crate) fn retry(&self, part: &'static str, error: &(dyn std::error::Error + 'static)) {
        self.group.health().retry(Some(self.id()), part, error);
    }

    /// Tells that it has come about.
    pub(crate) fn succeeded(&self, part: &'static str) {
        self.group.health().succeeded(Some(self.id()), part);
    }

    /// Returns the border that a stream to another group crosses, if the view knows both ends.
    pub(crate) fn border_to(&self, other: GroupId) -> Option<Border> {
        self.views.read(|view| {
            let region = |group| Some(view.region_of(group)?.name.clone());
            let (from, to) = (region(self.id())?, region(other)?);
            Some(Border { from, to })
        })
    }
}

/// Tells whether a tenant that `home` owns may be fed to another group, as far as this view goes.
pub(crate) fn may_follow(view: &View, tenant: TenantNumber, home: GroupId, follower: GroupId) -> bool {
    let (Some(tenant), Some(region)) = (view.tenant(tenant), view.region_of(follower)) else {
        return false;
    };
    tenant.home == home && tenant.has(follower) && tenant.admits(&region.jurisdiction)
}
