//! Nodes that may send messages of a group.

use std::sync::Arc;

use stead_types::{GroupId, NodeId, RegionName};

/// Function that tells whether a node of a region may send messages of a group.
pub type MaySend = Arc<dyn Fn(GroupId, NodeId, &RegionName) -> bool + Send + Sync>;
