//! What applying a command came to. Every replica computes the same.

use bytes::Bytes;
use stead_types::{Epoch, GroupId, Revision, Sequence, TenantTime};

use super::digest::Differs;
use crate::rows::change::Value;

/// The answer to one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// A write took effect, now or, if it is a repeat, the first time.
    Written(Written),
    /// A transaction did one of its branches, now or, if it is a repeat, the first time.
    Txn(TxnDone),
    /// A step of a transaction cannot be done; nothing happened.
    TxnRefused {
        /// Which branch.
        held: bool,
        /// Which of its steps.
        step: usize,
        /// Why.
        why: Refusal,
        /// Where it was evaluated.
        at: Evaluated,
    },
    /// The answer of a transaction would be this long; nothing happened.
    TxnTooLarge {
        /// In bytes.
        len: u64,
        /// Where it was evaluated.
        at: Evaluated,
    },
    /// Keys of a range are gone, now or, if it is a repeat, the first time.
    RangeDeleted(RangeDeleted),
    /// A write had nothing to do: a delete of what is not there.
    Unchanged(Evaluated),
    /// An increment would have passed its bound; nothing happened.
    BoundReached {
        /// The number as it is.
        number: i64,
        /// Where it was evaluated.
        at: Evaluated,
    },
    /// What the key holds does not admit the write; nothing happened.
    Unfit {
        /// Why.
        why: Unfit,
        /// Where it was evaluated.
        at: Evaluated,
    },
    /// A precondition did not hold; nothing happened.
    ConditionFailed {
        /// The key's revision now; zero if it does not exist.
        current: Revision,
        /// Where it was evaluated.
        at: Evaluated,
    },
    /// A precondition names a revision that a promotion cut; nothing happened.
    Forked {
        /// The epoch that was cut.
        epoch: Epoch,
        /// The last sequence of it that was kept.
        kept: Sequence,
        /// Where it was evaluated.
        at: Evaluated,
    },
    /// The idempotency key was used for another request; nothing happened. Where it was evaluated.
    KeyReused(Evaluated),
    /// The write may have been executed and forgotten; it was not executed.
    Expired {
        /// The window's lower edge.
        edge: TenantTime,
        /// Where it was evaluated; its time is the tenant's.
        at: Evaluated,
    },
    /// A command about ownership, feed, seed or floor took effect.
    Done,
    /// A batch of the feed was taken in.
    Fed(Fed),
    /// The guard failed; nothing happened.
    Void(Void),
}

impl Answer {
    /// Returns what the answer to a caller's command depends on, also if it had no effect; `None` for other commands,
    /// and where this group is not the owner. A repeat depends on all that was there when it was answered.
    pub fn evaluated(&self) -> Option<Evaluated> {
        match self {
            Self::Written(written) => Some(written.evaluated()),
            Self::Txn(TxnDone { at, .. })
            | Self::TxnRefused { at, .. }
            | Self::TxnTooLarge { at, .. }
            | Self::RangeDeleted(RangeDeleted { at, .. })
            | Self::Unchanged(at)
            | Self::BoundReached { at, .. }
            | Self::Unfit { at, .. }
            | Self::ConditionFailed { at, .. }
            | Self::Forked { at, .. }
            | Self::KeyReused(at)
            | Self::Expired { at, .. } => Some(*at),
            Self::Done | Self::Fed(_) | Self::Void(_) => None,
        }
    }
}

/// A write that took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Written {
    /// The change.
    pub revision: Revision,
    /// The tenant's time now.
    pub time: TenantTime,
    /// As of [`Evaluated::index`].
    pub index: u64,
    /// The version before, if it was asked for, there was one and, for a repeat, it is still kept.
    pub previous: Option<Version>,
    /// Whether it had been executed before.
    pub repeated: bool,
    /// What became of the key, where that is answered and, for a repeat, still kept.
    pub made: Option<Made>,
}

impl Written {
    /// Returns what the answer depends on; of a repeat, the revision is the first outcome's.
    pub fn evaluated(&self) -> Evaluated {
        Evaluated {
            revision: self.revision,
            index: self.index,
            time: self.time,
        }
    }
}

