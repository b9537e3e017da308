//! What the clients of one tenant asked for, and what they were told.
//!
//! # Invariants
//!
//! 1. A value is written by one operation only, so a value that is read names its write.
//! 2. An operation without an answer stays open for ever: it may have happened at any time after its invocation, or
//!    never. What has certainly not happened is not part of a history.
//! 3. Instants are of one clock. Operation `a` is before `b` only if `a` returned below the instant of `b`'s invocation.

mod recorder;
mod register;

use std::fmt;

use bytes::Bytes;
use stead_types::Revision;

pub use recorder::{Recorder, Ticket};
pub use register::{Action, Event, Registers};

/// The instant at which an open operation returns.
pub const NEVER: u64 = u64::MAX;

/// How fresh a read was asked to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The newest state.
    Linearizable,
    /// At least what the session has seen.
    Session,
    /// At most this far behind: a promise in time, which no checker here holds anybody to.
    Bounded,
    /// Whatever is there.
    Local,
}

/// What a client asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Call {
    /// A write of one key.
    Put {
        /// The key.
        key: Bytes,
        /// Unique in the history.
        value: Bytes,
    },
    /// A removal of one key.
    Delete {
        /// The key.
        key: Bytes,
    },
    /// A read of one key.
    Get {
        /// The key.
        key: Bytes,
        /// How fresh.
        level: Level,
    },
    /// All keys with this prefix, all pages.
    Scan {
        /// The prefix.
        prefix: Bytes,
        /// How fresh.
        level: Level,
    },
}

impl Call {
    /// Returns the level of a read, or `None` for a write.
    pub fn level(&self) -> Option<Level> {
        match self {
            Self::Put { .. } | Self::Delete { .. } => None,
            Self::Get { level, .. } | Self::Scan { level, .. } => Some(*level),
        }
    }

    /// Whether the answer must fit between invocation and return: a write, or a linearizable read.
    pub fn is_linearizable(&self) -> bool {
        matches!(self.level(), None | Some(Level::Linearizable))
    }

    /// Whether the call looks at or writes this key.
    pub fn touches(&self, key: &[u8]) -> bool {
        match self {
            Self::Put { key: own, .. } | Self::Delete { key: own } | Self::Get { key: own, .. } => own == key,
            Self::Scan { prefix, .. } => key.starts_with(prefix),
        }
    }
}

/// One key as a read showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// The change that made it.
    pub created: Revision,
    /// Its last change.
    pub modified: Revision,
    /// Counts its changes since it was made.
    pub version: u64,
}

/// What a client was told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// When.
    pub returned: u64,
    /// Of a change: its own; of a read, and of a delete that found nothing: the tenant's, as of which it answers.
    pub revision: Revision,
    /// Whether the call made a change; of a delete: whether the key existed.
    pub changed: bool,
    /// What a read found, in the order of keys.
    pub items: Vec<Item>,
}

/// One call of one client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Whose token it carried.
    pub session: u32,
    /// When it was sent.
    pub invoked: u64,
    /// What was asked for.
    pub call: Call,
    /// `None`: open.
    pub answer: Option<Answer>,
}

impl Operation {
    /// Returns the instant of the return, [`NEVER`] for an open operation.
    pub fn returned(&self) -> u64 {
        self.answer.as_ref().map_or(NEVER, |answer| answer.returned)
    }

    /// Whether this one returned before the other was sent.
    pub fn is_before(&self, other: &Self) -> bool {
        self.returned() < other.invoked
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} [{}, ", self.session, self.invoked)?;
        match &self.answer {
            Some(answer) => write!(f, "{}] ", answer.returned)?,
            None => write!(f, "open) ")?,
        }
        match &self.call {
            Call::Put { key, value } => write!(f, "put {key:?} = {value:?}")?,
            Call::Delete { key } => write!(f, "delete {key:?}")?,
            Call::Get { key, level } => write!(f, "get {key:?} {level:?}")?,
            Call::Scan { prefix, level } => write!(f, "scan {prefix:?} {level:?}")?,
        }
        let Some(answer) = &self.answer else { return Ok(()) };
        write!(
            f,
            " -> {}{}",
            answer.revision,
            if answer.changed { " changed" } else { "" }
        )?;
        for item in &answer.items {
            write!(
                f,
                " {:?} = {:?} @{} v{}",
                item.key, item.value, item.modified, item.version
            )?;
        }
        Ok(())
    }
}

/// The operations of one tenant, in the order of their invocations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct History {
    operations: Vec<Operation>,
}

impl History {
    /// Returns the history of these operations.
    pub fn new(mut operations: Vec<Operation>) -> Self {
        operations.sort_by_key(|operation| operation.invoked);
        Self { operations }
    }

    /// Returns the operations, ordered by their invocations.
    pub fn operations(&self) -> &[Operation] {
        &self.operations
    }

    /// Returns each key as a register.
    pub fn registers(&self) -> Registers {
        Registers::new(&self.operations)
    }
}
