//! Options of calls.

use std::time::Duration;

use bytes::Bytes;
use stead_api::proto::v1;
use stead_types::{Condition, IdempotencyKey, Revision, SessionToken, SessionTokens};

/// Consistency level of a read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// The newest state, from the home.
    #[default]
    Linearizable,
    /// At least what this client has written and read, from the nearest replica that has it.
    Session,
    /// At least what the session of this token has seen.
    Token(SessionToken),
    /// At least what these tokens have seen of the tenant, if they have: for tokens of any tenants that came with a
    /// request.
    Tokens(SessionTokens),
    /// At most this far behind the home (staleness bound).
    Bounded(Duration),
    /// The state of the nearest replica, however stale.
    Local,
}

/// Durability at which a write is acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Durability {
    /// Committed by a majority of the home's nodes.
    Region,
    /// Committed, and applied in another region.
    Remote,
}

impl Durability {
    /// Returns the value of a message; absent: the default.
    pub(crate) fn message(durability: Option<Self>) -> i32 {
        let message = match durability {
            None => v1::Durability::Unspecified,
            Some(Self::Region) => v1::Durability::Region,
            Some(Self::Remote) => v1::Durability::Remote,
        };
        message.into()
    }
}

/// Options of a read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ReadOptions {
    /// Consistency level.
    pub consistency: Consistency,
    /// Revision to read at; absent: the newest that the consistency level gives.
    pub revision: Option<Revision>,
    /// Timeout of the call; absent: the client's default.
    pub timeout: Option<Duration>,
}

/// Options of a write.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WriteOptions {
    /// Condition that must hold.
    pub precondition: Option<Condition>,
    /// Whether the response contains the key as it was before.
    pub previous: bool,
    /// Durability of the acknowledgement; absent: the tenant's default.
    pub durability: Option<Durability>,
    /// Timeout of the call; absent: the client's default.
    pub timeout: Option<Duration>,
    /// Idempotency key of an earlier call whose outcome is unknown: the same write is sent again, and never executed
    /// twice. Absent: a new key.
    pub idempotency_key: Option<IdempotencyKey>,
}

/// Change of a number, and its bounds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Increment {
    /// Number to add; negative: to subtract.
    pub delta: i64,
    /// Least result: a decrement that would pass it is not admitted.
    pub floor: Option<i64>,
    /// Greatest result: an increment that would pass it is not admitted.
    pub ceiling: Option<i64>,
    /// Window length, in whole milliseconds of the tenant's logged time; the number counts from 0 in each window.
    pub window: Option<Duration>,
}

impl Increment {
    /// Returns an increment without bounds.
    pub fn by(delta: i64) -> Self {
        Self {
            delta,
            ..Self::default()
        }
    }
}

/// Range of keys: those between the bounds that begin with the prefix.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct KeyRange {
    /// First key; empty: from the lowest.
    pub start: Bytes,
    /// End of the range, exclusive; empty: to the highest key.
    pub end: Bytes,
    /// Prefix of the keys.
    pub prefix: Bytes,
    /// Whether the range was built by [`KeyRange::all`]: bounds that happen to be empty do not stand for every key
    /// where keys are deleted.
    is_all: bool,
}

impl KeyRange {
    /// Returns the range of every key of the tenant.
    pub fn all() -> Self {
        Self {
            is_all: true,
            ..Self::default()
        }
    }

    /// Tells whether the range was built by [`KeyRange::all`].
    pub(crate) fn is_all(&self) -> bool {
        self.is_all
    }

    /// Returns the range of the keys that begin with a prefix.
    pub fn prefix(prefix: impl Into<Bytes>) -> Self {
        Self {
            prefix: prefix.into(),
            ..Self::default()
        }
    }

    /// Returns the range from `start` to `end`, exclusive.
    pub fn between(start: impl Into<Bytes>, end: impl Into<Bytes>) -> Self {
        Self {
            start: start.into(),
            end: end.into(),
            ..Self::default()
        }
    }

    /// Returns the range of one key.
    pub fn key(key: impl Into<Bytes>) -> Self {
        let start = key.into();
        let end = [&start[..], &[0]].concat();
        Self::between(start, end)
    }
}

/// Options of a scan.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScanOptions {
    /// First key; empty: from the lowest.
    pub start: Bytes,
    /// End of the range, exclusive; empty: to the highest key.
    pub end: Bytes,
    /// Prefix of the keys.
    pub prefix: Bytes,
    /// Whether to read from the highest key down.
    pub reverse: bool,
    /// Most keys of a page; 0: the server's default.
    pub page_size: u32,
    /// Page token of the page before.
    pub page_token: String,
    /// Whether to leave out values.
    pub keys_only: bool,
    /// Whether to return only the number of keys.
    pub count_only: bool,
    /// Options of the read.
    pub read: ReadOptions,
}

impl ReadOptions {
    /// Returns the options of a read with this consistency level.
    pub fn at(consistency: Consistency) -> Self {
        Self {
            consistency,
            ..Self::default()
        }
    }
}
