//! Staleness of a follower's copy, measured without comparing clocks.
//!
//! A follower sends `ping(t0)`, its own clock. The home answers with X, the offset of the feed's last batch at or
//! below a read index taken after the ping arrived, and V, the version of its view. Once the follower has applied X
//! and its own view has reached V, the copy has everything that the home had acknowledged before t0: it is at most
//! `now - t0` stale. A node that does not lead its group polls the leader the same way, and the bounds add up.
//!
//! Times are durations since the node's start, of a monotonic clock.
//!
//! # Invariants
//!
//! 1. A proof counts only once its offset is applied and the own view has reached its version.
//! 2. A proof counts for a tenant only while it is attached, the own view still says that this group is its home at
//!    the epoch followed with no higher fence, and no baton that ends that epoch was applied up to the offset.
//! 3. A proof of another incarnation of the home group never counts.

#[cfg(test)]
mod forked_test;
#[cfg(test)]
mod freshness_test;
pub mod gate;

use std::{collections::VecDeque, time::Duration};

use stead_types::{DirectoryVersion, Epoch, FeedOffset, GroupId, TenantNumber};

use crate::directory::{DirectoryView, Tenant};

/// Most proofs of a feed that wait to become valid. While so many wait no ping is sent: if the newest always replaced
/// the oldest, a follower with a little lag would never have a valid proof.
pub const PENDING_MAX: usize = 32;

/// Freshness proof: the response to a ping.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// Time at which the ping was sent, by the own clock: nothing before it is missing.
    pub as_of: Duration,
    /// Offset of the feed's last batch at that time; for nodes of the home group itself, its log index.
    pub offset: FeedOffset,
    /// Version that the home's directory view had reached.
    pub view: DirectoryVersion,
}

impl Proof {
    /// Returns the proof that a leader's response gives to another node of its group: the leader held a proof of this
    /// `age` when it answered a poll sent at `asked`.
    pub fn from_leader(asked: Duration, age: Duration, offset: FeedOffset, view: DirectoryVersion) -> Option<Self> {
        let as_of = asked.checked_sub(age)?;
        Some(Self { as_of, offset, view })
    }
}

/// Freshness proofs of one home group's feed.
#[derive(Clone, Debug, Default)]
pub struct Proofs {
    latest: Option<Proof>,
    pending: VecDeque<Proof>,
}

impl Proofs {
    /// Tells whether another ping may be sent.
    pub fn may_ping(&self) -> bool {
        self.pending.len() < PENDING_MAX
    }

    /// Adds a proof, which becomes valid by [`Proofs::advance`].
    pub fn add(&mut self, proof: Proof) {
        if self.may_ping() {
            self.pending.push_back(proof);
        }
    }

    /// Makes proofs valid now that the feed is applied up to `applied` and the view has reached `view`.
    pub fn advance(&mut self, applied: FeedOffset, view: DirectoryVersion) {
        self.pending.retain(|proof| {
            let incarnation = proof.offset.incarnation == applied.incarnation;
            let counts = incarnation && proof.offset.index <= applied.index && proof.view <= view;
            if counts && self.latest.is_none_or(|best| best.as_of < proof.as_of) {
                self.latest = Some(*proof);
            }
            // A proof of an older incarnation can never become valid.
            !counts && proof.offset.incarnation >= applied.incarnation
        });
        if self
            .latest
            .is_some_and(|best| best.offset.incarnation != applied.incarnation)
        {
            self.latest = None;
        }
    }

    /// Drops all proofs: the feed broke in a way that makes its offsets meaningless.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns the latest valid proof.
    pub fn latest(&self) -> Option<Proof> {
        self.latest
    }

    /// Returns the staleness bound of the tenant's copy at `now`; `None` if it is unknown.
    pub fn staleness(&self, now: Duration, view: &DirectoryView, following: &FollowedTenant) -> Option<Duration> {
        let proof = self.latest.filter(|proof| following.covers(proof, view))?;
        now.checked_sub(proof.as_of)
    }

    /// Returns the time as of which the tenant's copy is proved to have everything that was acknowledged, also where the
    /// tenant is fenced since: until another home is recorded nobody else acknowledges. Such a copy may not be read as
    /// fresh, but the bound holds for the report of a promotion.
    pub fn proved_below_fence(&self, view: &DirectoryView, following: &FollowedTenant) -> Option<Duration> {
        let is_home = |tenant: &Tenant| tenant.home == following.home && tenant.epoch == following.epoch;
        let is_followed = view.tenant(following.tenant).is_some_and(|tenant| is_home(tenant));
        let proof = self
            .latest
            .filter(|proof| is_followed && following.is_before_end(proof))?;
        Some(proof.as_of)
    }
}

/// Following state of a tenant, from the group's record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FollowedTenant {
    /// The tenant's number.
    pub tenant: TenantNumber,
    /// Home group that is followed.
    pub home: GroupId,
    /// The epoch followed.
    pub epoch: Epoch,
    /// Offset from which on the feed covers the tenant; `None` while it is detached.
    pub attached: Option<FeedOffset>,
    /// Offset of the baton that ended the epoch followed, if it was applied.
    pub baton: Option<FeedOffset>,
}

impl FollowedTenant {
    /// Tells whether a proof counts for this tenant (invariant 2).
    fn covers(&self, proof: &Proof, view: &DirectoryView) -> bool {
        self.is_before_end(proof) && view.tenant(self.tenant).is_some_and(|tenant| self.agrees(tenant))
    }

    /// Tells whether the feed covers the tenant at a proof's offset, and the epoch followed had not ended.
    fn is_before_end(&self, proof: &Proof) -> bool {
        let attached = self
            .attached
            .is_some_and(|from| from.incarnation == proof.offset.incarnation && from.index <= proof.offset.index);
        attached && self.baton.is_none_or(|baton| proof.offset < baton)
    }

    fn agrees(&self, tenant: &Tenant) -> bool {
        tenant.home == self.home && tenant.epoch == self.epoch && tenant.fence() <= self.epoch
    }
}
