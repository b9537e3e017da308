//! Consistency checkers: whether a correct store could have given these responses.
//!
//! | checker | checks that | by |
//! | --- | --- | --- |
//! | [`linearizability`] | each key is one register | values alone: zones, `O(n log n)` |
//! | [`search`] | the same, with deletes | trying orders, bounded; short histories |
//! | [`revisions`] | revisions are an order that explains every response | revisions and values, a second witness |
//! | [`session`] | session tokens keep their guarantees | revisions along each session |
//! | [`idempotency`] | one write is one change | revisions of values, versions of keys |
//!
//! A checker that has never failed is not known to work: each is tested with hand-made incorrect histories, and with
//! random ones on which it is compared with a search over all orders.

pub mod idempotency;
pub mod linearizability;
pub mod revisions;
pub mod search;
pub mod session;

#[cfg(test)]
mod generate;
#[cfg(test)]
mod script;

use bytes::Bytes;

use crate::history::History;

/// Violation of consistency in a history. Numbers are positions in [`History::operations`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A read returned a value that was never written to the key.
    GarbageRead {
        /// The read.
        read: usize,
        /// The key.
        key: Bytes,
    },
    /// A read returned before the write of its value was sent.
    FutureRead {
        /// The read.
        read: usize,
        /// The write.
        write: usize,
    },
    /// Each of two values must have been the register's value before the other.
    OrderConflict {
        /// The key.
        key: Bytes,
        /// The write of the one value; `None` for the key's absence at the start.
        one: Option<usize>,
        /// The write of the other.
        other: Option<usize>,
    },
    /// No order of the operations explains the responses.
    NotLinearizable {
        /// The key.
        key: Bytes,
    },
    /// The search reached its step limit without a result.
    SearchLimitReached {
        /// The key.
        key: Bytes,
    },
    /// Two changes have one revision.
    DuplicateRevision {
        /// The one.
        one: usize,
        /// The other.
        other: usize,
    },
    /// An operation that was sent after another had returned has a revision that contradicts that order.
    RevisionRegression {
        /// Returned first.
        earlier: usize,
        /// Sent afterwards.
        later: usize,
    },
    /// A read does not show the state of its revision.
    WrongSnapshot {
        /// The read.
        read: usize,
        /// The key.
        key: Bytes,
    },
    /// A response is older than its session's token.
    SessionGuarantee {
        /// The guarantee that was broken.
        guarantee: session::Guarantee,
        /// The response that set the token.
        earlier: usize,
        /// The response that is older.
        later: usize,
    },
    /// One write was applied twice.
    DuplicateApply {
        /// The write.
        write: usize,
        /// The operation that saw the second change.
        seen: usize,
    },
    /// A key has a version that the number of its writes does not explain.
    WrongVersion {
        /// The read that saw it.
        read: usize,
        /// The key.
        key: Bytes,
    },
}

/// Runs every checker on one tenant's history.
pub fn check(history: &History) -> Vec<Violation> {
    let mut violations = linearizability::check(history);
    violations.extend(revisions::check(history));
    violations.extend(session::check(history));
    violations.extend(idempotency::check(history));
    violations
}

/// Formats a violation with the operations that it names, for people.
pub fn explain(history: &History, violation: &Violation) -> String {
    let mut text = format!("{violation:?}");
    for index in violation.operations() {
        text.push_str(&format!("\n  #{index} {}", history.operations()[index]));
    }
    text
}

impl Violation {
    fn operations(&self) -> Vec<usize> {
        match self {
            Self::GarbageRead { read, .. } | Self::WrongSnapshot { read, .. } | Self::WrongVersion { read, .. } => {
                vec![*read]
            }
            Self::FutureRead { read, write } => vec![*write, *read],
            Self::OrderConflict { one, other, .. } => one.iter().chain(other).copied().collect(),
            Self::NotLinearizable { .. } | Self::SearchLimitReached { .. } => Vec::new(),
            Self::DuplicateRevision { one, other } => vec![*one, *other],
            Self::RevisionRegression { earlier, later } | Self::SessionGuarantee { earlier, later, .. } => {
                vec![*earlier, *later]
            }
            Self::DuplicateApply { write, seen } => vec![*write, *seen],
        }
    }
}
