//! A tenant's record in a group's log: who may write, what the group has promised, and where its copies stand.

use stead_types::{ClientId, DirectoryVersion, Epoch, GroupId, Revision, Sequence, TenantTime};

use super::{answer::Evaluated, clients::Clients, command::WindowPart, digest::Digests};
use crate::{lineage::Lineage, logged_time::tenant_time};

/// Counts the operations (moves, promotions) of a tenant; never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct OperationId(pub u64);

/// Counts a group's attempts to attach a tenant to its home's stream: it grows with each, and none is reused, so that
/// what belongs to an earlier attempt is told from the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct AttachNumber(pub u64);

impl AttachNumber {
    /// Returns the number of the next attempt.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// Counts the copies of a tenant that a group has begun to build: it grows with each, and none is reused, so that a
/// chunk of an earlier one is told from those of the present one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct SeedNumber(pub u64);

impl SeedNumber {
    /// Returns the number of the next seed.
    #[must_use]
    pub fn next(self) -> Self {
        Self(self.0 + 1)
    }
}

/// What a group is to a tenant. The words are PROTOCOL's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// May write, in the record's epoch.
    Owner,
    /// Holds an asynchronous copy.
    Follower {
        /// Whom it follows.
        home: GroupId,
    },
    /// A follower that is ready to take over.
    Heir {
        /// Whom it follows.
        home: GroupId,
        /// The move.
        operation: OperationId,
        /// The epoch that it would own.
        epoch: Epoch,
    },
    /// Has handed the tenant over; the baton is derived from this.
    Relinquished {
        /// The move.
        operation: OperationId,
        /// The heir.
        to: GroupId,
        /// The epoch handed over.
        epoch: Epoch,
        /// The last change of the epoch before.
        last: Revision,
    },
    /// Takes part in a promotion.
    Frozen {
        /// The promotion.
        operation: OperationId,
        /// The epoch it is frozen for.
        epoch: Epoch,
        /// What it was.
        was: Was,
    },
    /// Has left the replica set; its rows are gone or going.
    Erased,
}

/// What a frozen group was before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Was {
    /// The owner.
    Owner,
    /// A follower or an heir.
    Follower,
    /// A source that had handed over to this group.
    Relinquished(GroupId),
    /// No member.
    None,
}

/// What an owner does without a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Default)]
pub enum OnLeaseLoss {
    /// Stops: a split brain is impossible.
    #[default]
    Stop,
    /// Goes on, marking its answers, until anything shows a higher epoch.
    Continue,
}

/// Where one copy of the data stands. Equal in all replicas but for `trimmed`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CopyState {
    /// The copy's number.
    pub number: u32,
    /// The last change.
    pub revision: Revision,
    /// Where the entry that made it stands in this group's log, zero before the first: what an answer from this copy
    /// depends on until that entry is durable elsewhere.
    pub index: u64,
    /// The tenant's logged clock.
    pub time: TenantTime,
    /// Where the group's logged time stood when the tenant's stood at `time`, while the two differ: the tenant came from
    /// another group. Zero where they do not.
    pub as_of: u64,
    /// What its live keys and remembered outcomes come to.
    pub digests: Digests,
    /// Live keys.
    pub keys: u64,
    /// Bytes of live keys and their values.
    pub len: u64,
    /// Versions below it may be gone; the version as of it is kept.
    pub floor: Revision,
    /// The latest tenant time of an outcome of a client that is no longer kept; zero before the first.
    pub edge: TenantTime,
    /// Deletes up to here are no current versions any more: follows the floor, a bounded step with each entry.
    pub swept: Sequence,
    /// How far this node has removed versions that were swept: its own progress, in no other replica's interest.
    pub trimmed: Sequence,
}

impl CopyState {
    /// Returns what an answer from this copy depends on.
    pub fn evaluated(&self) -> Evaluated {
        Evaluated {
            revision: self.revision,
            index: self.index,
            time: self.time,
        }
    }

    /// Returns the owner's tenant time, when its group's logged time stands there. It never goes back.
    pub fn time_at(&self, logged: u64) -> TenantTime {
        if self.as_of == 0 {
            return self.time.max(TenantTime(logged));
        }
        TenantTime(tenant_time(self.time.0, self.as_of, logged))
    }

