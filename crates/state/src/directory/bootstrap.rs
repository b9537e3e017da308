//! Bootstrap of a cluster from the list of first nodes, which is the same in each one's configuration.

use stead_types::{GroupId, Incarnation, Jurisdiction, NodeId, RegionName};

use super::{Addresses, Group, Node, Region, text};
use crate::codec::{Malformed, Reader, Writer};

/// One of the first nodes of a cluster.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialNode {
    /// Name, unique in the cluster.
    pub name: String,
    /// Its region.
    pub region: RegionName,
    /// Its addresses.
    pub addresses: Addresses,
    /// Whether it is a witness, which only votes in the directory.
    pub witness: bool,
}

/// First nodes and regions of a cluster, as configured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InitialCluster {
    /// Name of the cluster.
    pub cluster: String,
    /// The regions.
    pub regions: Vec<(RegionName, Jurisdiction)>,
    /// First nodes; their numbers are 1, 2, 3, ... by position.
    pub nodes: Vec<InitialNode>,
    /// Number of groups of each region.
    pub groups_per_region: u32,
}

/// Number of the directory's voters where a region or a cluster has enough nodes.
const DIRECTORY_VOTERS: usize = 3;

impl InitialCluster {
    /// Returns the regions.
    pub fn regions(&self) -> Vec<Region> {
        let region =
            |(name, jurisdiction): &(RegionName, Jurisdiction)| Region::new(name.clone(), jurisdiction.clone());
        self.regions.iter().map(region).collect()
    }

    /// Returns the nodes with their numbers.
    pub fn nodes(&self) -> Vec<Node> {
        let node = |(number, node): (NodeId, &InitialNode)| Node {
            number,
            name: node.name.clone(),
            region: node.region.clone(),
            addresses: node.addresses.clone(),
            witness: node.witness,
            token: 0,
        };
        self.numbered().map(node).collect()
    }

    /// Returns the groups: the directory, then those of each region in the order of the list. A region's groups have
    /// all its first nodes as voters.
    pub fn groups(&self) -> Vec<Group> {
        let mut groups = vec![Group {
            number: GroupId::DIRECTORY,
            region: None,
            voters: self.directory_voters(),
            incarnation: Incarnation::FIRST,
            change: None,
        }];
        let mut number = GroupId::DIRECTORY.get();
        for (region, _) in &self.regions {
            let voters = self.nodes_of(region);
            if voters.is_empty() {
                continue;
            }
            for _ in 0..self.groups_per_region {
                number += 1;
                groups.push(Group {
                    number: GroupId::new(number),
                    region: Some(region.clone()),
                    voters: voters.clone(),
                    incarnation: Incarnation::FIRST,
                    change: None,
                });
            }
        }
        groups
    }

    /// Returns the voters of the directory: with one region its first three nodes (or its first), with two the first
    /// of each and a witness (or, without one, another node of the first region), with more the first of each.
    pub fn directory_voters(&self) -> Vec<NodeId> {
        let regions: Vec<Vec<NodeId>> = self.regions.iter().map(|(region, _)| self.nodes_of(region)).collect();
        let regions: Vec<Vec<NodeId>> = regions.into_iter().filter(|nodes| !nodes.is_empty()).collect();
        let firsts = || regions.iter().map(|nodes| nodes[0]);
        match &regions[..] {
            [] => Vec::new(),
            [only] if only.len() >= DIRECTORY_VOTERS => only[..DIRECTORY_VOTERS].to_vec(),
            [only] => only[..1].to_vec(),
            [one, other] => {
                let witness = self.numbered().find(|(_, node)| node.witness).map(|(number, _)| number);
                match witness.or(one.get(1).copied()).or(other.get(1).copied()) {
                    Some(third) => firsts().chain([third]).collect(),
                    None => one[..1].to_vec(),
                }
            }
            _ => firsts().collect(),
        }
    }

    fn numbered(&self) -> impl Iterator<Item = (NodeId, &InitialNode)> {
        (1..).map(NodeId::new).zip(&self.nodes)
    }

    fn nodes_of(&self, region: &RegionName) -> Vec<NodeId> {
        let there = self
            .numbered()
            .filter(|(_, node)| node.region == *region && !node.witness);
        there.map(|(number, _)| number).collect()
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        text::write(w, &self.cluster);
        w.list(self.regions.iter(), |w, (region, jurisdiction)| {
            text::write(w, region.as_str());
            text::write(w, jurisdiction.as_str());
        });
        w.list(self.nodes.iter(), |w, node| {
            text::write(w, &node.name);
            text::write(w, node.region.as_str());
            node.addresses.encode(w);
            w.bool(node.witness);
        });
        w.varint(u64::from(self.groups_per_region));
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            cluster: text::read(r)?,
            regions: r.list(|r| Ok((text::parse(r)?, text::parse(r)?)))?,
            nodes: r.list(|r| {
                Ok(InitialNode {
                    name: text::read(r)?,
                    region: text::parse(r)?,
                    addresses: Addresses::decode(r)?,
                    witness: r.bool()?,
                })
            })?,
            groups_per_region: r.varint_u32()?,
        })
    }
}
