//! Histories: the calls that clients of one tenant sent, and the responses that they received.
//!
//! # Invariants
//!
//! 1. A value is written by one operation only, so a value that is read names its write.
//! 2. An operation without a response stays open for ever: it may have taken effect at any time after its invocation,
//!    or never. An operation that certainly had no effect is not part of a history.
//! 3. Instants are of one clock. Operation `a` is before `b` only if `a` returned before the instant of `b`'s
//!    invocation.

mod recorder;
mod register;

use std::fmt;

use bytes::Bytes;
use stead_types::Revision;

pub use recorder::{PendingCall, Recorder};
pub use register::{Action, Event, Registers};

/// The instant at which an open operation returns.
pub const NEVER: u64 = u64::MAX;

/// Consistency level of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Level {
    /// The newest state.
    Linearizable,
    /// At least the session's token.
    Session,
    /// At most so far behind: a bound in time, which histories cannot show.
    Bounded,
    /// Whatever state the replica has.
    Local,
}

/// Call of a client.
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
        /// Consistency level.
        level: Level,
    },
    /// All keys with this prefix, all pages.
    Scan {
        /// The prefix.
        prefix: Bytes,
        /// Consistency level.
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

    /// Whether the response must fit between invocation and return: a write, or a linearizable read.
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

/// Key with its value and revisions, as a read showed it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Item {
    /// The key.
    pub key: Bytes,
    /// Its value.
    pub value: Bytes,
    /// Revision that created it.
    pub created: Revision,
    /// Revision of its last change.
    pub modified: Revision,
    /// Number of its changes since it was created.
    pub version: u64,
}

/// Response to a call.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// Instant at which it arrived.
    pub returned: u64,
    /// Of a change: its own; of a read, and of a delete that found nothing: the tenant's revision that it saw.
    pub revision: Revision,
    /// Whether the call made a change; of a delete: whether the key existed.
    pub changed: bool,
    /// Items of a read, in the order of keys.
    pub items: Vec<Item>,
}

/// One call of one client, with its response if there was one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// Session whose token it carried.
    pub session: u32,
    /// Instant at which it was sent.
    pub invoked: u64,
    /// The call.
    pub call: Call,
    /// `None`: open.
    pub response: Option<Response>,
}

impl Operation {
    /// Returns the instant of the return, [`NEVER`] for an open operation.
    pub fn returned(&self) -> u64 {
        self.response.as_ref().map_or(NEVER, |response| response.returned)
    }

    /// Whether this one returned before the other was sent.
    pub fn is_before(&self, other: &Self) -> bool {
        self.returned() < other.invoked
    }
}

impl fmt::Display for Operation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "session {} [{}, ", self.session, self.invoked)?;
        match &self.response {
            Some(response) => write!(f, "{}] ", response.returned)?,
            None => write!(f, "open) ")?,
        }
        match &self.call {
            Call::Put { key, value } => write!(f, "put {key:?} = {value:?}")?,
            Call::Delete { key } => write!(f, "delete {key:?}")?,
            Call::Get { key, level } => write!(f, "get {key:?} {level:?}")?,
            Call::Scan { prefix, level } => write!(f, "scan {prefix:?} {level:?}")?,
        }
        let Some(response) = &self.response else { return Ok(()) };
        write!(
            f,
            " -> {}{}",
            response.revision,
            if response.changed { " changed" } else { "" }
        )?;
        for item in &response.items {
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
