//! `stead region failback`.

use clap::Args;
use stead_client::{Admin, BulkMoveOptions};

use crate::{
    args::Target,
    exit::CommandError,
    verbs::operation::bulk::{self, BulkArgs, Question},
};

#[derive(Debug, Args)]
pub(crate) struct Failback {
    /// Name of the region that is back
    name: String,
    #[command(flatten)]
    args: BulkArgs,
    /// Do not show the plan and ask
    #[arg(long)]
    yes: bool,
}

impl Failback {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let question = Question {
            what: format!(
                "the tenants that promotions have taken from {} and that are where these have put them would return",
                self.name
            ),
            name: &self.name,
        };
        let begin = async |admin: &Admin, options: BulkMoveOptions| admin.failback_region(&self.name, options).await;
        let question = (!self.yes && !self.args.dry_run).then_some(question);
        bulk::run(target, &self.args, bulk::source(None), question, begin).await
    }
}
