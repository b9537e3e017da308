//! Layout of a cluster: its nodes and their addresses.

use std::{fs, path::PathBuf, time::Duration};

use serde::{Deserialize, Serialize};
use stead_cert::CertificateFolder;
use stead_types::{Jurisdiction, RegionName};

use super::{
    Error,
    error::at,
    ports::{PortClaim, Ports, is_free},
};

/// Distance between the ports of one region's nodes and the next one's.
const REGION_STEP: u16 = 10;
/// Distance between client, peer and HTTP ports.
const KIND_STEP: u16 = 100;
/// Distance between two ranges that are probed, and the number of probes.
const PROBE_STEP: u16 = 300;
const PROBES_MAX: u16 = 20;
/// Ports of a node: client, peer and HTTP.
const PORTS_OF_NODE: usize = 3;
/// Most nodes of a region: more would reach into the next region's ports.
const NODES_MAX: usize = REGION_STEP as usize;
/// File in which ports and names are stored.
pub(super) const LAYOUT_FILE: &str = "cluster.json";

/// Plan of a cluster to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The binary; it is started as `BINARY serve --config FILE`.
    pub binary: PathBuf,
    /// Directory of configurations, logs and the nodes' data; kept from start to start.
    pub data: PathBuf,
    /// The regions, in the order of their ports.
    pub regions: Vec<Region>,
    /// Round trips between pairs of regions; a pair that is not here has none.
    pub round_trips: Vec<(String, String, Duration)>,
    /// Ports that nodes listen at.
    pub ports: Ports,
    /// Storage engines, by a node's position in its region, round robin.
    pub engines: Vec<String>,
    /// Number of tenant groups that a region begins with.
    pub groups_per_region: usize,
    /// Whether nodes and clients speak TLS, with certificates that are made in the directory; otherwise plain text.
    pub tls: bool,
    /// Whether nodes ask callers for credentials; if not, everybody may do everything.
    pub asks_for_credentials: bool,
}

/// A region with its nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its name; its nodes are `name-1`, `name-2` and so on.
    pub name: String,
    /// Its jurisdiction.
    pub jurisdiction: String,
    /// Number of its nodes, at most ten.
    pub nodes: usize,
    /// Number of them, the first ones, that the cluster begins with; with none the region is added later. The others have
    /// addresses and certificates, and join once they were announced.
    pub initial: usize,
    /// Whether its nodes are witnesses, which only vote in the directory.
    pub witness: bool,
}

impl Region {
    /// Returns a region whose jurisdiction is the first part of its name: `US` for `us-east`.
    pub fn new(name: &str, nodes: usize) -> Self {
        let first = name.split('-').find(|part| !part.is_empty()).unwrap_or_default();
        let jurisdiction = first.to_ascii_uppercase();
        Self {
            name: name.to_owned(),
            jurisdiction: jurisdiction.chars().take(Jurisdiction::LEN_MAX).collect(),
            nodes,
            initial: nodes,
            witness: false,
        }
    }

    fn check(&self) -> Result<(), String> {
        self.name.parse::<RegionName>().map_err(|error| error.to_string())?;
        self.jurisdiction
            .parse::<Jurisdiction>()
            .map_err(|error| error.to_string())?;
        match self.nodes {
            1..=NODES_MAX => Ok(()),
            nodes => Err(format!("a region has 1 to {NODES_MAX} nodes, this one has {nodes}")),
        }
    }
}

/// One node and the addresses that it advertises.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    /// Its name.
    pub name: String,
    /// Its region's name.
    pub region: String,
    /// Its storage engine.
    pub engine: String,
    /// Address for clients.
    pub client: String,
    /// Address for other nodes.
    pub peer: String,
    /// Address for HTTP.
    pub http: String,
    /// Whether the cluster begins with it; otherwise it joins.
    pub initial: bool,
}

impl Plan {
    /// Returns a node's configuration file.
    pub fn config_of(&self, node: &str) -> PathBuf {
        self.data.join(format!("{node}.toml"))
    }

    /// Returns a node's log file.
    pub fn log_of(&self, node: &str) -> PathBuf {
        self.data.join(format!("{node}.log"))
    }

    /// Returns the file with the offset of a node's wall clock in milliseconds.
    pub fn clock_of(&self, node: &str) -> PathBuf {
        self.data.join(format!("{node}.clock"))
    }

    /// Returns a node's data directory.
    pub fn data_of(&self, node: &str) -> PathBuf {
        self.data.join(node)
    }

    /// Returns the folder of the cluster's certificates.
    pub fn certificates(&self) -> CertificateFolder {
        let data = std::path::absolute(&self.data).unwrap_or_else(|_| self.data.clone());
        CertificateFolder::at(data.join("certs"))
    }

