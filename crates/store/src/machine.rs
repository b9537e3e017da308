//! Replicated state machine as Raft sees it: entries in, command results out, and snapshots.
//!
//! `raft` drives a machine and knows nothing of its state; the machine knows nothing of terms or leaders. The state
//! that Raft needs after a restart (the id of the last applied entry, the membership) travels through the machine as
//! opaque bytes, so that it is durable in the same batch as the rows.
//!
//! # Invariants
//!
//! 1. [`Machine::applied`] after opening is [`Machine::durable`]: later entries are applied again from the log.
//! 2. The log is never purged past [`Machine::durable`].
//! 3. An entry is applied as a whole or the machine fails for good: its memory is never read or made durable then.
//!    Opened again, it is at its last checkpoint.
//! 4. Entries are applied in the order of their indexes, none twice and none left out; one out of order fails the
//!    machine.

use bytes::Bytes;

use crate::digests::StateDigest;

/// Raft's state that is stored with the rows: the last applied entry and the membership.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AppliedState {
    /// Index of the last applied entry; zero before the first.
    pub index: u64,
    /// Raft's id of that entry, opaque here; empty before the first.
    pub log_id: Bytes,
    /// Raft's membership as of that entry, opaque here; empty before the first.
    pub membership: Bytes,
    /// The group's logged time there, in milliseconds since 1970; zero before the first entry that has one.
    pub time: u64,
}

/// Error for an entry out of order: its predecessor is missing, or it was applied already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} is out of order: the last applied entry is {applied}")]
pub struct EntryOutOfOrder {
    /// Index of the last applied entry.
    pub applied: u64,
    /// Index of the entry that came.
    pub index: u64,
}

impl AppliedState {
    /// Checks that this is the index of the next entry.
    pub(crate) fn check_next(&self, index: u64) -> Result<(), MachineError> {
        let applied = self.index;
        if applied.checked_add(1) == Some(index) {
            return Ok(());
        }
        Err(MachineError {
            doing: "applying an entry",
            source: Box::new(EntryOutOfOrder { applied, index }),
        })
    }
}

/// Committed entry of the log, ready to be applied.
#[derive(Clone, Debug)]
pub struct CommittedEntry {
    /// Its index; each is one above the last.
    pub index: u64,
    /// Raft's id of the entry.
    pub log_id: Bytes,
    /// Its payload.
    pub payload: Payload,
}

/// Payload of a committed entry.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Nothing: a new leader's first entry.
    Blank,
    /// A new membership, opaque here.
    Membership(Bytes),
    /// Commands, framed by `state::codec`.
    Commands(Bytes),
}

/// Fatal error of a state machine; the node must stop.
#[derive(Debug, thiserror::Error)]
#[error("the state machine failed: {doing}")]
pub struct MachineError {
    /// The operation that failed.
    pub doing: &'static str,
    /// The cause.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// Chunks of a snapshot in their order, each at most [`CHUNK_LEN_MAX`] bytes.
pub type Chunks = Box<dyn Iterator<Item = Result<Bytes, MachineError>> + Send>;

/// Largest chunk of a snapshot, in bytes. Rows span chunks, so that none is too long.
pub const CHUNK_LEN_MAX: usize = 256 << 10;

/// Snapshot of a machine's state between two entries.
pub struct Snapshot {
    /// Position of the snapshot: everything up to this entry, nothing after it.
    pub applied: AppliedState,
    /// The state as it was there, read while further entries are applied, whatever they change or erase. Ends with an
    /// error if a row cannot be read, or the machine has failed meanwhile.
    pub chunks: Chunks,
}

/// Replicated state machine of one group. `dyn Machine` is for those that do not apply entries: it has no results.
pub trait Machine: Send + Sync {
    /// Result of one command, the same in every replica.
    type CommandResult: Send + 'static
    where
        Self: Sized;

    /// Returns the applied state.
    fn applied(&self) -> AppliedState;

    /// Returns the state as of which the rows are durable.
    fn durable(&self) -> AppliedState;

    /// Applies entries in their order and returns, for each, the result of each of its commands.
    fn apply(&self, entries: Vec<CommittedEntry>) -> Result<Vec<Vec<Self::CommandResult>>, MachineError>
    where
        Self: Sized;

    /// Writes a checkpoint of what has been applied and returns when it is durable; applying continues meanwhile.
    fn checkpoint(&self) -> Result<(), MachineError>;

    /// Tells whether the disk has room for a checkpoint.
    fn has_checkpoint_room(&self) -> bool {
        true
    }

    /// Takes a snapshot of the current state.
    fn snapshot(&self) -> Result<Snapshot, MachineError>;

    /// Installs a snapshot in place of the whole state and returns when the new state is durable.
    fn install(&self, snapshot: Snapshot) -> Result<(), MachineError>;

    /// Returns the recent digests of the state, in the order of their entries; none if the machine takes none.
    fn digests(&self) -> Vec<StateDigest> {
        Vec::new()
    }
}