    /// Moves the owner's tenant time to where it is then, and returns it.
    pub(crate) fn move_time(&mut self, logged: u64) -> TenantTime {
        self.time = self.time_at(logged);
        // Once they have met they go on together.
        let differs = self.as_of != 0 && self.time.0 != logged;
        self.as_of = if differs { logged.max(self.as_of) } else { 0 };
        self.time
    }
}

/// A copy being seeded beside the live one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shadow {
    /// Where it stands; its revision is that of the last feed record, the seed's first revision before it.
    pub state: CopyState,
    /// The seed that builds it: chunks of another one are void.
    pub number: SeedNumber,
    /// The first revision: chunks bring what is at or below it, the feed what is above.
    pub seed: Revision,
    /// Chunks have brought all changes up to here.
    pub loaded: Sequence,
    /// The ranges of clients that chunks have brought, in order; the last one ends at the highest id.
    pub clients: Vec<ClientRange>,
    /// The highest revision at which a chunk was read: the shadow is whole from there on.
    pub read_at: Revision,
}

/// Clients whose windows a chunk has brought: those above the range before, up to `up_to`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClientRange {
    /// The last client of the range.
    pub up_to: ClientId,
    /// Outcomes up to this revision are in the chunk; later ones come by the feed.
    pub read_at: Revision,
}

/// Which windows of a copy being seeded have been brought.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ClientsLoaded {
    /// Those of all clients up to this one, whole.
    pub whole: Option<ClientId>,
    /// Of a client behind it the outcomes up to this revision.
    pub part: Option<(ClientId, Revision)>,
}

impl ClientsLoaded {
    /// Tells whether nothing is lacking.
    pub fn is_all(&self) -> bool {
        self.whole == Some(ClientId(u128::MAX))
    }

    /// Returns what is loaded once a chunk that was read behind this has been taken in.
    pub fn and(self, up_to: Option<ClientId>, parts: &[WindowPart]) -> Self {
        let behind = |part: &&WindowPart| up_to.is_none_or(|up_to| up_to < part.client);
        let part = parts.last().filter(behind).and_then(|part| {
            let last = part.outcomes.last().map(|outcome| outcome.revision);
            let before = self.part.filter(|(client, _)| *client == part.client);
            Some((part.client, last.or(before.map(|(_, revision)| revision))?))
        });
        Self { whole: up_to, part }
    }
}

impl Shadow {
    /// Tells whether all chunks have come and the feed has reached what they were read at.
    pub fn is_whole(&self) -> bool {
        self.has_all_clients() && self.loaded >= self.seed.sequence() && self.state.revision >= self.read_at
    }

    /// Returns the last client whose window has been brought, whole.
    fn clients_loaded_to(&self) -> Option<ClientId> {
        self.clients.last().map(|range| range.up_to)
    }

    /// Returns which windows have been brought; these are the ones that are held.
    pub fn loaded_clients(&self, clients: &Clients) -> ClientsLoaded {
        let whole = self.clients_loaded_to();
        // What the feed brings begins no window behind the ranges that are loaded.
        let part = clients.partial_behind(whole);
        ClientsLoaded { whole, part }
    }

    /// Tells whether the windows of all clients have been brought.
    pub fn has_all_clients(&self) -> bool {
        self.clients_loaded_to() == Some(ClientId(u128::MAX))
    }

    /// Tells whether the windows that were brought lack what this change did to a client: it is not in them, and it
    /// was made after they were read.
    pub(crate) fn must_remember(&self, client: ClientId, revision: Revision) -> bool {
        let at = self.clients.partition_point(|range| range.up_to < client);
        self.clients.get(at).is_some_and(|range| range.read_at < revision)
    }
}

/// One attempt to attach a tenant to its home's stream: from its beginning on the stream brings the tenant's records,
/// and once it is attached the stream's offset speaks for the tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Session {
    /// The home group.
    pub home: GroupId,
    /// The home group's incarnation.
    pub incarnation: stead_types::Incarnation,
    /// The epoch of the session.
    pub epoch: Epoch,
    /// Which attempt it is: records, attach and detach of another one are void.
    pub number: AttachNumber,
    /// Whether the attempt has succeeded.
    pub attached: bool,
}

