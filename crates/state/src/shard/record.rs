//! A tenant's record in a group: role, promised epoch, lineage, and the state of each of its copies.

use stead_types::{DirectoryVersion, Epoch, GroupId, Revision, Sequence, TenantTime};

pub use super::shadow_copy::{ClientRange, ClientsLoaded, ShadowCopy};
use super::{apply_result::EvaluationPoint, digest::Digests};
use crate::{lineage::Lineage, logged_time::tenant_time};

/// Number of an operation (move or promotion) of a tenant; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct OperationId(pub u64);

/// Number of a group's attempt to attach a tenant to its home's feed. It grows with each attempt and is never reused,
/// so that messages of an earlier attempt are told from those of the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct AttachNumber(pub u64);

impl AttachNumber {
    /// Returns the number of the next attempt.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Number of a seed of a tenant in a group. It grows with each seed and is never reused, so that chunks of an earlier
/// seed are told from those of the current one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct SeedNumber(pub u64);

impl SeedNumber {
    /// Returns the number of the next seed.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Role of a group for a tenant, as named in PROTOCOL.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Role {
    /// May write, in the record's epoch.
    Owner,
    /// Holds an asynchronous copy.
    Follower {
        /// Group that it follows.
        home: GroupId,
    },
    /// A follower that is ready to take over.
    Heir {
        /// Group that it follows.
        home: GroupId,
        /// Number of the move.
        operation: OperationId,
        /// Epoch that it would own.
        epoch: Epoch,
    },
    /// Has handed the tenant over; the baton is derived from this.
    Relinquished {
        /// Number of the move.
        operation: OperationId,
        /// The heir.
        to: GroupId,
        /// Epoch handed over.
        epoch: Epoch,
        /// Last change of the epoch before.
        last: Revision,
    },
    /// Takes part in a promotion.
    Frozen {
        /// Number of the promotion.
        operation: OperationId,
        /// Epoch that it is frozen for.
        epoch: Epoch,
        /// Role before the promotion.
        previous: PreviousRole,
    },
    /// Has left the replica set; its rows are deleted or being deleted.
    Erased,
}

/// Role of a frozen group before the promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PreviousRole {
    /// The owner.
    Owner,
    /// A follower or an heir.
    Follower,
    /// A source that had handed over to this group.
    Relinquished(GroupId),
    /// Not a member.
    None,
}

/// Policy of an owner that has lost its lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Default)]
pub enum LeaseLossPolicy {
    /// Stops serving: a split brain is impossible.
    #[default]
    Stop,
    /// Continues serving, with marked responses, until any message carries a higher epoch.
    Continue,
}

/// State of one copy of a tenant's data. Equal in all replicas except for `trimmed`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct CopyState {
    /// Number of the copy.
    pub number: u32,
    /// Last change.
    pub revision: Revision,
    /// Index of the last change in this group's log, zero before the first: a response from this copy depends on that
    /// entry being durable elsewhere.
    pub index: u64,
    /// The tenant's logged time.
    pub time: TenantTime,
    /// The group's logged time when the tenant's was `time`, while the two differ because the tenant came from
    /// another group. Zero where they do not.
    pub as_of: u64,
    /// Digests of live keys and idempotency records.
    pub digests: Digests,
    /// Number of live keys.
    pub keys: u64,
    /// Bytes of live keys and their values.
    pub len: u64,
    /// Retention floor: versions below it may be removed; the version as of it is kept.
    pub retention_floor: Revision,
    /// Lower edge of the idempotency windows of clients that are no longer kept: the latest tenant time of an evicted
    /// outcome; zero before the first.
    pub edge: TenantTime,
    /// Tombstones up to this sequence are no longer current versions: follows the retention floor, a bounded step
    /// with each entry.
    pub swept: Sequence,
    /// Swept versions up to this sequence are removed from this node's rows. Local progress: replicas differ.
    pub trimmed: Sequence,
    /// Whether the copy was rewound and its idempotency windows have not been loaded anew since: evictions cannot be
    /// undone, so the windows may lack outcomes.
    pub rewound: bool,
}

impl CopyState {
    /// Returns the state that a response from this copy depends on.
    pub fn evaluation_point(&self) -> EvaluationPoint {
        EvaluationPoint {
            revision: self.revision,
            index: self.index,
            time: self.time,
        }
    }

    /// Returns the owner's tenant time for this logged time of its group. It never goes back.
    pub fn time_at(&self, logged: u64) -> TenantTime {
        if self.as_of == 0 {
            return self.time.max(TenantTime(logged));
        }
        TenantTime(tenant_time(self.time.0, self.as_of, logged))
    }

    /// Advances the owner's tenant time to this logged time of its group, and returns it.
    pub(crate) fn move_time(&mut self, logged: u64) -> TenantTime {
        self.time = self.time_at(logged);
        // Once the two times are equal they stay equal.
        let differs = self.as_of != 0 && self.time.0 != logged;
        self.as_of = if differs { logged.max(self.as_of) } else { 0 };
        self.time
    }