    /// Checks names and numbers, so that a typing error is reported before anything is made.
    pub(super) fn check(&self) -> Result<(), Error> {
        if self.regions.iter().all(|region| region.initial == 0) {
            return Err(Error::NoRegions);
        }
        let names = || self.regions.iter().map(|region| region.name.as_str());
        for region in &self.regions {
            let why = match region.check() {
                Ok(()) if names().filter(|name| *name == region.name).count() == 1 => continue,
                Ok(()) => "it is named twice".to_owned(),
                Err(why) => why,
            };
            let name = region.name.clone();
            return Err(Error::Region { name, why });
        }
        for (from, to, _) in &self.round_trips {
            if from == to || ![from, to].iter().all(|end| names().any(|name| name == *end)) {
                return Err(Error::Unknown(format!("{from} - {to}")));
            }
        }
        Ok(())
    }
}

/// The nodes of a plan, with ports.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) nodes: Vec<Node>,
    /// Claim on the ports, for as long as nodes may listen.
    _claim: Option<PortClaim>,
}

/// Layout that is stored beside the nodes' data, so that addresses stay (C2).
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct StoredLayout {
    base_port: u16,
    nodes: Vec<String>,
}

impl Layout {
    /// Returns the stored layout, or makes one on free ports.
    pub(super) fn of(plan: &Plan) -> Result<Self, Error> {
        let base = match plan.ports {
            Ports::From(base) => base,
            Ports::Any => return Self::claim(plan),
        };
        let path = plan.data.join(LAYOUT_FILE);
        match fs::read(&path) {
            Ok(bytes) => Self::load(plan, &bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let (base_port, layout) = Self::probe(plan, base)?;
                let nodes = layout.nodes.iter().map(|node| node.name.clone()).collect();
                let stored = serde_json::to_vec(&StoredLayout { base_port, nodes }).expect("plain values");
                fs::write(&path, stored).map_err(at("write", &path))?;
                Ok(layout)
            }
            Err(error) => Err(at("read", &path)(error)),
        }
    }

    fn claim(plan: &Plan) -> Result<Self, Error> {
        let count = ports_of(plan);
        let claim = PortClaim::take(count).ok_or(Error::NoPortsLeft { count })?;
        let nodes = nodes_of(plan).zip(claim.ports().chunks_exact(PORTS_OF_NODE));
        let nodes =
            nodes.map(|((region, place, engine), ports)| node(region, place, engine, [ports[0], ports[1], ports[2]]));
        Ok(Self {
            nodes: nodes.collect(),
            _claim: Some(claim),
        })
    }

    fn load(plan: &Plan, bytes: &[u8]) -> Result<Self, Error> {
        let other = || Error::OtherLayout(plan.data.clone());
        let stored: StoredLayout = serde_json::from_slice(bytes).map_err(|_| other())?;
        let layout = Self::from(plan, stored.base_port);
        if !layout.nodes.iter().map(|node| &node.name).eq(&stored.nodes) {
            return Err(other());
        }
        if let Some(port) = layout.ports().find(|port| !is_free(*port)) {
            let data = plan.data.clone();
            return Err(Error::PortInUse { port, data });
        }
        Ok(layout)
    }

    fn probe(plan: &Plan, base: u16) -> Result<(u16, Self), Error> {
        let bases = (0..PROBES_MAX).filter_map(|probe| base.checked_add(probe * PROBE_STEP));
        for base in bases {
            let layout = Self::from(plan, base);
            if layout.ports().all(is_free) {
                return Ok((base, layout));
            }
        }
        let count = ports_of(plan);
        Err(Error::NoPorts { count, base })
    }

    fn from(plan: &Plan, base: u16) -> Self {
        let firsts = (0..).map(|region: u16| base.saturating_add(region * REGION_STEP));
        let firsts = plan.regions.iter().zip(firsts);
        let clients = firsts.flat_map(|(region, first)| (first..).take(region.nodes));
        let nodes = nodes_of(plan).zip(clients).map(|((region, place, engine), client)| {
            let ports = [0, 1, 2].map(|kind| client.saturating_add(kind * KIND_STEP));
            node(region, place, engine, ports)
        });
        Self {
            nodes: nodes.collect(),
            _claim: None,
        }
    }

    fn ports(&self) -> impl Iterator<Item = u16> {
        let addresses = self
            .nodes
            .iter()
            .flat_map(|node| [&node.client, &node.peer, &node.http]);
        addresses.filter_map(|address| address.rsplit(':').next()?.parse().ok())
    }
}

fn ports_of(plan: &Plan) -> usize {
    plan.regions.iter().map(|region| region.nodes * PORTS_OF_NODE).sum()
}

/// Returns every node's region, position in it and engine.
fn nodes_of(plan: &Plan) -> impl Iterator<Item = (&Region, usize, &String)> {
    plan.regions.iter().flat_map(|region| {
        let places = (1..=region.nodes).zip(plan.engines.iter().cycle());
        places.map(move |(place, engine)| (region, place, engine))
    })
}

fn node(region: &Region, place: usize, engine: &str, ports: [u16; PORTS_OF_NODE]) -> Node {
    let [client, peer, http] = ports.map(|port| format!("127.0.0.1:{port}"));
    Node {
        name: format!("{}-{place}", region.name),
        region: region.name.clone(),
        engine: engine.to_owned(),
        client,
        peer,
        http,
        initial: place <= region.initial,
    }
}
