//! A node's configuration: one TOML file, the environment over it, flags over both.
//!
//! [`Config`] is the content of the file; [`Config::validate`] turns it into a [`ValidatedConfig`] or returns the
//! first value that cannot be used and what to do. An unknown key is an error that suggests the key that was probably
//! meant.

mod addresses;
mod auth;
mod duration;
mod engines;
mod load;
mod log_level;
mod tls;
mod validated;

use std::collections::BTreeMap;

pub use auth::{Auth, IssuerEntry};
pub use load::{ConfigError, KEYS};
use serde::{Deserialize, Serialize};
use stead_replication::{RetentionLimits, SeedLimits};
pub use tls::{Tls, TlsConfig};
pub use validated::{ListenAddresses, NodeConfig, ValidatedConfig};

/// Content of the configuration file; every key may be left out.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Config {
    /// Settings that are the same on every node.
    pub cluster: Cluster,
    /// Settings of this node.
    pub node: Node,
    /// Client listener, for services.
    pub client: ListenConfig,
    /// Peer listener, for other nodes.
    pub peer: ListenConfig,
    /// HTTP listener, for health, metrics and routes.
    pub http: ListenConfig,
    /// Storage settings.
    pub storage: Storage,
    /// Authentication settings.
    pub auth: Auth,
    /// Network settings.
    pub net: Net,
    /// Certificates, and where plain text is spoken.
    pub tls: Tls,
    /// Log settings.
    pub log: Log,
    /// Answer of the cluster to a node that has joined it; not in the file.
    #[serde(skip)]
    pub joined: Option<Joined>,
}

/// Identity of a node that has joined, as the cluster has told it.
#[derive(Clone, Debug, PartialEq)]
pub struct Joined {
    /// Its name.
    pub name: String,
    /// Its number.
    pub node: u64,
    /// Its region.
    pub region: String,
    /// Whether it only votes in the directory.
    pub witness: bool,
    /// Voters of the directory at that time; later ones are in its view.
    pub voters: Vec<JoinedVoter>,
}

/// Voter of the directory, as a node that joined was told.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JoinedVoter {
    /// Its number.
    pub node: u64,
    /// Its name.
    pub name: String,
    /// Its region.
    pub region: String,
    /// Its peer address.
    pub peer: String,
    /// Its client address.
    pub client: String,
}

/// Settings of the cluster, the same on every node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Cluster {
    /// Name of the cluster; a data directory of another one is refused.
    pub name: String,
    /// The first nodes, in an order that never changes: their ids are 1, 2, 3, … by position.
    pub initial: Vec<InitialNode>,
    /// Peer addresses of the cluster that a node joins which was announced; empty for the first nodes.
    pub join: Vec<String>,
    /// The regions and their jurisdictions, for residency.
    pub regions: Vec<RegionEntry>,
    /// Number of tenant groups of each region; fixed when the cluster is created.
    pub groups_per_region: u32,
    /// The longest round trip between two voters of the directory; its heartbeat interval follows from it.
    pub directory_rtt_max: String,
}

/// One of the initial nodes.
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
    /// Its `storage.engine`. A node on `sled` must declare it here, so that every node knows the engines of its
    /// groups.
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

/// Settings of this node.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Node {
    /// One of the names in `cluster.initial`.
    pub name: String,
    /// Its data directory.
    pub data_dir: String,
    /// Longest time for a stop before connections are closed.
    pub shutdown_timeout: String,
}

/// Addresses of a listener.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct ListenConfig {
    /// The address to bind; empty means the advertised one.
    pub listen: String,
    /// The address that others use; empty means the one in `cluster.initial`.
    pub advertise: String,
}

/// Storage settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Storage {
    /// `fjall`, `sled` or `memory`; fixed when the data directory is created.
    pub engine: String,
    /// Allows a group with a majority of its voters on sled.
    pub sled_majority: bool,
    /// Bytes of disk that are kept free: below it, writes that need room are refused. Zero: none.
    pub disk_reserve_bytes: u64,
    /// Most bytes of change history kept for each tenant group before followers must be seeded again.
    pub history_bytes_max: u64,
    /// Longest time that change history is kept for a follower that is disconnected.
    pub history_age_max: String,
    /// Bytes of change history that are kept for a tenant while it is copied to a new follower; beyond it the tenant's
    /// writers are slowed.
    pub seed_history_bytes_max: u64,
}

/// Network settings.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Net {
    /// Most bytes a second, before compression, that this node sends of tenants that are copied to new followers.
    pub seed_bytes_per_second_max: u64,
    /// Maps an advertised address to the address to dial.
    pub dial: BTreeMap<String, String>,
}

/// Log settings.
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
            join: Vec::new(),
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
            disk_reserve_bytes: 256 << 20,
            history_bytes_max: RetentionLimits::default().len_max,
            history_age_max: "24h".into(),
            seed_history_bytes_max: SeedLimits::default().history_max,
        }
    }
}

impl Default for Net {
    fn default() -> Self {
        Self {
            seed_bytes_per_second_max: SeedLimits::default().bytes_per_second_max,
            dial: BTreeMap::new(),
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
