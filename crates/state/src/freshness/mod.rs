//! How far a copy can be behind its home, measured without comparing clocks.
//!
//! A follower sends `ping(t0)`, its own clock. The home answers with X, the offset of the stream's last batch at or
//! below a read index taken after the ping arrived, and V, the version of its view. Once the follower has applied X and
//! its own view has reached V, whatever the home had acknowledged before t0 is here: the copy is `now - t0` behind at
//! most. A node that does not lead its group asks the leader the same way, and the bounds add up.
//!
//! Times are durations since the node's start, of a clock that only goes forward.
//!
//! # Invariants
//!
//! 1. A proof counts only once its offset is applied and the own view has reached its version.
//! 2. A proof counts for a tenant only while it is attached, the own view still says that this group is its home at the
//!    epoch followed with no higher fence, and no baton that ends that epoch was applied up to the offset.
//! 3. A proof of another incarnation of the home group never counts.

#[cfg(test)]
mod freshness_test;
pub mod gate;

use std::{collections::VecDeque, time::Duration};

use stead_types::{DirectoryVersion, Epoch, FeedOffset, GroupId, TenantNumber};

use crate::{
    directory::{Tenant, View},
    shard::record::Record,
};

/// Most proofs of a stream that wait to be counted. While so many wait no ping is sent: replacing the oldest by the
/// newest again and again would let a follower that lags a little never count one.
pub const PENDING_MAX: usize = 32;

/// What a ping's answer proves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Proof {
    /// When the ping was sent, by the own clock: before that instant nothing is missing.
    pub as_of: Duration,
    /// Of the stream's last batch then; of the home group itself, for its own nodes, the Raft index.
    pub offset: FeedOffset,
    /// What the home's view had reached.
    pub view: DirectoryVersion,
}

impl Proof {
    /// Returns what a leader's answer proves to another node of its group: the leader held a proof that was `age` old
    /// when it answered a question sent at `asked`.
    pub fn relayed(asked: Duration, age: Duration, offset: FeedOffset, view: DirectoryVersion) -> Option<Self> {
        let as_of = asked.checked_sub(age)?;
        Some(Self { as_of, offset, view })
    }
}

/// The proofs of one home group's stream.
#[derive(Clone, Debug, Default)]
pub struct Proofs {
    counted: Option<Proof>,
    pending: VecDeque<Proof>,
}

impl Proofs {
    /// Tells whether another ping may be sent.
    pub fn wants_ping(&self) -> bool {
        self.pending.len() < PENDING_MAX
    }

    /// Takes in an answer.
    pub fn answered(&mut self, proof: Proof) {
        if self.wants_ping() {
            self.pending.push_back(proof);
        }
    }

    /// Counts what can be counted now that the stream is applied up to `applied` and the view has reached `view`.
    pub fn advance(&mut self, applied: FeedOffset, view: DirectoryVersion) {
        self.pending.retain(|proof| {
            let incarnation = proof.offset.incarnation == applied.incarnation;
            let counts = incarnation && proof.offset.index <= applied.index && proof.view <= view;
            if counts && self.counted.is_none_or(|best| best.as_of < proof.as_of) {
                self.counted = Some(*proof);
            }
            // An older incarnation's proof can never count any more.
            !counts && proof.offset.incarnation >= applied.incarnation
        });
        if self
            .counted
            .is_some_and(|best| best.offset.incarnation != applied.incarnation)
        {
            self.counted = None;
        }
    }

    /// Forgets everything: the stream was broken off in a way that leaves its offsets without meaning.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Returns the best proof that counts.
    pub fn counted(&self) -> Option<Proof> {
        self.counted
    }

    /// Returns how far the tenant's copy can be behind at `now`; `None` if nothing is known.
    pub fn staleness(&self, now: Duration, view: &View, following: &Following) -> Option<Duration> {
        let proof = self.counted.filter(|proof| following.covers(proof, view))?;
        now.checked_sub(proof.as_of)
    }
}

/// What a group's record says of a tenant that it follows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Following {
    /// The tenant's number.
    pub tenant: TenantNumber,
    /// Whom the group follows.
    pub home: GroupId,
    /// The epoch followed.
    pub epoch: Epoch,
    /// The offset from which on the stream speaks for the tenant; `None` while it is detached.
    pub attached: Option<FeedOffset>,
    /// The offset of the baton that ended the epoch followed, if that was applied.
    pub baton: Option<FeedOffset>,
}

impl Following {
    /// Returns what a record says, if it follows and what it holds may be shown. While a tenant is attached the whole
    /// stream speaks for it: it was attached when it held all that the home had at the place of the attach.
    pub fn of(tenant: TenantNumber, record: &Record, is_attached: bool) -> Option<Self> {
        let session = record.session.filter(|_| is_attached);
        Some(Self {
            tenant,
            home: record.home().filter(|_| !record.suspect)?,
            epoch: record.epoch,
            attached: session.map(|session| FeedOffset {
                incarnation: session.incarnation,
                index: 0,
            }),
            baton: None,
        })
    }

    /// Invariant 2.
    fn covers(&self, proof: &Proof, view: &View) -> bool {
        let attached = self
            .attached
            .is_some_and(|from| from.incarnation == proof.offset.incarnation && from.index <= proof.offset.index);
        let before_baton = self.baton.is_none_or(|baton| proof.offset < baton);
        attached && before_baton && view.tenant(self.tenant).is_some_and(|tenant| self.agrees(tenant))
    }

    fn agrees(&self, tenant: &Tenant) -> bool {
        tenant.home == self.home && tenant.epoch == self.epoch && tenant.fence() <= self.epoch
    }
}