    /// Makes the owner's tenant time continue from another group's, from this logged time of the own group on. It
    /// neither goes back nor leaps to the own group's logged time.
    pub(crate) fn continue_time(&mut self, from: TenantTime, logged: u64) {
        self.time = self.time.max(from);
        self.as_of = if self.time.0 == logged { 0 } else { logged };
    }
}

/// One attempt to attach a tenant to its home's feed. From its beginning the feed carries the tenant's records, and
/// once it is attached the feed's offset covers the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AttachSession {
    /// The home group.
    pub home: GroupId,
    /// The home group's incarnation.
    pub incarnation: stead_types::Incarnation,
    /// Epoch of the session.
    pub epoch: Epoch,
    /// Number of the attempt: records, attach and detach of another attempt are rejected.
    pub number: AttachNumber,
    /// Whether the attempt has succeeded.
    pub attached: bool,
}

/// History that a promotion cut, kept as a copy: of the tail above the fork point, or of all that was live.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Fork {
    /// State of the live copy when it was cut, under the fork's number.
    pub copy: CopyState,
    /// Lineage that it belongs to.
    pub lineage: Lineage,
    /// Fork point: everything above this sequence was cut.
    pub point: Sequence,
    /// Part of a tail that the fork holds; `None` where the whole copy is the fork.
    pub tail: Option<Tail>,
}

/// Changes above a fork point, with the versions that they replaced at or below it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tail {
    /// Change at the fork point.
    pub after: Revision,
    /// Bytes of the changes that have been moved to the fork.
    pub len: u64,
}

/// A rewind of the live copy that is under way: its tail moves to a fork, the newest change first, in bounded steps.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rewind {
    /// Number of the fork.
    pub fork: u32,
    /// Last change that is still in the live copy: rows, counters and digests are those as of it.
    pub next: Sequence,
    /// Whether the idempotency windows lack outcomes: they did before, or changes that were undone had evicted some.
    pub lacks_outcomes: bool,
}

/// Point at which an owner took over by a baton.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handover {
    /// Last change of the epoch before.
    pub revision: Revision,
    /// Digests at that change.
    pub digests: Digests,
}

/// Record of a tenant in a group.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TenantRecord {
    /// Role of this group for the tenant.
    pub role: Role,
    /// Epoch owned or followed.
    pub epoch: Epoch,
    /// Highest epoch followed, accepted, frozen for or owned; never decreases.
    pub promised: Epoch,
    /// Highest directory view version that an entry about ownership was derived from. An entry with an older one is
    /// rejected; entries of the feed compare theirs and do not raise it.
    pub view_version: DirectoryVersion,
    /// Lineage of this group's history.
    pub lineage: Lineage,
    /// Moves up to this one are rejected.
    pub refused_up_to: OperationId,
    /// Lease loss policy while this group owns.
    pub policy: LeaseLossPolicy,
    /// Members whose acknowledgements do not count.
    pub uncounted: Vec<GroupId>,
    /// The takeover by a baton, if the epoch began with one.
    pub accepted: Option<Handover>,
    /// Number of the last attempt to attach.
    pub attach: AttachNumber,
    /// The attempt that is under way or has succeeded, until it ends.
    pub session: Option<AttachSession>,
    /// Whether a digest differed from the home's: the copy is not served and not acknowledged until it is seeded
    /// again.
    pub suspect: bool,
    /// The copy that is served.
    pub live: CopyState,
    /// Number of the last seed.
    pub seeds: SeedNumber,
    /// The copy being seeded.
    pub shadow: Option<ShadowCopy>,
    /// Histories that promotions cut.
    pub forks: Vec<Fork>,
    /// Highest copy number assigned.
    pub copies: u32,
    /// The rewind of the live copy that is under way. Until it has ended the copy is not read, and every command about
    /// the tenant fails.
    pub rewind: Option<Rewind>,
    /// Log index up to which a counted follower in another region is known to have the tenant's changes, while this group
    /// owns it; zero where that is not known.
    pub remote: u64,
}

impl TenantRecord {
    /// Tells whether the live copy has the home's data as of some time. One that was never fed and that no seed has
    /// filled yet is empty although its home need not be.
    pub fn has_data(&self) -> bool {
        let is_attached = self.session.is_some_and(|session| session.attached);
        let was_owner = matches!(self.role, Role::Relinquished { .. });
        self.owned().is_some() || was_owner || is_attached || self.live.revision.sequence() > Sequence::ZERO
    }

    /// Returns the record of a tenant that is unknown to this group.
    pub fn unknown() -> Self {
        Self {
            role: Role::Erased,
            epoch: Epoch::NONE,
            promised: Epoch::NONE,
            view_version: DirectoryVersion::ZERO,
            lineage: Lineage::default(),
            refused_up_to: OperationId::default(),
            policy: LeaseLossPolicy::Stop,
            uncounted: Vec::new(),
            accepted: None,
            attach: AttachNumber::default(),
            session: None,
            suspect: false,
            live: CopyState::default(),
            seeds: SeedNumber::default(),
            shadow: None,
            forks: Vec::new(),
            copies: 0,
            rewind: None,
            remote: 0,
        }
    }

