//! What is told on standard output.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;
use serde_json::Value;
use stead_testing::{Cluster, Flow, cluster::DialMap};

use super::super::contexts;
use crate::{exit::Failure, output};

/// One line.
#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum Event {
    /// Every node can serve.
    Ready(Box<Ready>),
    /// What has become of a command.
    Answer(Box<Answer>),
    /// A node has ended, whoever ended it.
    NodeDown { node: String },
    /// A node that was started again can serve.
    NodeUp { node: String, process: u32 },
    /// No byte passes between two regions.
    LinkCut { between: [String; 2] },
    /// Bytes pass between two regions again.
    LinkHealed { between: [String; 2] },
    /// Two regions were moved.
    LinkDelay { between: [String; 2], round_trip_ms: f64 },
    /// The cluster does not become ready.
    Failed { error: String },
    /// The nodes are about to end.
    Stopping { reason: &'static str },
}

/// Everything that a test needs to reach the cluster.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Ready {
    /// The program `stead` that runs here.
    pub(super) program: String,
    /// The folder with configurations, logs and data.
    pub(super) data: String,
    /// The socket that `stead dev kill` and the like ask, with `--data` and the folder above.
    pub(super) control: String,
    /// With these variables `stead` has a context for each region.
    pub(super) environment: BTreeMap<&'static str, String>,
    pub(super) regions: Vec<Region>,
    #[serde(flatten)]
    pub(super) status: Status,
}

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Region {
    name: String,
    jurisdiction: String,
    /// Where its nodes take clients.
    endpoints: Vec<String>,
    /// Addresses that nodes of other regions advertise, and what somebody in this region dials instead.
    dial: DialMap,
    /// The name of its context.
    context: String,
}

/// What changes while the cluster runs.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Status {
    nodes: Vec<Node>,
    links: Vec<Link>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Node {
    name: String,
    region: String,
    client: String,
    http: String,
    log: String,
    /// Absent while it does not run.
    process: Option<u32>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Link {
    between: [String; 2],
    round_trip_ms: f64,
    is_cut: bool,
}

/// What has become of a command: `ok` or `error`.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct Answer {
    /// As the command had it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) id: Option<Value>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) ok: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) error: Option<String>,
    #[serde(flatten)]
    pub(super) status: Option<Status>,
}

impl Event {
    /// Prints the event as a line.
    pub(super) fn tell(&self) -> Result<(), Failure> {
        output::line(&serde_json::to_string(self).expect("events have text keys"))
    }
}

impl Region {
    pub(super) fn all(cluster: &Cluster) -> Vec<Self> {
        let region = |region: &stead_testing::cluster::Region| Self {
            name: region.name.clone(),
            jurisdiction: region.jurisdiction.clone(),
            endpoints: cluster.endpoints(&region.name),
            dial: cluster.dial(&region.name).clone(),
            context: contexts::name(&region.name),
        };
        cluster.regions().iter().map(region).collect()
    }
}

impl Status {
    pub(super) fn of(cluster: &mut Cluster, data: &Path) -> Self {
        let nodes = cluster.nodes().to_vec().into_iter().map(|node| Node {
            process: cluster.process(&node.name),
            log: data.join(format!("{}.log", node.name)).display().to_string(),
            name: node.name,
            region: node.region,
            client: node.client,
            http: node.http,
        });
        let nodes = nodes.collect();
        let links = cluster.links().map(|(from, to, link)| Link {
            between: [from.to_owned(), to.to_owned()],
            round_trip_ms: link.round_trip().as_secs_f64() * 1e3,
            is_cut: link.there.shape().flow != Flow::Open,
        });
        let links = links.collect();
        Self { nodes, links }
    }
}
