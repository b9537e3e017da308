//! Topologies of `stead dev`, by the names of docs/topologies.md.

use std::time::Duration;

use clap::ValueEnum;
use stead_testing::cluster::Region;

use super::plan::{REGIONS, Regions};

/// Round trip to a region whose distance the demo does not have.
const FAR: Duration = Duration::from_millis(150);
/// Regions beside those of the demo, for five.
const MORE: [(&str, &str); 2] = [("sa-east", "BR"), ("af-south", "ZA")];
const NODES: usize = 3;

/// Shape of a cluster.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Topology {
    /// One node
    OneNode,
    /// One region of three nodes
    OneRegion,
    /// Two regions of three nodes, and a witness
    ActivePassive,
    /// A region of three nodes, a follower region of one node, and a witness
    SmallFollower,
    /// Three regions of three nodes
    ThreeRegions,
    /// Five regions: three of three nodes, two of one
    FiveRegions,
}

impl Topology {
    /// Returns its regions and the round trips between them.
    pub(super) fn regions(self) -> Regions {
        let [us, eu, _] = REGIONS.map(|(name, law)| region(name, law, NODES));
        let witness = Region {
            witness: true,
            ..Region::new("witness", 1)
        };
        let all = match self {
            Self::OneNode => vec![Region { nodes: 1, ..eu }],
            Self::OneRegion => vec![eu],
            Self::ActivePassive => vec![us, eu, witness],
            Self::SmallFollower => vec![eu, Region { nodes: 1, ..us }, witness],
            Self::ThreeRegions => return Regions::default(),
            Self::FiveRegions => {
                let three = REGIONS.map(|(name, law)| region(name, law, NODES));
                let more = MORE.map(|(name, law)| region(name, law, 1));
                three.into_iter().chain(more).collect()
            }
        };
        Regions::with_distances(all, FAR)
    }
}

fn region(name: &str, jurisdiction: &str, nodes: usize) -> Region {
    Region {
        jurisdiction: jurisdiction.into(),
        ..Region::new(name, nodes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn topologies_have_their_nodes_and_all_distances() {
        let shape = |topology: Topology| {
            let (regions, pairs) = topology.regions().shape();
            (regions, pairs)
        };
        assert_eq!(shape(Topology::OneNode), (vec![1], 0));
        assert_eq!(shape(Topology::OneRegion), (vec![3], 0));
        assert_eq!(shape(Topology::ActivePassive), (vec![3, 3, 1], 3));
        assert_eq!(shape(Topology::SmallFollower), (vec![3, 1, 1], 3));
        assert_eq!(shape(Topology::ThreeRegions), (vec![3, 3, 3], 3));
        assert_eq!(shape(Topology::FiveRegions), (vec![3, 3, 3, 1, 1], 10));
    }
}
