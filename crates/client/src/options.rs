//! What a caller can ask for with a call.

use std::time::Duration;

use bytes::Bytes;
use stead_api::proto::v1;
use stead_types::{Condition, IdempotencyKey, Revision, SessionToken, SessionTokens};

/// How fresh a read must be.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// The newest state, from the home.
    #[default]
    Linearizable,
    /// At least what this client has written and read, from the nearest replica that has it.
    Session,
    /// At least what this session has seen, whoever's it is.
    Token(SessionToken),
    /// At least what this session has seen of the tenant, if it has: for what came with a request, of any tenants.
    Tokens(SessionTokens),
    /// At most this far behind the home.
    Bounded(Duration),
    /// Whatever the nearest node holds.
    Local,
}

/// When a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Committed by a majority of the home's nodes.
    Region,
    /// And applied in another region.
    Remote,
}

impl Durability {
    /// Returns what a message says; absent: the default.
    pub(crate) fn message(durability: Option<Self>) -> i32 {
        let message = match durability {
            None => v1::Durability::Unspecified,
            Some(Self::Region) => v1::Durability::Region,
            Some(Self::Remote) => v1::Durability::Remote,
        };
        message.into()
    }
}

/// How to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Read {
    /// How fresh the answer must be.
    pub consistency: Consistency,
    /// As of this revision; absent: the newest that the consistency gives.
    pub revision: Option<Revision>,
    /// How long the call may take; absent: as the client's configuration says.
    pub timeout: Option<Duration>,
}

/// How to write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Write {
    /// What must hold.
    pub precondition: Option<Condition>,
    /// Answer with the key as it was before.
    pub previous: bool,
    /// When the write is acknowledged; absent: the tenant's default.
    pub durability: Option<Durability>,
    /// How long the call may take; absent: as the client's configuration says.
    pub timeout: Option<Duration>,
    /// The key of an earlier call whose outcome is unknown: the same write is asked for again, and never done twice.
    /// Absent: a new one.
    pub idempotency_key: Option<IdempotencyKey>,
}

/// What to add to a number, and up to where.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Increment {
    /// What is added; negative: taken away.
    pub delta: i64,
    /// Nothing is taken away where less than this would be left.
    pub floor: Option<i64>,
    /// Nothing is added where more than this would be reached.
    pub ceiling: Option<i64>,
    /// The number counts from 0 in each window of this length, by the tenant's time; whole milliseconds.
    pub window: Option<Duration>,
}

impl Increment {
    /// Adds without bounds.
    pub fn by(delta: i64) -> Self {
        Self {
            delta,
            ..Self::default()
        }
    }
}

/// Which keys: those of the range that begin with the prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// First key; empty: from the lowest.
    pub start: Bytes,
    /// First key that is no longer part of it; empty: to the highest.
    pub end: Bytes,
    /// Only keys that begin with this.
    pub prefix: Bytes,
    /// It was asked for as every key: bounds that happen to be empty do not stand for that where keys are deleted.
    is_all: bool,
}

impl KeyRange {
    /// Every key of the tenant.
    pub fn all() -> Self {
        Self {
            is_all: true,
            ..Self::default()
        }
    }

    /// Tells whether it was made by [`KeyRange::all`].
    pub(crate) fn is_all(&self) -> bool {
        self.is_all
    }

    /// The keys that begin with this.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self {
            prefix: prefix.into(),
            ..Self::default()
        }
    }

    /// The keys from the first on, up to the second, which is no longer one of them.
    pub fn between(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self {
            start: start.into(),
            end: end.into(),
            ..Self::default()
        }
    }

    /// This key alone.
    pub fn key(key: impl Into<Bytes>) -> Self {
        let start = key.into();
        let end = [&start[..], &[0]].concat();
        Self::between(start, end)
    }
}

/// Which keys to read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Scan {
    /// First key; empty: from the lowest.
    pub start: Bytes,
    /// First key that is no longer part of it; empty: to the highest.
    pub end: Bytes,
    /// Only keys that begin with this.
    pub prefix: Bytes,
    /// From the highest key down.
    pub reverse: bool,
    /// Most keys of a page; 0: the server's default.
    pub page_size: u32,
    /// From the page before.
    pub page_token: String,
    /// Without values.
    pub keys_only: bool,
    /// Only how many there are.
    pub count_only: bool,
    /// How to read.
    pub read: Read,
}

impl Read {
    /// Returns how to read what is at least this fresh.
    pub fn at(consistency: Consistency) -> Self {
        Self {
            consistency,
            ..Self::default()
        }
    }
}
