//! `stead region add` and `stead region remove`.

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
    /// Name of the region
    name: String,
    /// Jurisdiction of its data, such as EU
    #[arg(long)]
    jurisdiction: String,
    /// Names of its first nodes, with commas between; one is enough, two bear no loss, three bear one
    #[arg(long, value_name = "NAMES", value_delimiter = ',', required = true)]
    nodes: Vec<String>,
    /// The nodes only vote in the directory: a place for the third voter of two regions
    #[arg(long)]
    witness: bool,
    #[command(flatten)]
    args: TopologyArgs,
}

#[derive(Debug, Args)]
pub(crate) struct Remove {
    /// Name of the region, in which no tenant is at home: drain it first, or promote its tenants if its nodes are lost
    name: String,
    /// Its nodes are lost for good: what only they have, forks included, is given up. Waits if one of them answers
    #[arg(long)]
    lost: bool,
    #[command(flatten)]
    args: TopologyArgs,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Add {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let hint = format!(
            "start each of {}: `stead serve --config FILE --node NAME --join ADDRESS`, with an empty data directory",
            self.nodes.join(", ")
        );
        let request = TopologyRequest::AddRegion {
            name: self.name,
            jurisdiction: self.jurisdiction,
            nodes: self.nodes,
            witness: self.witness,
        };
        topology::run(target, &self.args, request, Some(hint)).await
    }
}

impl Remove {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        if !self.yes {
            let what = format!(
                "region {} would leave the cluster, with its nodes and its copies of tenants",
                self.name
            );
            confirm::by_name(&what, &self.name).await?;
        }
        topology::run(
            target,
            &self.args,
            TopologyRequest::RemoveRegion {
                name: self.name,
                lost: self.lost,
            },
            None,
        )
        .await
    }
}
