//! Progress of one follower group, as its acknowledgements tell it.

use std::collections::BTreeMap;

use stead_types::{Epoch, FeedOffset, Revision, TenantNumber};

use crate::{attach_attempt::AttachAttempt, wire::TenantPosition};

/// Progress of one follower group, according to its acknowledgements.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FollowerProgress {
    /// Offset up to which it has applied the stream.
    pub offset: FeedOffset,
    /// Tenants that the offset covers.
    pub(crate) attached: BTreeMap<TenantNumber, AttachedTenant>,
    /// Positions of other tenants. The position of a tenant that is in neither map is unknown.
    pub detached: BTreeMap<TenantNumber, (Epoch, Revision)>,
    /// Whether its stream is open.
    pub connected: bool,
    pub(crate) stream: StreamId,
}

/// Tenant that an offset covers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AttachedTenant {
    /// Attempt by which it is attached.
    attempt: AttachAttempt,
    /// Revision up to which the follower had it when it was attached, or listed as attached.
    revision: Revision,
}

impl AttachedTenant {
    /// Returns the tenant that a follower has attached at a position.
    pub(crate) fn at(position: &TenantPosition) -> Self {
        Self {
            attempt: AttachAttempt::of(position),
            revision: position.revision,
        }
    }
}

/// Change of a tenant: its revision, and the entry of the home's log that made it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ChangePosition {
    pub(crate) revision: Revision,
    pub(crate) offset: FeedOffset,
}

/// Identifies one stream of a follower.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct StreamId(pub(crate) u64);

impl FollowerProgress {
    /// Applies one acknowledgement.
    pub(crate) fn acknowledge(&mut self, offset: FeedOffset, attached: &[TenantPosition], detached: &[TenantPosition]) {
        self.offset = self.offset.max(offset);
        for position in attached {
            self.detached.remove(&position.tenant);
            self.attached.insert(position.tenant, AttachedTenant::at(position));
        }
        for TenantPosition {
            tenant,
            epoch,
            revision,
            ..
        } in detached
        {
            self.detach(*tenant, Some((*epoch, *revision)));
        }
    }

    /// Removes a tenant from those that the offset covers, and notes its position, if that is known.
    pub(crate) fn detach(&mut self, tenant: TenantNumber, position: Option<(Epoch, Revision)>) {
        self.attached.remove(&tenant);
        if let Some(position) = position {
            self.detached.insert(tenant, position);
        }
    }

    /// Tells whether the offset covers a tenant: nothing of it is missing up to the offset.
    pub fn covers(&self, tenant: TenantNumber) -> bool {
        self.attached.contains_key(&tenant)
    }

    /// Tells whether the follower has applied a change of a tenant that the home made in this incarnation, while it follows
    /// the tenant in this epoch. Of a tenant that was attached with that change no batch may ever bring the offset to it.
    pub(crate) fn has_applied(&self, tenant: TenantNumber, epoch: Epoch, change: &ChangePosition) -> bool {
        let attached = self.attached.get(&tenant);
        let attached = attached.filter(|attached| attached.attempt.epoch == epoch);
        attached.is_some_and(|attached| self.offset >= change.offset || attached.revision >= change.revision)
    }

    /// Returns the tenants that the offset covers.
    pub fn attached(&self) -> impl ExactSizeIterator<Item = TenantNumber> {
        self.attached.keys().copied()
    }

    /// Tells whether a tenant's position is known.
    pub(crate) fn is_known(&self, tenant: TenantNumber) -> bool {
        self.covers(tenant) || self.detached.contains_key(&tenant)
    }
}
