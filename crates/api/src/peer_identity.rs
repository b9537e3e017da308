//! Node at the other end of a connection, as its certificate proves it.

use stead_types::{NodeId, RegionName};

/// Node that a peer connection comes from; an extension of each of its requests. Over plain text there is none, and what
/// messages say of their sender is believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PeerIdentity {
    /// The node.
    pub node: NodeId,
    /// Its region.
    pub region: RegionName,
}
