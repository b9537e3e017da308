//! The nodes there are, in the order in which they should be asked.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use stead_api::{net::Connect, proto::v1};
use stead_types::{Error, NodeId, RegionName};

use crate::node::Node;

/// A region and its nodes, as the directory says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its name.
    pub name: RegionName,
    /// Where its data lies in law, such as `EU`.
    pub jurisdiction: String,
    /// Its nodes.
    pub endpoints: Vec<Endpoint>,
}

/// A node that takes calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Endpoint {
    /// Its number.
    pub node: NodeId,
    /// `host:port` for gRPC.
    pub client: String,
    /// `host:port` for HTTP.
    pub http: String,
    /// Groups in which it votes.
    pub groups: Vec<u32>,
}

impl Region {
    /// `None`: a name that a newer node allows.
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

/// Where a call should go.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Want<'a> {
    /// To the home, first to this node of it, which led when it was heard of last.
    Home(&'a RegionName, Option<NodeId>),
    /// To the nearest node.
    Nearest,
}

/// What is known of the cluster; replaced whole when something changes.
#[derive(Debug, Default)]
pub(crate) struct Map {
    pub(crate) regions: BTreeMap<RegionName, Region>,
    /// Measured, or taken from the configuration.
    pub(crate) round_trips: BTreeMap<RegionName, Duration>,
    /// By address; connections live on from map to map.
    nodes: BTreeMap<String, Arc<Node>>,
    by_number: BTreeMap<NodeId, Arc<Node>>,
    by_region: BTreeMap<RegionName, Vec<Arc<Node>>>,
    /// All of them, nearest first.
    nearest: Vec<Arc<Node>>,
}

impl Map {
    /// Returns a map of nodes of which only the addresses are known.
    pub(crate) fn of_addresses(addresses: &[String], connect: &Connect) -> Result<Self, Error> {
        let mut map = Self::default();
        for address in addresses {
            let node = Arc::new(Node::new(connect, address)?);
            map.nearest.push(node.clone());
            map.nodes.insert(address.clone(), node);
        }
        Ok(map)
    }

    /// Returns the map after regions or distances became known; `turn` spreads clients over a region's nodes.
    pub(crate) fn with(
        &self,
        regions: BTreeMap<RegionName, Region>,
        round_trips: BTreeMap<RegionName, Duration>,
        connect: &Connect,
        turn: usize,
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
                let node = kept.or_else(|| Node::new(connect, &endpoint.client).ok().map(Arc::new));
                let Some(node) = node else {
                    tracing::warn!(address = endpoint.client, "a node advertises what is no address");
                    continue;
                };
                map.nodes.insert(endpoint.client.clone(), node.clone());
                map.by_number.insert(endpoint.node, node.clone());
                of_region.push(node);
            }
            if !of_region.is_empty() {
                let turn = turn % of_region.len();
                of_region.rotate_left(turn);
            }
            map.by_region.insert(region.name.clone(), of_region);
        }
        map.nearest = map.by_distance();
        // A cluster that names no nodes is asked through those that the configuration names.
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

    /// Returns the node to ask: the first that is worth asking and was not tried, else the first that was not tried.
    pub(crate) fn pick(&self, want: Want<'_>, tried: &[Arc<Node>]) -> Option<Arc<Node>> {
        let untried = |node: &&Arc<Node>| !tried.iter().any(|other| Arc::ptr_eq(other, node));
        let awake = |node: &&Arc<Node>| untried(node) && !node.rests();
        let found = self
            .in_order(want)
            .find(awake)
            .or_else(|| self.in_order(want).find(untried));
        found.cloned()
    }

    /// Returns every node, nearest first.
    pub(crate) fn known(&self) -> Vec<Arc<Node>> {
        self.nearest.clone()
    }

    /// Returns every node, best first, some of them twice.
    fn in_order<'a>(&'a self, want: Want<'a>) -> impl Iterator<Item = &'a Arc<Node>> {
        let (leader, home) = match want {
            Want::Home(region, leader) => {
                let home = self.by_region.get(region).map(Vec::as_slice).unwrap_or_default();
                (leader.and_then(|leader| self.by_number.get(&leader)), home)
            }
            Want::Nearest => (None, [].as_slice()),
        };
        leader.into_iter().chain(home).chain(&self.nearest)
    }

    /// Returns a region's nodes.
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

    fn map(turn: usize) -> Map {
        let connect = crate::config::dial(BTreeMap::new());
        let regions = BTreeMap::from([region("ap", 1), region("eu", 3)]);
        let round_trips = [("eu", 1), ("ap", 100)].map(|(name, ms)| (name.parse().unwrap(), Duration::from_millis(ms)));
        let first = Map::of_addresses(&["seed:1".into()], &connect).unwrap();
        first.with(regions, round_trips.into(), &connect, turn)
    }

    #[tokio::test]
    async fn the_nearest_is_asked_first_and_a_failed_one_last() {
        let map = map(0);
        let mut tried = Vec::new();
        while let Some(node) = map.pick(Want::Nearest, &tried) {
            tried.push(node);
        }
        let order: Vec<&str> = tried.iter().map(|node| node.address.as_str()).collect();
        assert_eq!(order, ["eu:3", "eu:4", "ap:1", "ap:2"]);
        tried[0].failed();
        assert_eq!(map.pick(Want::Nearest, &[]).unwrap().address, "eu:4");
        assert_eq!(
            map.pick(Want::Nearest, &tried[1..]).unwrap().address,
            "eu:3",
            "nobody else is left"
        );
    }

    #[tokio::test]
    async fn a_write_goes_to_the_leader_then_to_the_home_then_anywhere() {
        let map = map(0);
        let home = "ap".parse().unwrap();
        let mut tried = Vec::new();
        while let Some(node) = map.pick(Want::Home(&home, Some(NodeId::new(2))), &tried) {
            tried.push(node);
        }
        let order: Vec<&str> = tried.iter().map(|node| node.address.as_str()).collect();
        assert_eq!(order, ["ap:2", "ap:1", "eu:3", "eu:4"]);
    }

    #[tokio::test]
    async fn clients_are_spread_over_a_region() {
        assert_eq!(map(1).pick(Want::Nearest, &[]).unwrap().address, "eu:4");
    }
}
