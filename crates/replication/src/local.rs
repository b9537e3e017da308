//! What the tasks of one group on one node share.

use std::sync::Arc;

use stead_api::peer_codec::PeerAlarms;
use stead_raft::Group;
use stead_state::{directory::View, rows::Unreadable, shard::incoming::Unacceptable};
use stead_store::{health::Failure, shard::ShardMachine};
use stead_types::{GroupId, TenantNumber};
use tonic::{Code, Status};

use crate::{
    Views,
    counters::{Border, Counters},
    freshness::Freshness,
    source::acknowledged::Acknowledged,
    wire::Garbled,
};

/// A group of this node, and what its tasks know.
pub(crate) struct Local {
    pub(crate) group: Group,
    pub(crate) machine: Arc<ShardMachine>,
    pub(crate) views: Views,
    pub(crate) counters: Arc<Counters>,
    pub(crate) acknowledged: Arc<Acknowledged>,
    pub(crate) freshness: Arc<Freshness>,
    pub(crate) alarms: PeerAlarms,
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

    /// Raises the alarm about what a home has sent of a tenant: it is not proposed.
    pub(crate) fn unacceptable(&self, home: GroupId, tenant: TenantNumber, why: &Unacceptable) {
        self.alarms.unreadable();
        self.freshness.unreadable(home, tenant);
        tracing::error!(
            group = %self.id(), %home, %tenant, error = why as &dyn std::error::Error,
            "what a home has sent of a tenant cannot be taken; the tenant stays as it is, detached"
        );
    }

    /// Raises the alarm about a home's stream that cannot be read as a whole.
    pub(crate) fn garbled(&self, home: GroupId, garbled: &Garbled) {
        self.alarms.unreadable();
        let error: &dyn std::error::Error = garbled;
        tracing::error!(group = %self.id(), %home, error, "a home's stream cannot be read; it is opened again");
    }

    /// Raises the alarm about a follower's stream that is not opened, if that is for what the follower sent.
    pub(crate) fn not_opened(&self, follower: GroupId, status: &Status) {
        self.alarms.note(status);
        if status.code() == Code::InvalidArgument {
            self.alarms.unreadable();
            let reason = status.message();
            tracing::error!(group = %self.id(), %follower, reason, "a follower's stream cannot be opened");
        }
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
