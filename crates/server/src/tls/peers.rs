//! Nodes by address and by name: from the directory view, and from `cluster.initial` while the view is empty.

use stead_api::peer_identity::PeerIdentity;
use stead_replication::SharedDirectoryView;
use stead_tls::{ExpectedPeer, Subject};
use stead_types::{NodeId, RegionName};

use crate::config::NodeConfig;

/// Nodes that a node knows.
#[derive(Clone)]
pub(crate) struct Peers {
    members: Vec<NodeConfig>,
    /// Absent before the node has a view.
    directory_view: Option<SharedDirectoryView>,
}

impl Peers {
    /// Returns the nodes of `cluster.initial`.
    pub(crate) fn initial(members: &[NodeConfig]) -> Self {
        Self {
            members: members.to_vec(),
            directory_view: None,
        }
    }

    /// Adds the nodes of the directory view, which count before those of `cluster.initial`.
    #[must_use]
    pub(crate) fn with_view(mut self, directory_view: SharedDirectoryView) -> Self {
        self.directory_view = Some(directory_view);
        self
    }

    /// Returns the node that is expected at an address.
    pub(crate) fn at(&self, address: &str) -> ExpectedPeer {
        let viewed = self.directory_view.as_ref().and_then(|view| {
            view.read(|view| {
                let mut nodes = view.nodes();
                let found =
                    nodes.find(|node| [&node.addresses.peer, &node.addresses.client].contains(&&address.to_owned()));
                found.map(|node| subject(node.region.as_str(), node.given_name()))
            })
        });
        let initial = || {
            let mut members = self.members.iter();
            let found = members.find(|member| member.peer == address || member.client == address);
            found.map(|member| subject(member.region.as_str(), &member.name))
        };
        viewed
            .or_else(initial)
            .map_or(ExpectedPeer::Unknown, ExpectedPeer::Node)
    }

    /// Returns the node with this region and name.
    pub(crate) fn named(&self, region: &str, name: &str) -> Option<PeerIdentity> {
        let mut known: Vec<(NodeId, RegionName)> = Vec::new();
        if let Some(view) = &self.directory_view {
            view.read(|view| {
                let named = view.nodes().filter(|node| node.given_name() == name);
                known.extend(named.map(|node| (node.number, node.region.clone())));
            });
        }
        if known.is_empty() {
            let named = self.members.iter().filter(|member| member.name == name);
            known.extend(named.map(|member| (member.id, member.region.clone())));
        }
        // A name that is known in another region is refused, and never looked up further.
        known.retain(|(_, of)| of.as_str() == region);
        let (_, of) = known.first()?.clone();
        Some(PeerIdentity {
            nodes: known.into_iter().map(|(node, _)| node).collect(),
            region: of,
        })
    }
}

fn subject(region: &str, name: &str) -> Subject {
    Subject::Node {
        region: region.to_owned(),
        name: name.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn member(id: u64, name: &str, region: &str) -> NodeConfig {
        NodeConfig {
            id: NodeId::new(id),
            name: name.to_owned(),
            region: region.parse().unwrap(),
            client: format!("{name}:7401"),
            peer: format!("{name}:7501"),
            http: String::new(),
            witness: false,
            engine: String::new(),
        }
    }

    #[test]
    fn node_of_another_region_has_no_identity_here() {
        let peers = Peers::initial(&[member(1, "a", "eu-west"), member(2, "b", "us-east")]);
        let known = peers.named("eu-west", "a").unwrap();
        assert_eq!((known.nodes, known.region.as_str()), (vec![NodeId::new(1)], "eu-west"));
        assert_eq!(peers.named("us-east", "a"), None);
        assert_eq!(peers.named("eu-west", "c"), None);
    }

    #[test]
    fn address_names_its_node_and_unknown_address_nobody() {
        let peers = Peers::initial(&[member(1, "a", "eu-west")]);
        let expected = ExpectedPeer::Node(subject("eu-west", "a"));
        assert_eq!(peers.at("a:7501"), expected);
        assert_eq!(peers.at("a:7401"), expected);
        assert_eq!(peers.at("a:7601"), ExpectedPeer::Unknown);
    }
}
