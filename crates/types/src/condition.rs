//! What must hold of a key for something to happen.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::Revision;

/// What must hold of a key. A comparison with a key that does not exist does not hold, whichever it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It does not exist.
    Absent,
    /// It exists.
    Exists,
    /// What it has stands in this relation to an operand.
    Compared(Relation, Operand),
}

/// How what a key has stands to an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// They are the same.
    Equal,
    /// They are not.
    NotEqual,
    /// The key's is less.
    Less,
    /// The key's is greater.
    Greater,
}

/// What is compared.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// The key's last change.
    Modified(Revision),
    /// The change that made it.
    Created(Revision),
    /// How often it has changed since, the first time included.
    Version(u64),
    /// Its bytes.
    Value(Bytes),
}

impl Condition {
    /// The key's last change is this one.
    pub fn modified(revision: Revision) -> Self {
        Self::Compared(Relation::Equal, Operand::Modified(revision))
    }

    /// The key holds exactly this.
    pub fn holds(value: impl Into<Bytes>) -> Self {
        Self::Compared(Relation::Equal, Operand::Value(value.into()))
    }
}

impl Relation {
    /// Tells whether it is the relation of two things that are ordered like this.
    pub fn admits(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::Greater => ordering.is_gt(),
        }
    }
}
