//! `stead group add`.

use clap::Args;
use stead_client::TopologyRequest;

use crate::{
    args::Target,
    exit::CommandError,
    verbs::topology::{self, TopologyArgs},
};

#[derive(Debug, Args)]
pub(crate) struct Add {
    /// Name of the region
    of: String,
    #[command(flatten)]
    args: TopologyArgs,
}

impl Add {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let hint = format!(
            "new tenants come to it by themselves; `stead region spread {}` moves some that are there",
            self.of
        );
        topology::run(
            target,
            &self.args,
            TopologyRequest::AddGroup { region: self.of },
            Some(hint),
        )
        .await
    }
}
