//! Map of the cluster: the known nodes, in the order in which they should be asked.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use stead_api::proto::v1;
use stead_types::{Error, NodeId, RegionName};

use crate::{channel::Transport, node::Node};

/// Region and its nodes, from the directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Name of the region.
    pub name: RegionName,
    /// Jurisdiction of its data, such as `EU`.
    pub jurisdiction: String,
    /// Nodes of the region.
    pub endpoints: Vec<Endpoint>,
}

/// Addresses of a node that takes calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Number of the node.
    pub node: NodeId,
    /// `host:port` for gRPC.
    pub client: String,
    /// `host:port` for HTTP.
    pub http: String,
    /// Groups in which the node votes.
    pub groups: Vec<u32>,
}

impl Region {
    /// Returns the region of a message; `None` for a name that only a newer node allows.
    pub(crate) fn read(region: v1::Region) -> Option<Self> {
        let endpoint = |endpoint: v1::Endpoint| Endpoint {
            node: NodeId::new(endpoint.node),
            client: endpoint.client_address,
            http: endpoint.http_address,
            groups: endpoint.groups,
        };
        Some(Self {
            name: region.name.parse().ok()?,
            jurisdiction: region.jurisdiction,
            endpoints: region.endpoints.into_iter().map(endpoint).collect(),
        })
    }
}

/// Nodes to which a call should go first.
#[derive(Clone, Copy, Debug)]
pub(crate) enum NodePreference<'a> {
    /// The home; first this node of it, the last known leader.
    Home(&'a RegionName, Option<NodeId>),
    /// The nearest node.
    Nearest,
}

/// Known nodes and regions; replaced as a whole when something changes.
#[derive(Debug, Default)]
pub(crate) struct ClusterMap {
    pub(crate) regions: BTreeMap<RegionName, Region>,
    /// Measured, or taken from the configuration.
    pub(crate) round_trips: BTreeMap<RegionName, Duration>,
    /// Nodes by address; connections are carried over from map to map.
    nodes: BTreeMap<String, Arc<Node>>,
    by_number: BTreeMap<NodeId, Arc<Node>>,
    by_region: BTreeMap<RegionName, Vec<Arc<Node>>>,
    /// All nodes, nearest first.
    nearest: Vec<Arc<Node>>,
}

impl ClusterMap {
    /// Returns a map of nodes of which only the addresses are known.
    pub(crate) fn of_addresses(addresses: &[String], transport: &Transport) -> Result<Self, Error> {
        let mut map = Self::default();
        for address in addresses {
            let node = Arc::new(Node::new(transport, address)?);
            map.nearest.push(node.clone());
            map.nodes.insert(address.clone(), node);
        }
        Ok(map)
    }

    /// Returns the map with new regions or distances; `rotation` spreads clients over a region's nodes.
    pub(crate) fn with(
        &self,
        regions: BTreeMap<RegionName, Region>,
        round_trips: BTreeMap<RegionName, Duration>,
        transport: &Transport,
        rotation: usize,
    ) -> Self {
        let mut map = Self {
            regions,
            round_trips,
            ..Self::default()
        };
        for region in map.regions.values() {
            let mut of_region = Vec::new();
            for endpoint in &region.endpoints {
                let kept = self.nodes.get(&endpoint.client).cloned();
                let node = kept.or_else(|| Node::new(transport, &endpoint.client).ok().map(Arc::new));
                let Some(node) = node else {
                    tracing::warn!(address = endpoint.client, "a node advertises an invalid address");
                    continue;
                };
                map.nodes.insert(endpoint.client.clone(), node.clone());
                map.by_number.insert(endpoint.node, node.clone());
                of_region.push(node);
            }
            if !of_region.is_empty() {
                let rotation = rotation % of_region.len();
                of_region.rotate_left(rotation);
            }
            map.by_region.insert(region.name.clone(), of_region);
        }
        map.nearest = map.by_distance();
        // A cluster that lists no nodes is reached through those of the configuration.
        if map.nearest.is_empty() {
            map.nearest.clone_from(&self.nearest);
            map.nodes.clone_from(&self.nodes);
        }
        map
    }

