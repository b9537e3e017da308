//! Which nodes there are and where they listen.

use std::{
    fs,
    net::{Ipv4Addr, TcpListener},
    path::PathBuf,
    time::Duration,
};

use serde::{Deserialize, Serialize};

use super::{Error, error::at};

/// Between the ports of one region's nodes and the next one's.
const REGION_STEP: u16 = 10;
/// Between client, peer and HTTP ports.
const KIND_STEP: u16 = 100;
/// Between two ranges that are probed, and how often.
const PROBE_STEP: u16 = 300;
const PROBES_MAX: u16 = 20;
/// Where ports and names are kept.
pub(super) const KEPT: &str = "cluster.json";

/// What to start.
#[derive(Clone, Debug)]
pub struct Plan {
    /// The binary; it is started as `BINARY serve --config FILE`.
    pub binary: PathBuf,
    /// Where configurations, logs and the nodes' data directories go; kept from start to start.
    pub data: PathBuf,
    /// The regions, in the order of their ports.
    pub regions: Vec<Region>,
    /// Round trips between pairs of regions; a pair that is not here is next door.
    pub round_trips: Vec<(String, String, Duration)>,
    /// The first node's client port. With fresh data, later ranges are tried if one of its ports is in use.
    pub base_port: u16,
    /// Storage engines, by a node's place in its region, round robin.
    pub engines: Vec<String>,
}

/// A place with some nodes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Region {
    /// Its name; its nodes are `name-1`, `name-2` and so on.
    pub name: String,
    /// Whose law it is under.
    pub jurisdiction: String,
    /// How many nodes it has, at most ten.
    pub nodes: usize,
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
    /// Where it takes clients.
    pub client: String,
    /// Where it takes other nodes.
    pub peer: String,
    /// Where it answers HTTP.
    pub http: String,
}

impl Plan {
    /// Returns a node's configuration file.
    pub fn config_of(&self, node: &str) -> PathBuf {
        self.data.join(format!("{node}.toml"))
    }

    /// Returns where a node's output goes.
    pub fn log_of(&self, node: &str) -> PathBuf {
        self.data.join(format!("{node}.log"))
    }

    /// Returns where a node keeps everything.
    pub fn data_of(&self, node: &str) -> PathBuf {
        self.data.join(node)
    }
}

/// The nodes of a plan, with ports.
#[derive(Debug)]
pub(super) struct Layout {
    pub(super) nodes: Vec<Node>,
}

/// What is kept beside the nodes' data, so that addresses stay (C2).
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Kept {
    base_port: u16,
    nodes: Vec<String>,
}

impl Layout {
    /// Returns the kept layout, or makes one on free ports.
    pub(super) fn of(plan: &Plan) -> Result<Self, Error> {
        let path = plan.data.join(KEPT);
        match fs::read(&path) {
            Ok(bytes) => Self::kept(plan, &bytes),
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                let (base_port, layout) = Self::probed(plan)?;
                let nodes = layout.nodes.iter().map(|node| node.name.clone()).collect();
                let kept = serde_json::to_vec(&Kept { base_port, nodes }).expect("plain values");
                fs::write(&path, kept).map_err(at("write", &path))?;
                Ok(layout)
            }
            Err(error) => Err(at("read", &path)(error)),
        }
    }

    fn kept(plan: &Plan, bytes: &[u8]) -> Result<Self, Error> {
        let other = || Error::OtherLayout(plan.data.clone());
        let kept: Kept = serde_json::from_slice(bytes).map_err(|_| other())?;
        let layout = Self::from(plan, kept.base_port);
        if !layout.nodes.iter().map(|node| &node.name).eq(&kept.nodes) {
            return Err(other());
        }
        if let Some(port) = layout.ports().find(|port| !is_free(*port)) {
            let data = plan.data.clone();
            return Err(Error::PortInUse { port, data });
        }
        Ok(layout)
    }

    fn probed(plan: &Plan) -> Result<(u16, Self), Error> {
        let bases = (0..PROBES_MAX).filter_map(|probe| plan.base_port.checked_add(probe * PROBE_STEP));
        for base in bases {
            let layout = Self::from(plan, base);
            if layout.ports().all(is_free) {
                return Ok((base, layout));
            }
        }
        let count = plan.regions.iter().map(|region| region.nodes * 3).sum();
        Err(Error::NoPorts {
            count,
            base: plan.base_port,
        })
    }

    fn from(plan: &Plan, base: u16) -> Self {
        let mut nodes = Vec::new();
        let mut first = base;
        for region in &plan.regions {
            let engines = plan.engines.iter().cycle();
            for ((place, engine), client) in (1..=region.nodes).zip(engines).zip(first..) {
                let address = |kind: u16| format!("127.0.0.1:{}", client.saturating_add(kind * KIND_STEP));
                nodes.push(Node {
                    name: format!("{}-{place}", region.name),
                    region: region.name.clone(),
                    engine: engine.clone(),
                    client: address(0),
                    peer: address(1),
                    http: address(2),
                });
            }
            first = first.saturating_add(REGION_STEP);
        }
        Self { nodes }
    }

    fn ports(&self) -> impl Iterator<Item = u16> {
        let addresses = self
            .nodes
            .iter()
            .flat_map(|node| [&node.client, &node.peer, &node.http]);
        addresses.filter_map(|address| address.rsplit(':').next()?.parse().ok())
    }
}

fn is_free(port: u16) -> bool {
    TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok()
}