/// Revisions that were cut off, kept as a whole copy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fork {
    /// The copy as it stood.
    pub copy: CopyState,
    /// The lineage it belongs to.
    pub lineage: Lineage,
    /// Everything above this sequence was cut.
    pub point: Sequence,
}

/// What an owner took over by a baton.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Accepted {
    /// The last change of the epoch before.
    pub revision: Revision,
    /// The digests there.
    pub digests: Digests,
}

/// A tenant's record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// What this group is to the tenant.
    pub role: Role,
    /// The epoch owned or followed.
    pub epoch: Epoch,
    /// The highest epoch followed, accepted, frozen for or owned; never decreases.
    pub promised: Epoch,
    /// The highest view version that an entry about ownership was derived from. An entry with an older one is void;
    /// entries of the feed compare theirs and do not raise it.
    pub view_version: DirectoryVersion,
    /// The revisions that this group's history belongs to.
    pub lineage: Lineage,
    /// Moves up to this one are refused.
    pub refused_up_to: OperationId,
    /// In force while this group owns.
    pub policy: OnLeaseLoss,
    /// Members whose acknowledgements do not count.
    pub uncounted: Vec<GroupId>,
    /// What was taken over by a baton, if the epoch began with one.
    pub accepted: Option<Accepted>,
    /// The number of the last attempt to attach.
    pub attach: AttachNumber,
    /// The attempt that is under way or has succeeded, until anything ends it.
    pub session: Option<Session>,
    /// A digest differed from the home's: not served, not acknowledged, until seeded anew.
    pub suspect: bool,
    /// The copy that is served.
    pub live: CopyState,
    /// The number of the last seed.
    pub seeds: SeedNumber,
    /// The copy being seeded.
    pub shadow: Option<Shadow>,
    /// What was cut off.
    pub forks: Vec<Fork>,
    /// The highest copy number given out.
    pub copies: u32,
}

impl Record {
    /// Returns the record of a tenant that this group knows nothing of.
    pub fn unknown() -> Self {
        Self {
            role: Role::Erased,
            epoch: Epoch::NONE,
            promised: Epoch::NONE,
            view_version: DirectoryVersion::ZERO,
            lineage: Lineage::default(),
            refused_up_to: OperationId::default(),
            policy: OnLeaseLoss::Stop,
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
        }
    }

    /// Returns the record without what each replica does at its own time.
    pub(crate) fn without_own_progress(&self) -> Self {
        let mut record = self.clone();
        let shadow = record.shadow.as_mut().map(|shadow| &mut shadow.state);
        let forks = record.forks.iter_mut().map(|fork| &mut fork.copy);
        for copy in forks.chain(shadow).chain([&mut record.live]) {
            copy.trimmed = Sequence::ZERO;
        }
        record
    }

    /// Returns the epoch owned, if this group owns.
    pub fn owned(&self) -> Option<Epoch> {
        (self.role == Role::Owner).then_some(self.epoch)
    }

    /// Returns whom this group follows, if it follows.
    pub fn home(&self) -> Option<GroupId> {
        match self.role {
            Role::Follower { home } | Role::Heir { home, .. } => Some(home),
            Role::Owner | Role::Relinquished { .. } | Role::Frozen { .. } | Role::Erased => None,
        }
    }

    /// Returns all copies that the record names.
    pub fn copies(&self) -> impl Iterator<Item = &CopyState> {
        let forks = self.forks.iter().map(|fork| &fork.copy);
        let shadow = self.shadow.iter().map(|shadow| &shadow.state);
        std::iter::once(&self.live).chain(forks).chain(shadow)
    }

    /// Returns the attempt to attach that is under way or has succeeded, if it is this one.
    pub fn session_of(&self, home: GroupId, number: AttachNumber) -> Option<Session> {
        self.session
            .filter(|session| session.home == home && session.number == number)
    }

    /// Gives out the next copy number.
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
    fn tenant_of_one_home_has_its_groups_time() {
        let mut copy = copy(0, 0);
        assert_eq!(copy.move_time(1_000), TenantTime(1_000));
        assert_eq!(copy.time_at(5_000), TenantTime(5_000));
        assert_eq!((copy.move_time(5_000), copy.as_of), (TenantTime(5_000), 0));
    }

    #[test]
    fn tenant_that_came_from_a_faster_home_neither_leaps_nor_stands() {
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
        fn tenant_time_never_goes_back_and_comes_to_its_groups(
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
