//! A node's configuration: one TOML file, the environment over it, flags over both.
//!
//! [`Config`] is what the file says; [`Config::check`] turns it into a [`Checked`] configuration or names the
//! first thing that is wrong and what to do. A key that does not exist is an error that says which was meant.

mod checked;
mod engines;
mod load;

use std::collections::BTreeMap;

pub use checked::{Checked, Listener, Member};
pub use load::{Invalid, KEYS};
use serde::{Deserialize, Serialize};

/// The file's form; every key may be left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// What is the same on every node.
    pub cluster: Cluster,
    /// Which node this is.
    pub node: Node,
    /// Where services connect.
    pub client: Listen,
    /// Where other nodes connect.
    pub peer: Listen,
    /// Health, metrics, routes.
    pub http: Listen,
    /// Where rows are kept.
    pub storage: Storage,
    /// How other nodes are reached.
    pub net: Net,
    /// What is logged.
    pub log: Log,
}

/// What is the same on every node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// Names the cluster; a data directory of another one is refused.
    pub name: String,
    /// The first nodes, in an order that never changes: their ids are 1, 2, 3, … by position.
    pub initial: Vec<InitialNode>,
    /// The regions and where they lie, for residency.
    pub regions: Vec<RegionEntry>,
    /// Tenant groups of each region; fixed when the cluster begins.
    pub groups_per_region: u32,
    /// The longest round trip between two voters of the directory; its heartbeats follow from it.
    pub directory_rtt_max: String,
}

/// One of the first nodes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InitialNode {
    /// Its name, unique in the cluster.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Its advertised peer address.
    pub peer: String,
    /// Its advertised client address.
    pub client: String,
    /// Its advertised HTTP address.
    #[serde(default)]
    pub http: String,
    /// Only votes in the directory and holds no tenant.
    #[serde(default)]
    pub witness: bool,
    /// Its `storage.engine`; a node on `sled` must say so here, so that every node knows what its groups stand on.
    #[serde(default)]
    pub engine: String,
}

/// A region.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RegionEntry {
    /// Its name.
    pub name: String,
    /// Its jurisdiction, such as `EU`.
    pub jurisdiction: String,
}

/// Which node this is.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// One of the names in `cluster.initial`.
    pub name: String,
    /// Where it keeps everything.
    pub data_dir: String,
    /// How long a stop may take before connections are cut.
    pub shutdown_timeout: String,
}

/// A listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Listen {
    /// The address to bind; empty means the advertised one.
    pub listen: String,
    /// The address that others use; empty means the one in `cluster.initial`.
    pub advertise: String,
}

/// Where rows are kept.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// `fjall`, `sled` or `memory`; fixed when the data directory is made.
    pub engine: String,
    /// Lets a group stand on sled with a majority of its voters.
    pub sled_majority: bool,
    /// Most bytes of change history kept for each tenant group before followers must be seeded again.
    pub history_bytes_max: u64,
    /// Longest time that change history is kept for a follower that is away.
    pub history_age_max: String,
}

/// How other nodes are reached.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Net {
    /// Maps an advertised address to the address to dial.
    pub dial: BTreeMap<String, String>,
}

/// What is logged.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Log {
    /// `auto` (text on a terminal, JSON elsewhere), `text` or `json`.
    pub format: String,
    /// A filter such as `info` or `stead_raft=debug,info`.
    pub level: String,
}

impl Default for Cluster {
    fn default() -> Self {
        Self {
            name: "stead".into(),
            initial: Vec::new(),
            regions: Vec::new(),
            groups_per_region: 4,
            directory_rtt_max: "300ms".into(),
        }
    }
}

impl Default for Node {
    fn default() -> Self {
        Self {
            name: String::new(),
            data_dir: "/var/lib/stead".into(),
            shutdown_timeout: "30s".into(),
        }
    }
}

impl Default for Storage {
    fn default() -> Self {
        Self {
            engine: "fjall".into(),
            sled_majority: false,
            history_bytes_max: 256 << 20,
            history_age_max: "24h".into(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            format: "auto".into(),
            level: "info".into(),
        }
    }
}
