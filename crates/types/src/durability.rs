//! Durability of writes.

/// Durability that a write must have before it is acknowledged. Ordered: each level includes those before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub enum Durability {
    /// Committed by a majority of the home's nodes, each with fsync.
    #[default]
    Region,
    /// And applied by a counted follower in another region.
    Remote,
}
