//! `stead directory restore`.

use clap::Args;
use stead_client::TopologyRequest;

use crate::{
    args::Target,
    exit::CommandError,
    verbs::topology::{self, TopologyArgs},
};

#[derive(Debug, Args)]
pub(crate) struct Restore {
    #[command(flatten)]
    args: TopologyArgs,
}

impl Restore {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        topology::run(target, &self.args, TopologyRequest::RestoreDirectory, None).await
    }
}
