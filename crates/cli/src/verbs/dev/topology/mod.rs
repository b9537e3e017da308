//! Topologies of `stead dev`: those of docs/topologies.md by their names, others from files of the same form.

mod file;

use std::{fs, path::PathBuf, str::FromStr};

use clap::ValueEnum;

use self::file::Described;
use crate::exit::{Code, CommandError};

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
    /// Returns its file.
    fn text(self) -> &'static str {
        match self {
            Self::OneNode => include_str!("one-node.toml"),
            Self::OneRegion => include_str!("one-region.toml"),
            Self::ActivePassive => include_str!("active-passive.toml"),
            Self::SmallFollower => include_str!("small-follower.toml"),
            Self::ThreeRegions => include_str!("three-regions.toml"),
            Self::FiveRegions => include_str!("five-regions.toml"),
        }
    }

    /// Returns what its file describes.
    pub(super) fn described(self) -> Described {
        file::parse(self.text()).expect("a test reads every built-in file")
    }
}

/// Topology as the command line names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum TopologyChoice {
    /// By the name of a built-in file.
    Named(Topology),
    /// By a file.
    File(PathBuf),
}

impl FromStr for TopologyChoice {
    type Err = String;

    /// Parses a name; what has a point or a slash in it is a file, so that a misspelt name is not looked for on the disk.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(named) = Topology::from_str(text, false) {
            return Ok(Self::Named(named));
        }
        if text.contains(['.', '/']) {
            return Ok(Self::File(text.into()));
        }
        let values = Topology::value_variants()
            .iter()
            .filter_map(ValueEnum::to_possible_value);
        let names: Vec<String> = values.map(|value| value.get_name().to_owned()).collect();
        Err(format!("one of {}, or a file such as ./own.toml", names.join(", ")))
    }
}

impl TopologyChoice {
    /// Returns what is described.
    pub(super) fn described(&self) -> Result<Described, CommandError> {
        let path = match self {
            Self::Named(named) => return Ok(named.described()),
            Self::File(path) => path,
        };
        let usage = |why: String| CommandError::new(Code::Usage, format!("--topology {}: {why}", path.display()));
        let text = fs::read_to_string(path).map_err(|error| usage(error.to_string()))?;
        file::parse(&text).map_err(usage)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::verbs::dev::plan::Regions;

    #[test]
    fn topologies_have_their_nodes_and_all_distances() {
        let shape = |topology: Topology| topology.described().regions.shape();
        assert_eq!(shape(Topology::OneNode), (vec![1], 0));
        assert_eq!(shape(Topology::OneRegion), (vec![3], 0));
        assert_eq!(shape(Topology::ActivePassive), (vec![3, 3, 1], 3));
        assert_eq!(shape(Topology::SmallFollower), (vec![3, 1, 1], 3));
        assert_eq!(shape(Topology::ThreeRegions), (vec![3, 3, 3], 3));
        assert_eq!(shape(Topology::FiveRegions), (vec![3, 3, 3, 1, 1], 10));
        for topology in Topology::value_variants() {
            assert_eq!(topology.described().groups_per_region, 1);
        }
        assert_eq!(Topology::ThreeRegions.described().regions, Regions::default());
    }

    #[test]
    fn name_is_known_file_has_point_or_slash() {
        assert_eq!("one-node".parse(), Ok(TopologyChoice::Named(Topology::OneNode)));
        assert_eq!("own.toml".parse(), Ok(TopologyChoice::File("own.toml".into())));
        assert_eq!("./own".parse(), Ok(TopologyChoice::File("./own".into())));
        let refused = "one-nod".parse::<TopologyChoice>().unwrap_err();
        assert!(
            refused.starts_with("one of one-node, one-region, active-passive"),
            "{refused}"
        );
        let missing = TopologyChoice::File("nowhere/own.toml".into()).described().unwrap_err();
        assert!(
            missing.text().starts_with("--topology nowhere/own.toml: No such file"),
            "{missing:?}"
        );
    }
}
