//! Node at the other end of a connection, as its certificate proves it.

use std::fmt;

use stead_types::{NodeId, RegionName};

/// Node that a peer connection comes from; an extension of each of its requests. Over plain text there is none, and what
/// messages say of their sender is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// Its numbers: two while a node takes the place of one of its name.
    pub nodes: Vec<NodeId>,
    /// Its region.
    pub region: RegionName,
}

impl PeerIdentity {
    /// Tells whether the node has this number.
    pub fn is(&self, node: NodeId) -> bool {
        self.nodes.contains(&node)
    }
}

impl fmt::Display for PeerIdentity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let nodes: Vec<String> = self.nodes.iter().map(ToString::to_string).collect();
        write!(f, "{} in {}", nodes.join(" or "), self.region)
    }
}
