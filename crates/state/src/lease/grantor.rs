//! Grantor of leases: what a leader of the directory remembers of the leases that it has granted.
//!
//! Each voter of the directory has one; it grants only while it leads. What it remembers is of one term: before that
//! another leader may have granted leases, all of them asked for before this term began.

use std::{collections::BTreeMap, time::Duration};

use stead_types::{DirectoryVersion, Epoch, GroupId, TenantNumber};

use super::{
    GROUPS_MAX, LeaseAnswer, Renewal,
    waiter::{FenceWait, PossibleOwners, WaitState},
};
use crate::serving::BootTime;

/// Most groups whose last grant is noted.
pub const NOTED_GROUPS_MAX: usize = 1 << 16;

/// Grantor of leases on one voter of the directory.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LeaseGrantor {
    leading: Option<Term>,
}

/// A term in which this node leads.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Term {
    number: u64,
    /// Boot clock when this node knew of its election: leases of earlier leaders were asked for before.
    began: BootTime,
    /// Boot clock of the last grant to any voter of each group.
    granted: BTreeMap<GroupId, BootTime>,
    /// Highest fence that is being waited for: no grant may be as of a version below it.
    fence: DirectoryVersion,
}

/// State of the directory at one version, as far as a grant needs it: all read at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryReading {
    /// Version, applied here.
    pub version: DirectoryVersion,
    /// The ttl in force.
    pub ttl: Duration,
    /// Fence changes for the renewal up to `version`; `None` if they are no longer known.
    pub fences: Option<BTreeMap<TenantNumber, Epoch>>,
}

/// Fence that was applied here.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AppliedFence {
    /// Directory version of the fencing record.
    pub version: DirectoryVersion,
    /// Groups that could own a tenant below it.
    pub owners: PossibleOwners,
    /// Largest ttl in force at that record, or within one such ttl before it.
    pub ttl: Duration,
}

/// Reason why no lease was granted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum GrantRefusal {
    /// This node does not lead the directory in the term in which the read index was confirmed.
    #[error("this node does not lead the directory")]
    NotLeader,
    /// A fence was applied since the version was read.
    #[error("the directory was read below fence {0}: read it again")]
    BelowFence(DirectoryVersion),
    /// The renewal names no group, or too many.
    #[error("a renewal names {0} groups: name 1 to {GROUPS_MAX}")]
    Groups(usize),
    /// The grants of too many groups are noted.
    #[error("grants of {NOTED_GROUPS_MAX} groups are noted, more are not supported")]
    TooManyGroups,
}

impl LeaseGrantor {
    /// Records that this node leads in a term. What was known of an earlier term is forgotten, and waits begin anew.
    pub fn lead(&mut self, now: BootTime, term: u64) {
        if self.term() != Some(term) {
            self.leading = Some(Term {
                number: term,
                began: now,
                granted: BTreeMap::new(),
                fence: DirectoryVersion::ZERO,
            });
        }
    }

    /// Records that this node does not lead.
    pub fn follow(&mut self) {
        self.leading = None;
    }

    /// Returns the term in which this node leads.
    pub fn term(&self) -> Option<u64> {
        self.leading.as_ref().map(|leading| leading.number)
    }

    /// Grants a lease: notes it for the groups that the renewal names, and returns the answer, which may be sent at any
    /// time later. To be called once a read index is confirmed, in `term`, by a round that began after the renewal
    /// arrived (protocol.md "Leases", rule 2); `reading` is of a version at or above it.
    ///
    /// # Errors
    ///
    /// Nothing is granted then; after [`GrantRefusal::BelowFence`] the same renewal may be granted from a new reading.
    pub fn grant(
        &mut self,
        now: BootTime,
        term: u64,
        renewal: &Renewal,
        reading: DirectoryReading,
    ) -> Result<LeaseAnswer, GrantRefusal> {
        let leading = self.leading.as_mut().filter(|leading| leading.number == term);
        let leading = leading.ok_or(GrantRefusal::NotLeader)?;
        if reading.version < leading.fence {
            return Err(GrantRefusal::BelowFence(leading.fence));
        }
        leading.note(now, renewal)?;
        Ok(LeaseAnswer {
            attempt: renewal.attempt,
            version: reading.version,
            ttl: reading.ttl,
            fences: reading.fences,
        })
    }

    /// Begins the wait after a fence, once for each fence and term; `None` if this node does not lead. To be called
    /// once the fence is applied here (rule 7). The wait is shortened by the time since the last grant to any voter of a
    /// possible owner.
    pub fn begin_wait(&mut self, now: BootTime, fence: &AppliedFence) -> Option<FenceWait> {
        let leading = self.leading.as_mut()?;
        // From here on no grant is as of a version below the fence, so that the notes are complete.
        leading.fence = leading.fence.max(fence.version);
        let last_grant = leading.last_grant(&fence.owners).min(now);
        Some(FenceWait::new(leading.number, last_grant, fence.ttl))
    }

    /// Returns the state of a wait.
    pub fn wait_state(&self, now: BootTime, wait: &FenceWait) -> WaitState {
        wait.state(now, self.term())
    }

    /// Returns the time since a lease was last granted to any voter of a group, or since this node leads; `None` if it
    /// does not lead.
    pub fn since_last_grant(&self, now: BootTime, group: GroupId) -> Option<Duration> {
        let leading = self.leading.as_ref()?;
        Some(now.since(leading.last_grant_to(group)))
    }

    /// Returns the time since a lease was last granted to any voter of some groups, of those to which this node has granted
    /// one since it leads: what an earlier leader has granted is not known.
    pub fn since_seen_grants(&self, now: BootTime, owners: &PossibleOwners) -> Vec<(GroupId, Duration)> {
        let granted = self.leading.iter().flat_map(|leading| &leading.granted);
        let seen = granted.filter(|(group, _)| owners.0.contains(group));
        seen.map(|(group, at)| (*group, now.since(*at))).collect()
    }
}

impl Term {
    fn note(&mut self, now: BootTime, renewal: &Renewal) -> Result<(), GrantRefusal> {
        // A witness votes in none.
        if GROUPS_MAX < renewal.groups.len() {
            return Err(GrantRefusal::Groups(renewal.groups.len()));
        }
        let new = renewal.groups.iter().filter(|group| !self.granted.contains_key(group));
        if NOTED_GROUPS_MAX < self.granted.len() + new.count() {
            return Err(GrantRefusal::TooManyGroups);
        }
        self.granted.extend(renewal.groups.iter().map(|group| (*group, now)));
        Ok(())
    }

    /// Returns the boot clock of the last grant to a voter of a group by any leader.
    fn last_grant_to(&self, group: GroupId) -> BootTime {
        let granted = self.granted.get(&group).copied();
        granted.unwrap_or(self.began).max(self.began)
    }

    fn last_grant(&self, owners: &PossibleOwners) -> BootTime {
        let granted = owners.0.iter().map(|group| self.last_grant_to(*group));
        granted.fold(self.began, BootTime::max)
    }
}
