//! Leadership of a group: the member publishes it, the handle shows it.

use stead_types::NodeId;

/// Leadership of a group, as this node knows it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Leadership {
    /// The leader, if one is known.
    pub leader: Option<NodeId>,
    /// Raft's term.
    pub term: u64,
    /// Whether this node is the leader.
    pub is_here: bool,
}