    fn by_distance(&self) -> Vec<Arc<Node>> {
        let mut regions: Vec<&RegionName> = self.by_region.keys().collect();
        regions.sort_by_key(|name| self.round_trips.get(*name).copied().unwrap_or(Duration::MAX));
        regions
            .into_iter()
            .flat_map(|name| self.by_region[name].iter().cloned())
            .collect()
    }

    /// Returns the node to ask: the first untried one whose circuit is closed, otherwise the first untried one.
    pub(crate) fn pick(&self, preference: NodePreference<'_>, tried: &[Arc<Node>]) -> Option<Arc<Node>> {
        let untried = |node: &&Arc<Node>| !tried.iter().any(|other| Arc::ptr_eq(other, node));
        let untried_alive = |node: &&Arc<Node>| untried(node) && !node.is_circuit_open();
        let found = self
            .in_order(preference)
            .find(untried_alive)
            .or_else(|| self.in_order(preference).find(untried));
        found.cloned()
    }

    /// Returns every node, nearest first.
    pub(crate) fn known(&self) -> Vec<Arc<Node>> {
        self.nearest.clone()
    }

    /// Returns every node, best first, some of them twice.
    fn in_order<'a>(&'a self, preference: NodePreference<'a>) -> impl Iterator<Item = &'a Arc<Node>> {
        let (leader, home) = match preference {
            NodePreference::Home(region, leader) => {
                let home = self.by_region.get(region).map(Vec::as_slice).unwrap_or_default();
                (leader.and_then(|leader| self.by_number.get(&leader)), home)
            }
            NodePreference::Nearest => (None, [].as_slice()),
        };
        leader.into_iter().chain(home).chain(&self.nearest)
    }

    /// Returns the nodes of a region.
    pub(crate) fn nodes_of(&self, region: &RegionName) -> &[Arc<Node>] {
        self.by_region.get(region).map(Vec::as_slice).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn region(name: &str, first: u64) -> (RegionName, Region) {
        let endpoint = |node: u64| Endpoint {
            node: NodeId::new(node),
            client: format!("{name}:{node}"),
            http: String::new(),
            groups: vec![1],
        };
        let endpoints = vec![endpoint(first), endpoint(first + 1)];
        let name: RegionName = name.parse().unwrap();
        (
            name.clone(),
            Region {
                name,
                jurisdiction: "X".into(),
                endpoints,
            },
        )
    }

    fn map(rotation: usize) -> ClusterMap {
        let transport = Transport {
            connect: crate::config::dial(BTreeMap::new()),
            token: crate::TokenSource::default(),
        };
        let regions = BTreeMap::from([region("ap", 1), region("eu", 3)]);
        let round_trips = [("eu", 1), ("ap", 100)].map(|(name, ms)| (name.parse().unwrap(), Duration::from_millis(ms)));
        let first = ClusterMap::of_addresses(&["seed:1".into()], &transport).unwrap();
        first.with(regions, round_trips.into(), &transport, rotation)
    }

    #[tokio::test]
    async fn nearest_node_is_picked_first_and_failed_node_last() {
        let map = map(0);
        let mut tried = Vec::new();
        while let Some(node) = map.pick(NodePreference::Nearest, &tried) {
            tried.push(node);
        }
        let order: Vec<&str> = tried.iter().map(|node| node.address.as_str()).collect();
        assert_eq!(order, ["eu:3", "eu:4", "ap:1", "ap:2"]);
        tried[0].mark_failed();
        assert_eq!(map.pick(NodePreference::Nearest, &[]).unwrap().address, "eu:4");
        assert_eq!(
            map.pick(NodePreference::Nearest, &tried[1..]).unwrap().address,
            "eu:3",
            "nobody else is left"
        );
    }

    #[tokio::test]
    async fn write_prefers_leader_then_home_then_any_node() {
        let map = map(0);
        let home = "ap".parse().unwrap();
        let mut tried = Vec::new();
        while let Some(node) = map.pick(NodePreference::Home(&home, Some(NodeId::new(2))), &tried) {
            tried.push(node);
        }
        let order: Vec<&str> = tried.iter().map(|node| node.address.as_str()).collect();
        assert_eq!(order, ["ap:2", "ap:1", "eu:3", "eu:4"]);
    }

    #[tokio::test]
    async fn rotation_spreads_clients_over_region() {
        assert_eq!(map(1).pick(NodePreference::Nearest, &[]).unwrap().address, "eu:4");
    }
}
