//! `stead node add`, `stead node replace` and `stead node remove`.

use clap::Args;
use stead_client::TopologyRequest;

use crate::{
    args::Target,
    confirm,
    exit::CommandError,
    verbs::topology::{self, TopologyArgs},
};

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Name of the node, unique in the cluster
    name: String,
    /// Region of the node; --region is the region of this machine
    #[arg(long = "of", value_name = "REGION")]
    of: String,
    /// It only votes in the directory
    #[arg(long)]
    witness: bool,
    #[command(flatten)]
    args: TopologyArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Replace {
    /// Number or name of the node that goes, alive or lost
    node: String,
    /// Name of the node that comes; else that of the one that goes, as for the same machine with a new disk
    #[arg(long, value_name = "NAME", default_value = "")]
    by: String,
    #[command(flatten)]
    args: TopologyArgs,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Number or name of the node, alive or lost
    node: String,
    /// Also if its groups may lose fewer nodes afterwards
    #[arg(long)]
    accept_less: bool,
    #[command(flatten)]
    args: TopologyArgs,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

/// Returns what the operator does while the cluster waits for a node.
fn start_hint(name: &str) -> String {
    format!("start it: `stead serve --config FILE --node {name} --join ADDRESS`, with an empty data directory")
}

/// Asks whether a node may leave for good.
async fn confirm_leaving(node: &str) -> Result<(), CommandError> {
    let what = format!("node {node} would leave the cluster for good, and its data directory with it");
    confirm::by_name(&what, node).await
}

impl Add {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let hint = start_hint(&self.name);
        let request = TopologyRequest::AddNode {
            name: self.name,
            region: self.of,
            witness: self.witness,
        };
        topology::run(target, &self.args, request, Some(hint)).await
    }
}

impl Replace {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        if !self.yes {
            confirm_leaving(&self.node).await?;
        }
        let name = if self.by.is_empty() { &self.node } else { &self.by };
        let hint = start_hint(name);
        let request = TopologyRequest::ReplaceNode {
            node: self.node,
            name: self.by,
        };
        topology::run(target, &self.args, request, Some(hint)).await
    }
}

impl Remove {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        if !self.yes {
            confirm_leaving(&self.node).await?;
        }
        let request = TopologyRequest::RemoveNode {
            node: self.node,
            accept_less: self.accept_less,
        };
        topology::run(target, &self.args, request, None).await
    }
}
