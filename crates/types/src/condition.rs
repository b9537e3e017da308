//! Conditions on keys.

use std::cmp::Ordering;

use bytes::Bytes;

use crate::Revision;

/// Condition on a key. A comparison with a key that does not exist never holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// The key does not exist.
    Absent,
    /// The key exists.
    Exists,
    /// The key's property stands in this relation to an operand.
    Compared(Relation, Operand),
}

/// Relation of a key's property to an operand.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relation {
    /// Equal.
    Equal,
    /// Not equal.
    NotEqual,
    /// The key's property is less.
    Less,
    /// The key's property is greater.
    Greater,
}

/// Operand of a comparison, which selects the property of the key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operand {
    /// Revision of the key's last change.
    Modified(Revision),
    /// Revision of the change that created the key.
    Created(Revision),
    /// Number of changes since the key was created, the first one included.
    Version(u64),
    /// Bytes of the value.
    Value(Bytes),
}

impl Condition {
    /// Returns the condition that this revision is the key's last change.
    pub fn modified_at(revision: Revision) -> Self {
        Self::Compared(Relation::Equal, Operand::Modified(revision))
    }

    /// Returns the condition that the key has exactly this value.
    pub fn value_equals(value: impl Into<Bytes>) -> Self {
        Self::Compared(Relation::Equal, Operand::Value(value.into()))
    }
}

impl Relation {
    /// Tells whether the relation holds for this ordering of the two sides.
    pub fn matches(self, ordering: Ordering) -> bool {
        match self {
            Self::Equal => ordering.is_eq(),
            Self::NotEqual => ordering.is_ne(),
            Self::Less => ordering.is_lt(),
            Self::Greater => ordering.is_gt(),
        }
    }
}
