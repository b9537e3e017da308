//! Wait after a fence, until every lease that does not know it has run out.

use std::{collections::BTreeSet, time::Duration};

use stead_types::GroupId;

use super::clock::wait_time;
use crate::serving::BootTime;

/// Wait after a fence, on the clock of one leader of the directory in one term. Another leader, or the same one in a
/// later term, begins its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct FenceWait {
    term: u64,
    ends: BootTime,
}

/// State of a [`FenceWait`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitState {
    /// No lease as of a version below the fence counts any more.
    Over,
    /// Time that is left.
    Left(Duration),
    /// The term in which it was begun has ended: it is to be begun anew.
    Void,
}

impl FenceWait {
    /// Returns the wait from this boot clock on: no lease with a version below the fence was granted later.
    pub(super) fn new(term: u64, from: BootTime, ttl: Duration) -> Self {
        Self {
            term,
            ends: from.after(wait_time(ttl)),
        }
    }

    /// Returns its state for the leader in this term; `None`: this node does not lead.
    pub fn state(&self, now: BootTime, term: Option<u64>) -> WaitState {
        match term {
            Some(term) if term == self.term && self.ends <= now => WaitState::Over,
            Some(term) if term == self.term => WaitState::Left(self.ends.since(now)),
            Some(_) | None => WaitState::Void,
        }
    }
}

/// Groups that could own a tenant below a fence (protocol.md "Leases", rule 7).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PossibleOwners(pub(super) BTreeSet<GroupId>);

impl PossibleOwners {
    /// Returns the home, the target of a move in flight or aborting, and the targets of all moves that promotions which
    /// are not activated yet have replaced: a target may have accepted before the directory heard of it.
    pub fn new(
        home: GroupId,
        move_target: Option<GroupId>,
        replaced_targets: impl IntoIterator<Item = GroupId>,
    ) -> Self {
        let targets = move_target.into_iter().chain(replaced_targets);
        Self(std::iter::once(home).chain(targets).collect())
    }

    /// Adds those of another tenant, where one fence is for many.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }
}
