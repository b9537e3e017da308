//! Whether a correct store could have given these answers.
//!
//! | checker | holds the store to | by |
//! | --- | --- | --- |
//! | [`linearizability`] | each key is one register | values alone: zones, `O(n log n)` |
//! | [`search`] | the same, with deletes | trying orders, bounded; short histories |
//! | [`revisions`] | revisions are an order that explains every answer | revisions and values, a second witness |
//! | [`session`] | what a token promises | revisions along each session |
//! | [`idempotency`] | one write is one change | revisions of values, versions of keys |
//!
//! A checker that has never failed is not known to work: each has hand-made wrong histories that it finds, and random
//! ones on which it is compared with trying all orders.

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

/// Why a history is wrong. Numbers are positions in [`History::operations`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Violation {
    /// A read saw a value that nobody had written to the key.
    Invented {
        /// The read.
        read: usize,
        /// The key.
        key: Bytes,
    },
    /// A read returned before the write of what it saw was sent.
    FromTheFuture {
        /// The read.
        read: usize,
        /// The write.
        write: usize,
    },
    /// Each of two values must have been there before the other.
    NoOrder {
        /// The key.
        key: Bytes,
        /// The write of the one value; `None` where it is the key's absence at the start.
        one: Option<usize>,
        /// The write of the other.
        other: Option<usize>,
    },
    /// No order of the operations explains the answers.
    NotLinearizable {
        /// The key.
        key: Bytes,
    },
    /// The search was given up at its bound.
    Undecided {
        /// The key.
        key: Bytes,
    },
    /// Two changes with one revision.
    RevisionRepeated {
        /// The one.
        one: usize,
        /// The other.
        other: usize,
    },
    /// An operation that was sent after another had returned has a revision that denies it.
    RevisionBackward {
        /// Returned first.
        earlier: usize,
        /// Sent afterwards.
        later: usize,
    },
    /// A read does not show the state of its revision.
    WrongState {
        /// The read.
        read: usize,
        /// The key.
        key: Bytes,
    },
    /// An answer is older than what its session had seen.
    Session {
        /// What was promised.
        guarantee: session::Guarantee,
        /// What the session had seen.
        earlier: usize,
        /// The answer that is older.
        later: usize,
    },
    /// One write made two changes.
    AppliedTwice {
        /// The write.
        write: usize,
        /// Who saw the second change.
        seen: usize,
    },
    /// A key has a version that its writes do not explain.
    VersionUnexplained {
        /// Who saw it.
        read: usize,
        /// The key.
        key: Bytes,
    },
}

/// Holds one tenant's history against every checker.
pub fn check(history: &History) -> Vec<Violation> {
    let mut violations = linearizability::check(history);
    violations.extend(revisions::check(history));
    violations.extend(session::check(history));
    violations.extend(idempotency::check(history));
    violations
}

/// Returns the violation with the operations that it is about, for people.
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
            Self::Invented { read, .. } | Self::WrongState { read, .. } | Self::VersionUnexplained { read, .. } => {
                vec![*read]
            }
            Self::FromTheFuture { read, write } => vec![*write, *read],
            Self::NoOrder { one, other, .. } => one.iter().chain(other).copied().collect(),
            Self::NotLinearizable { .. } | Self::Undecided { .. } => Vec::new(),
            Self::RevisionRepeated { one, other } => vec![*one, *other],
            Self::RevisionBackward { earlier, later } | Self::Session { earlier, later, .. } => vec![*earlier, *later],
            Self::AppliedTwice { write, seen } => vec![*write, *seen],
        }
    }
}
