//! A replicated state machine as Raft sees it: entries in, answers out, and a snapshot now and then.
//!
//! `raft` drives a machine and knows nothing of what it holds; the machine knows nothing of terms or leaders. What
//! Raft must find again after a restart (the id of the last applied entry, the membership) travels through the machine
//! as opaque bytes, so that it is durable in the same batch as the rows.
//!
//! # Invariants
//!
//! 1. [`Machine::applied`] after opening is [`Machine::durable`]: what was applied later is applied again from the log.
//! 2. The log is never purged past [`Machine::durable`].
//! 3. An entry is applied as a whole or the machine fails for good: what is in memory is never read or made durable
//!    then. Opened again, it is at its last checkpoint.
//! 4. Entries are applied in the order of their indexes, none twice and none left out; one out of turn fails the machine.

use std::any::Any;

use bytes::Bytes;

use crate::digests::StateDigest;

/// What Raft remembers with the rows.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Applied {
    /// Index of the last applied entry; zero before the first.
    pub index: u64,
    /// Raft's id of that entry, opaque here; empty before the first.
    pub log_id: Bytes,
    /// Raft's membership as of that entry, opaque here; empty before the first.
    pub membership: Bytes,
    /// The group's logged time there, in milliseconds since 1970; zero before the first entry that has one.
    pub time: u64,
}

/// An entry came out of turn: the one that should have come before it is missing, or was applied already.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("entry {index} was to be applied behind entry {applied}")]
pub struct OutOfTurn {
    /// Index of the last applied entry.
    pub applied: u64,
    /// Index of the entry that came.
    pub index: u64,
}

impl Applied {
    /// Fails unless this is the index of the next entry.
    pub(crate) fn check_next(&self, index: u64) -> Result<(), Failed> {
        let applied = self.index;
        if applied.checked_add(1) == Some(index) {
            return Ok(());
        }
        Err(Failed {
            doing: "applying an entry",
            source: Box::new(OutOfTurn { applied, index }),
        })
    }
}

/// A committed entry.
#[derive(Clone, Debug)]
pub struct Committed {
    /// Its index; each is one above the last.
    pub index: u64,
    /// Raft's id of the entry.
    pub log_id: Bytes,
    /// What it carries.
    pub payload: Payload,
}

/// What a committed entry carries.
#[derive(Clone, Debug)]
pub enum Payload {
    /// Nothing: a new leader's first entry.
    Blank,
    /// A new membership, opaque here.
    Membership(Bytes),
    /// Commands, framed by `state::codec`.
    Commands(Bytes),
}

/// The answer to one command, of a type that its proposer knows.
pub type Answer = Box<dyn Any + Send>;

/// The machine can go on no longer; the node must stop.
#[derive(Debug, thiserror::Error)]
#[error("the state machine failed: {doing}")]
pub struct Failed {
    /// What it was doing.
    pub doing: &'static str,
    /// Why it failed.
    #[source]
    pub source: Box<dyn std::error::Error + Send + Sync>,
}

/// A snapshot being read or received: chunks in their order, each at most [`CHUNK_LEN_MAX`] bytes.
pub type Chunks = Box<dyn Iterator<Item = Result<Bytes, Failed>> + Send>;

/// Largest chunk of a snapshot, in bytes. Rows are cut over chunks, so that none is too long.
pub const CHUNK_LEN_MAX: usize = 256 << 10;

/// A state cut between two entries.
pub struct Snapshot {
    /// The cut: everything up to this entry, nothing after it.
    pub applied: Applied,
    /// The state, read while entries go on being applied. Ends with an error if the state was rewound or erased
    /// meanwhile; then a new snapshot is cut.
    pub chunks: Chunks,
}

/// One replicated state machine.
pub trait Machine: Send + Sync {
    /// Returns what has been applied.
    fn applied(&self) -> Applied;

    /// Returns up to where the rows are durable.
    fn durable(&self) -> Applied;

    /// Applies entries in their order and returns, for each, an answer to each of its commands.
    fn apply(&self, entries: Vec<Committed>) -> Result<Vec<Vec<Answer>>, Failed>;

    /// Makes durable what has been applied. Returns when it is; applying goes on meanwhile.
    fn checkpoint(&self) -> Result<(), Failed>;

    /// Cuts a snapshot now.
    fn snapshot(&self) -> Result<Snapshot, Failed>;

    /// Replaces the whole state by a snapshot. Returns when the new state is durable.
    fn install(&self, snapshot: Snapshot) -> Result<(), Failed>;

    /// Returns the last digests of the state, in the order of their entries; none where none are taken.
    fn digests(&self) -> Vec<StateDigest> {
        Vec::new()
    }
}
