//! Events on standard output.

use std::{collections::BTreeMap, path::Path};

use serde::Serialize;
use serde_json::Value;
use stead_testing::{Cluster, Flow, cluster::DialMap};

use super::super::contexts::ContextFile;
use crate::{exit::CommandError, output};

/// Event of one line.
#[derive(Debug, PartialEq, Serialize)]
#[serde(tag = "event", rename_all = "kebab-case")]
pub(super) enum Event {
    /// Every node can serve.
    Ready(Box<Ready>),
    /// Result of a command.
    Answer(Box<CommandResponse>),
    /// A node has ended, by a command or by itself.
    NodeDown { node: String },
    /// A node that was started again can serve.
    NodeUp { node: String, process: u32 },
    /// The link between two regions was cut.
    LinkCut { between: [String; 2] },
    /// The link between two regions was healed.
    LinkHealed { between: [String; 2] },
    /// The round trip between two regions was changed.
    LinkDelay { between: [String; 2], round_trip_ms: f64 },
    /// The cluster does not become ready.
    Failed { error: String },
    /// The nodes are about to end.
    Stopping { reason: &'static str },
}

/// Everything that a test needs to reach the cluster.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Ready {
    /// Path of the running `stead` binary.
    pub(super) program: String,
    /// Folder with configurations, logs and data.
    pub(super) data: String,
    /// Socket for `stead dev kill` and the like, with `--data` and the folder above.
    pub(super) control: String,
    /// With these variables `stead` has a context for each region.
    pub(super) environment: BTreeMap<&'static str, String>,
    /// Files of the CA, and of an operator's certificate and key; absent with `--plain`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(super) tls: Option<Tls>,
    pub(super) regions: Vec<Region>,
    #[serde(flatten)]
    pub(super) status: Status,
}

/// Files that a client needs.
#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Tls {
    ca: String,
    certificate: String,
    key: String,
}

impl Tls {
    pub(super) fn of(cluster: &Cluster) -> Option<Self> {
        let files = cluster.tls()?;
        Some(Self {
            ca: files.ca.display().to_string(),
            certificate: files.certificate?.display().to_string(),
            key: files.key?.display().to_string(),
        })
    }
}

#[derive(Debug, PartialEq, Serialize)]
pub(super) struct Region {
    name: String,
    jurisdiction: String,
    /// Addresses of its nodes for clients.
    endpoints: Vec<String>,
    /// Addresses that nodes of other regions advertise, and the addresses to dial instead from this region.
    dial: DialMap,
    /// Name of its context.
    context: String,
    /// File with the bearer token of an operator; absent where none is needed.
    token_file: Option<String>,
}

/// State that changes while the cluster runs.
#[derive(Debug, PartialEq, Serialize)]
pub(in crate::verbs::dev) struct Status {
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
    /// Process id; absent while it does not run.
    process: Option<u32>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Link {
    between: [String; 2],
    round_trip_ms: f64,
    is_cut: bool,
}

/// Result of a command: `ok` or `error`.
#[derive(Debug, Default, PartialEq, Serialize)]
pub(super) struct CommandResponse {
    /// Id of the command.
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
    pub(super) fn print(&self) -> Result<(), CommandError> {
        output::line(&serde_json::to_string(self).expect("events have text keys"))
    }
}

impl Region {
    pub(super) fn all(cluster: &Cluster, contexts: &ContextFile) -> Vec<Self> {
        let credentials = cluster.credentials();
        let token_file = credentials.map(|credentials| credentials.operator_token().display().to_string());
        let region = |region: &stead_testing::cluster::Region| Self {
            name: region.name.clone(),
            jurisdiction: region.jurisdiction.clone(),
            endpoints: cluster.endpoints(&region.name),
            dial: cluster.dial(&region.name).clone(),
            context: contexts.name(&region.name),
            token_file: token_file.clone(),
        };
        cluster.regions().iter().map(region).collect()
    }
}

impl Status {
    pub(in crate::verbs::dev) fn of(cluster: &mut Cluster, data: &Path) -> Self {
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
