//! State and actions of the replica model.

use bytes::Bytes;
use stead_state::shard::{
    command::{ChunkContent, Create, Follow},
    record::{LeaseLossPolicy, Role, SeedNumber},
};
use stead_types::{DirectoryVersion, Epoch, GroupId, Incarnation, Revision, TenantTime};

use super::{
    Bounds,
    group::{Group, TENANT},
};

/// Version of every view.
pub(super) const VERSION: DirectoryVersion = DirectoryVersion {
    incarnation: Incarnation::FIRST,
    index: 1,
};
/// Logged time of the home at first; the follower's clock is behind.
const HOME_TIME: u64 = 1_000_000;
const FOLLOWER_TIME: u64 = 400_000;

/// State of the model.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct State {
    /// The home, then the source of the move.
    pub home: Group,
    /// The follower, then the owner.
    pub follower: Group,
    /// Time that has passed, in milliseconds.
    pub passed: u64,
    /// Writes of the script that were sent.
    pub sent: Vec<Sent>,
    /// Repeats so far.
    pub repeats: u8,
    /// Pauses so far.
    pub pauses: u8,
    /// Chunk in flight.
    pub chunk: Option<InFlight>,
    /// Observations of a client outside.
    pub seen: Observed,
}

/// Chunk of a seed in flight.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InFlight {
    /// The seed.
    pub number: SeedNumber,
    /// Revision at which it was read.
    pub read_at: Revision,
    /// Its content.
    pub part: ChunkContent,
    /// Its encoding, by which chunks are compared.
    pub encoded: Bytes,
}

impl std::hash::Hash for InFlight {
    fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
        self.encoded.hash(state);
    }
}

/// Write that was sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Sent {
    /// Its stamp: the highest tenant time that its client had seen.
    pub stamp: TenantTime,
    /// Revision of its execution, if it was executed.
    pub revision: Option<Revision>,
}

/// Observations of a client outside.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Observed {
    /// Highest tenant time in an answer to each client.
    pub times: [TenantTime; 2],
    /// Highest tenant time in any answer.
    pub latest: TenantTime,
    /// Whether a write was executed twice.
    pub twice: bool,
    /// Whether a repeat was answered otherwise than the first attempt.
    pub differs: bool,
    /// Whether tenant time went back.
    pub back: bool,
    /// Whether a promise or a view version became lower.
    pub lower: bool,
    /// Whether a seed was swapped in.
    pub swapped: bool,
    /// Whether a repeat was refused.
    pub refused: bool,
}

/// One step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Action {
    /// The next write of the script is sent to the owner.
    Send,
    /// A write is sent again.
    Repeat(u8),
    /// Time passes.
    Pause,
    /// The follower begins an attempt to attach.
    Begin,
    /// The follower's attempt succeeds.
    Attach,
    /// The follower applies the next change.
    Feed,
    /// The follower begins a seed.
    Seed,
    /// The home reads the next chunk: of changes, or of windows.
    Read(bool),
    /// The follower loads the chunk.
    Load,
    /// The follower swaps the seeded copy in.
    Swap,
    /// The home hands over and the follower accepts.
    Move,
}

impl State {
    /// Returns the first state: the home owns the tenant, the follower follows it and holds nothing.
    pub fn first(_: &Bounds) -> Self {
        let (mut home, mut follower) = (Group::new(GroupId::new(1)), Group::new(GroupId::new(2)));
        let create = Create {
            tenant: TENANT,
            version: VERSION,
            policy: LeaseLossPolicy::Stop,
        };
        home.apply(HOME_TIME, create.encode());
        let follow = Follow {
            tenant: TENANT,
            version: VERSION,
            home: home.id(),
            epoch: Epoch::FIRST,
            lineage: home.record().lineage,
        };
        follower.apply(FOLLOWER_TIME, follow.encode());
        Self {
            home,
            follower,
            passed: 0,
            sent: Vec::new(),
            repeats: 0,
            pauses: 0,
            chunk: None,
            seen: Observed::default(),
        }
    }

    /// Returns the home's logged time.
    pub fn home_time(&self) -> u64 {
        HOME_TIME + self.passed
    }

    /// Returns the follower's logged time.
    pub fn follower_time(&self) -> u64 {
        FOLLOWER_TIME + self.passed
    }

    /// Tells whether the follower has taken over.
    pub fn has_moved(&self) -> bool {
        self.follower.record().role == Role::Owner
    }

    /// F1: tells whether the two copies are equal where they are at one revision.
    pub fn copies_agree(&self) -> bool {
        let (home, follower) = (self.home.record(), self.follower.record());
        if home.live.revision != follower.live.revision {
            return true;
        }
        let (home_shard, follower_shard) = (self.home.shard(), self.follower.shard());
        let home_reads = home_shard.reading(self.home.rows(), TENANT);
        let follower_reads = follower_shard.reading(self.follower.rows(), TENANT);
        let (Some(home_reads), Some(follower_reads)) = (home_reads, follower_reads) else {
            return true;
        };
        let same = |key: u8| {
            let key = [b'k', key];
            let value = |version: Option<stead_state::shard::apply_result::Version>| {
                version.map(|version| (version.value.clone(), version.revision))
            };
            let one = home_reads.get(&key, None).ok().map(value);
            let other = follower_reads.get(&key, None).ok().map(value);
            one == other
        };
        home.live.digests.keys == follower.live.digests.keys && (0..4).all(same)
    }
}
