//! Versions of the directory and offsets of feeds.

use std::fmt;

/// Counts recoveries from a lost majority, of the directory or of a group. The first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u32);

impl Incarnation {
    /// Before any recovery.
    pub const FIRST: Self = Self(1);
}

/// How much of the directory a view has: (incarnation, index of the directory's log). Ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectoryVersion {
    /// Of the directory.
    pub incarnation: Incarnation,
    /// The directory's Raft index.
    pub index: u64,
}

impl DirectoryVersion {
    /// A view that has nothing.
    pub const ZERO: Self = Self {
        incarnation: Incarnation(0),
        index: 0,
    };
}

impl fmt::Display for DirectoryVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.incarnation.0, self.index)
    }
}

/// A place in a home group's stream: (incarnation of the group, its Raft index). Resuming and acknowledging are this
/// one number for the whole stream. Ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeedOffset {
    /// Of the home group.
    pub incarnation: Incarnation,
    /// The home group's Raft index.
    pub index: u64,
}

impl FeedOffset {
    /// Before the first batch.
    pub const ZERO: Self = Self {
        incarnation: Incarnation(0),
        index: 0,
    };
}