/// A transaction that was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnDone {
    /// Its change, or the last one before it.
    pub at: Evaluated,
    /// Whether it made a change.
    pub changed: bool,
    /// Whether its conditions held.
    pub held: bool,
    /// One for each step of the branch; `None` for a repeat of what is no longer kept.
    pub results: Option<Vec<StepResult>>,
    /// Whether it had been executed before.
    pub repeated: bool,
}

/// What a step of a transaction came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepResult {
    /// A get: the key as it was before the transaction.
    Got(Option<Version>),
    /// A write.
    Wrote {
        /// Whether it had an effect; a delete of what is not there has none.
        changed: bool,
        /// The version before, if it was asked for and there was one.
        previous: Option<Version>,
        /// What became of the key, where that is answered.
        made: Option<Made>,
    },
}

/// Why a write cannot be done as things are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// An increment would have passed its bound. The number as it is.
    BoundReached(i64),
    /// What the key holds does not admit it.
    Unfit(Unfit),
}

/// Keys of a range that are gone.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RangeDeleted {
    /// The change, or where there was nothing to remove the last one before.
    pub at: Evaluated,
    /// How many were removed.
    pub keys: u64,
    /// Where the next command goes on, if there may be more.
    pub next: Option<Bytes>,
    /// Whether it had been executed before; `next` is the range's own beginning then.
    pub repeated: bool,
}

/// What a write made of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Made {
    /// An increment: this number.
    Number(i64),
    /// An append: a value of this length.
    Length(u64),
}

/// Why what a key holds does not admit a write.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It is to be incremented, and holds no number.
    NotANumber,
    /// The sum is beyond 64 bits.
    Overflow {
        /// The number as it is.
        number: i64,
    },
    /// It would become longer than it may.
    TooLong {
        /// Its length now.
        len: u64,
    },
    /// With it a transaction would change more than one change can.
    ChangeTooLong {
        /// The bytes of keys and values so far, it included.
        len: u64,
    },
}

/// What an answer is evaluated against, and so depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Evaluated {
    /// The tenant's last change: the command's own, if it made one.
    pub revision: Revision,
    /// Where that change stands in the group's log, zero before the first: the answer waits until this is durable.
    pub index: u64,
    /// The tenant's time.
    pub time: TenantTime,
}

/// One version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The change that made it.
    pub revision: Revision,
    /// What it holds.
    pub value: Value,
}

/// How far a follower's copy is after a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Fed {
    /// The copy's last change.
    pub revision: Revision,
    /// Whether the tenant was detached by it, and why.
    pub detached: Option<Detached>,
}

/// Why a tenant was detached from its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Detached {
    /// Records are missing before the batch.
    Gap,
    /// A digest differs from the home's.
    DigestDiffers(Differs),
}

/// Which guard failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Void {
    /// This group has no record of the tenant.
    NoRecord,
    /// This group has a record of the tenant already.
    HasRecord,
    /// Not the owner; `to` has it, where this group handed it over.
    NotOwner {
        /// The heir it was handed to.
        to: Option<GroupId>,
    },
    /// Not a follower of that home.
    NotFollower,
    /// The epoch is not above, or not equal to, what the record has.
    Epoch {
        /// The record's epoch.
        epoch: Epoch,
        /// The highest epoch promised.
        promised: Epoch,
    },
    /// Derived from an older view than the record has seen.
    OlderView,
    /// The copy has not reached the position, or has passed it.
    Position {
        /// Where it is.
        revision: Revision,
    },
    /// The copy's history is not the home's.
    Diverged,
    /// The copy's digest differed from the home's before: it takes nothing in until it is seeded anew.
    Suspect,
    /// A digest of the copy that was built differs from the home's.
    DigestDiffers(Differs),
    /// Of another attempt to attach than the record's, or of one that is over.
    Session,
    /// No seed is under way, or another one, or its chunks are not all there.
    Seed,
    /// Forks would be lost that were not named.
    HoldsForks,
    /// The offset is not above the one that is there.
    Offset,
    /// The tenant has used up its sequences.
    Exhausted,
}