    /// Tells whether this group has never held the tenant.
    pub fn is_unknown(&self) -> bool {
        self.copies == 0
    }

    /// Returns the record without local progress, which differs between replicas.
    pub(crate) fn without_own_progress(&self) -> Self {
        let mut record = self.clone();
        let shadow = record.shadow.as_mut().map(|shadow| &mut shadow.state);
        let forks = record.forks.iter_mut().map(|fork| &mut fork.copy);
        for copy in forks.chain(shadow).chain([&mut record.live]) {
            copy.trimmed = Sequence::ZERO;
        }
        record
    }

    /// Returns the epoch owned, if this group is the owner.
    pub fn owned(&self) -> Option<Epoch> {
        (self.role == Role::Owner).then_some(self.epoch)
    }

    /// Returns the sequence up to which the live copy has rows: its last change, or while it is rewound the last that is
    /// still to be undone.
    pub fn live_rows_end(&self) -> Sequence {
        let last = self.live.revision.sequence();
        self.rewind.map_or(last, |rewind| rewind.next.max(last))
    }

    /// Returns a fork by its number.
    pub fn fork(&self, number: u32) -> Option<&Fork> {
        self.forks.iter().find(|fork| fork.copy.number == number)
    }

    /// Returns the group that this group has handed the tenant over to, if it has.
    pub fn handed_over_to(&self) -> Option<GroupId> {
        match self.role {
            Role::Relinquished { to, .. } => Some(to),
            Role::Owner | Role::Follower { .. } | Role::Heir { .. } | Role::Frozen { .. } | Role::Erased => None,
        }
    }

    /// Returns the group that this group follows, if it follows one.
    pub fn home(&self) -> Option<GroupId> {
        match self.role {
            Role::Follower { home } | Role::Heir { home, .. } => Some(home),
            Role::Owner | Role::Relinquished { .. } | Role::Frozen { .. } | Role::Erased => None,
        }
    }

    /// Returns all copies of the record.
    pub fn copies(&self) -> impl Iterator<Item = &CopyState> {
        let forks = self.forks.iter().map(|fork| &fork.copy);
        let shadow = self.shadow.iter().map(|shadow| &shadow.state);
        std::iter::once(&self.live).chain(forks).chain(shadow)
    }

    /// Returns the attach session, if it has this home and number.
    pub fn session_of(&self, home: GroupId, number: AttachNumber) -> Option<AttachSession> {
        self.session
            .filter(|session| session.home == home && session.number == number)
    }

    /// Begins to move the tail of the live copy to a fork, after the copy's position was set to the fork point.
    pub(crate) fn begin_rewind(&mut self, number: u32, lacked_outcomes: bool) {
        let Some(fork) = self.fork(number) else { return };
        self.rewind = Some(Rewind {
            fork: number,
            next: fork.copy.revision.sequence(),
            lacks_outcomes: lacked_outcomes,
        });
    }

    /// Assigns the next copy number.
    pub(crate) fn next_copy(&mut self) -> u32 {
        self.copies += 1;
        self.copies
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn copy(time: u64, as_of: u64) -> CopyState {
        CopyState {
            time: TenantTime(time),
            as_of,
            ..CopyState::default()
        }
    }

    #[test]
    fn tenant_time_in_first_home_is_group_time() {
        let mut copy = copy(0, 0);
        assert_eq!(copy.move_time(1_000), TenantTime(1_000));
        assert_eq!(copy.time_at(5_000), TenantTime(5_000));
        assert_eq!((copy.move_time(5_000), copy.as_of), (TenantTime(5_000), 0));
    }

    #[test]
    fn tenant_time_after_faster_home_neither_leaps_nor_stops() {
        let mut copy = copy(101_000, 1_000);
        assert_eq!(copy.time_at(2_000), TenantTime(101_900), "nine tenths of what passes");
        assert_eq!((copy.move_time(2_000), copy.as_of), (TenantTime(101_900), 2_000));
        assert_eq!(
            (copy.move_time(2_000_000), copy.as_of),
            (TenantTime(2_000_000), 0),
            "they have met"
        );
    }

    proptest! {
        #[test]
        fn tenant_time_is_monotonic_and_converges_to_group_time(
            time in 1..1_000_000_u64,
            as_of in 1..1_000_000_u64,
            steps in prop::collection::vec(0..1_000_000_u64, 1..30),
        ) {
            let (mut copy, mut logged) = (copy(time, as_of), as_of);
            for passed in steps {
                let before = copy.time.0;
                logged += passed;
                let went = copy.move_time(logged).0 - before;
                prop_assert!((passed - passed / 10..=passed + passed / 10).contains(&went), "{went} of {passed}");
            }
            copy.move_time(logged + 10_000_000);
            prop_assert_eq!((copy.time.0, copy.as_of), (logged + 10_000_000, 0));
        }
    }
}
