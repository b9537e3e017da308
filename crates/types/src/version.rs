//! Directory versions and feed offsets.

use std::fmt;

/// Number of recoveries from a lost majority, of the directory or of a group. The first is 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Incarnation(pub u32);

impl Incarnation {
    /// Before any recovery.
    pub const FIRST: Self = Self(1);
}

/// Version of the directory: (incarnation, log index). Ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DirectoryVersion {
    /// Incarnation of the directory.
    pub incarnation: Incarnation,
    /// Log index of the directory.
    pub index: u64,
}

impl DirectoryVersion {
    /// Version of an empty view.
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

/// Offset in a home group's feed: (incarnation of the group, log index). Resume and acknowledgement are this one
/// number for the whole feed. Ordered.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct FeedOffset {
    /// Incarnation of the home group.
    pub incarnation: Incarnation,
    /// Log index of the home group.
    pub index: u64,
}

impl FeedOffset {
    /// Before the first batch.
    pub const ZERO: Self = Self {
        incarnation: Incarnation(0),
        index: 0,
    };
}
