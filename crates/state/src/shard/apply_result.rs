//! Results of applying the commands of a group's log. Every replica computes the same result for the same command.

use bytes::Bytes;
use stead_types::{Epoch, GroupId, Revision, TenantTime};

use super::{digest::DigestMismatch, read::ForkClass, replay::TouchedKey};
use crate::{lineage::LostRevisions, rows::change::Value};

/// Result of applying one command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ApplyResult {
    /// A write took effect, by this command or, for a repeat, by the first execution.
    Write(WriteResult),
    /// A transaction executed one of its branches, by this command or, for a repeat, by the first execution.
    Txn(TxnResult),
    /// A step of a transaction failed; nothing happened.
    TxnFailed {
        /// Whether the conditions held, which tells the branch.
        succeeded: bool,
        /// Index of the step in its branch.
        step: usize,
        /// Reason of the failure.
        failure: WriteFailure,
        /// State that the command was evaluated against.
        at: EvaluationPoint,
    },
    /// The response of a transaction would exceed its size limit; nothing happened.
    TxnTooLarge {
        /// Size of the response in bytes.
        len: u64,
        /// State that the command was evaluated against.
        at: EvaluationPoint,
    },
    /// Keys of a range were deleted, by this command or, for a repeat, by the first execution.
    DeleteRange(DeleteRangeResult),
    /// The write had no effect: a delete of a key that does not exist.
    Unchanged(EvaluationPoint),
    /// An increment would have passed its bound; nothing happened.
    BoundReached {
        /// Current value of the counter.
        number: i64,
        /// State that the command was evaluated against.
        at: EvaluationPoint,
    },
    /// The write cannot be applied to the key's value; nothing happened.
    ValueError {
        /// Reason of the failure.
        error: ValueError,
        /// State that the command was evaluated against.
        at: EvaluationPoint,
    },
    /// A precondition did not hold; nothing happened.
    ConditionFailed {
        /// Current revision of the key; zero if it does not exist.
        current: Revision,
        /// State that the command was evaluated against.
        at: EvaluationPoint,
    },
    /// A precondition names a revision that a promotion cut; nothing happened.
    Forked {
        /// Revisions that were cut.
        lost: LostRevisions,
        /// State that the command was evaluated against.
        at: EvaluationPoint,
    },
    /// The idempotency key was used for another request; nothing happened. Carries the state that it was evaluated
    /// against.
    KeyReused(EvaluationPoint),
    /// The idempotency key is outside the idempotency window: the write may have been executed and evicted; it was
    /// not executed.
    Expired {
        /// Lower edge of the client's idempotency window.
        edge: TenantTime,
        /// State that the command was evaluated against; its time is the tenant's.
        at: EvaluationPoint,
    },
    /// A command about ownership, feed, seed or retention floor took effect.
    Done,
    /// A change of a fork was written again, or it is said why not.
    Replay(ReplayResult),
    /// A batch of the feed was applied.
    Data(DataResult),
    /// The command's guard failed; nothing happened.
    GuardFailed(GuardFailure),
}

impl ApplyResult {
    /// Returns the state that the response to a caller's command depends on, also if it had no effect; `None` for
    /// other commands, and where this group is not the owner. A repeat depends on the state at the time of the
    /// repeat.
    pub fn evaluation_point(&self) -> Option<EvaluationPoint> {
        match self {
            Self::Write(written) => Some(written.evaluation_point()),
            Self::Txn(TxnResult { at, .. })
            | Self::TxnFailed { at, .. }
            | Self::TxnTooLarge { at, .. }
            | Self::DeleteRange(DeleteRangeResult { at, .. })
            | Self::Unchanged(at)
            | Self::BoundReached { at, .. }
            | Self::ValueError { at, .. }
            | Self::ConditionFailed { at, .. }
            | Self::Forked { at, .. }
            | Self::KeyReused(at)
            | Self::Expired { at, .. }
            | Self::Replay(ReplayResult { at, .. }) => Some(*at),
            Self::Done | Self::Data(_) | Self::GuardFailed(_) => None,
        }
    }
}

/// Result of a write that took effect.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriteResult {
    /// Revision of the change.
    pub revision: Revision,
    /// Current tenant time.
    pub time: TenantTime,
    /// Log index of [`EvaluationPoint::index`].
    pub index: u64,
    /// Version of the key before the write, if requested, present and, for a repeat, still in history.
    pub previous: Option<Version>,
    /// Whether the write is a repeat: it was executed before.
    pub repeated: bool,
    /// Value computed by an increment or append; for a repeat only while history has it.
    pub output: Option<WriteOutput>,
}

impl WriteResult {
    /// Returns the state that the response depends on; for a repeat the revision is that of the first execution.
    pub fn evaluation_point(&self) -> EvaluationPoint {
        EvaluationPoint {
            revision: self.revision,
            index: self.index,
            time: self.time,
        }
    }
}

/// Result of a transaction that was executed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TxnResult {
    /// State after the transaction: its own change, or the last one before it.
    pub at: EvaluationPoint,
    /// Whether it made a change.
    pub changed: bool,
    /// Whether its conditions held.
    pub succeeded: bool,
    /// One result for each step of the branch; `None` for a repeat that is no longer in history.
    pub results: Option<Vec<StepResult>>,
    /// Whether the transaction is a repeat: it was executed before.
    pub repeated: bool,
}

/// Result of a replay of one change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayResult {
    /// State after the replay: its own change, or the last one before it.
    pub at: EvaluationPoint,
    /// Class of the change before the replay.
    pub class: ForkClass,
    /// Outcome.
    pub outcome: ReplayOutcome,
    /// Its keys that somebody has changed since the fork point; where the change was written, they were replaced, or
    /// incremented or appended to.
    pub touched: Vec<TouchedKey>,
}

/// Outcome of the replay of a change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReplayOutcome {
    /// It was written again, at this revision.
    Written(Revision),
    /// It was there before, at this revision: nothing happened.
    Found(Revision),
    /// The replay does not allow its class: nothing happened.
    Left,
    /// There was nothing to write: it deleted keys that do not exist.
    Nothing,
    /// It cannot be applied to what is there: nothing happened.
    Failed(WriteFailure),
    /// The tenant remembers as many replays as it may: nothing happened.
    NoRoom,
}

/// Result of one step of a transaction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StepResult {
    /// A get: the key as it was before the transaction.
    Get(Option<Version>),
    /// A write.
    Write {
        /// Whether it had an effect; a delete of a missing key has none.
        changed: bool,
        /// Version of the key before the transaction, if requested and present.
        previous: Option<Version>,
        /// Value computed by an increment or append.
        output: Option<WriteOutput>,
    },
}

/// Reason why a write cannot be applied.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteFailure {
    /// An increment would have passed its bound. Carries the current value of the counter.
    BoundReached(i64),
    /// The write does not fit the key's current value.
    Value(ValueError),
}

/// Result of one step of a range deletion.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRangeResult {
    /// State after the deletion: its own change, or the last one before it if nothing was deleted.
    pub at: EvaluationPoint,
    /// Number of keys deleted.
    pub keys: u64,
    /// First key of the next command, if the range may hold more.
    pub next: Option<Bytes>,
    /// Whether the deletion is a repeat: it was executed before; `next` is the start of the range then.
    pub repeated: bool,
}

/// Value that an increment or append computed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WriteOutput {
    /// New value of the counter after an increment.
    Number(i64),
    /// New length of the value after an append.
    Length(u64),
}

/// Reason why a write does not fit the key's current value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ValueError {
    /// The value to increment is not a decimal number.
    NotANumber,
    /// The sum does not fit into 64 bits.
    Overflow {
        /// Current value of the counter.
        number: i64,
    },
    /// The value would exceed its length limit.
    TooLong {
        /// Current length of the value.
        len: u64,
    },
    /// The transaction would exceed the size limit of one change.
    ChangeTooLong {
        /// Bytes of keys and values so far, this one included.
        len: u64,
    },
}

/// State that a command or read was evaluated against, and that its response depends on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct EvaluationPoint {
    /// Last change of the tenant: the command's own, if it made one.
    pub revision: Revision,
    /// Index of that change in the group's log, zero before the first: the response waits until this entry is
    /// durable.
    pub index: u64,
    /// Tenant time.
    pub time: TenantTime,
}

/// MVCC version of a key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// Revision of the change that wrote it.
    pub revision: Revision,
    /// Content of the version.
    pub value: Value,
}

/// Result of applying one feed batch to a follower's copy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DataResult {
    /// Last change of the copy.
    pub revision: Revision,
    /// Reason for detaching the tenant, if the batch detached it.
    pub detached: Option<DetachReason>,
}

/// Reason for detaching a tenant from its feed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DetachReason {
    /// Records before the batch are missing.
    Gap,
    /// A digest differs from the home's.
    DigestMismatch(DigestMismatch),
}

/// Guard of a command that failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum GuardFailure {
    /// This group has no record of the tenant.
    NoRecord,
    /// This group has a record of the tenant already.
    HasRecord,
    /// This group is not the owner; `to` is, if this group handed the tenant over.
    NotOwner {
        /// The heir that the tenant was handed over to.
        to: Option<GroupId>,
    },
    /// This group is not a follower of that home.
    NotFollower,
    /// The move or promotion makes another group the home.
    NotTarget,
    /// This group is not heir of that move, or it has refused the move.
    OtherOperation,
    /// This group is not frozen for that promotion.
    NotFrozen,
    /// The copy was rewound, and its idempotency windows are not complete again.
    IncompleteWindows,
    /// The epoch is not above, or not equal to, the record's.
    Epoch {
        /// Epoch of the record.
        epoch: Epoch,
        /// Highest epoch promised.
        promised: Epoch,
    },
    /// The command was derived from an older directory view than the record has seen.
    OlderView,
    /// The copy has not reached the position, or has passed it.
    Position {
        /// Current position of the copy.
        revision: Revision,
    },
    /// The copy's history differs from the home's.
    Diverged,
    /// A digest of the copy differed from the home's before: the copy is not updated until it is seeded again.
    Suspect,
    /// A digest of the copy that was to be swapped in, or to take over, differs from the home's.
    DigestMismatch(DigestMismatch),
    /// The attach number is not that of the record's session, or the session is over.
    Session,
    /// No seed is under way, another one is, or chunks are missing.
    Seed,
    /// The command would delete forks that it does not name.
    HoldsForks,
    /// The live copy is being rewound: the command may be proposed again once that has ended.
    Rewinding,
    /// This group holds no fork of that number.
    UnknownFork,
    /// The offset is not above the current one.
    Offset,
    /// The tenant has used up its sequences.
    SequencesExhausted,
}
