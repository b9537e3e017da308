//! `stead region rehearse`.

use clap::Args;
use stead_client::{Admin, BulkMoveOptions};

use crate::{
    args::Target,
    exit::CommandError,
    verbs::operation::bulk::{self, BulkArgs, Question},
};

#[derive(Debug, Args)]
pub(crate) struct Rehearse {
    /// Name of the region whose loss is rehearsed
    name: String,
    /// Tenants at home there that go away and come back, with commas between
    #[arg(long, value_name = "TENANTS", value_delimiter = ',', required = true)]
    tenants: Vec<String>,
    /// Region where they go; else each goes where a promotion would put it
    #[arg(long, value_name = "REGION")]
    to: Option<String>,
    #[command(flatten)]
    args: BulkArgs,
    /// Do not show the plan and ask
    #[arg(long)]
    yes: bool,
}

impl Rehearse {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let question = Question {
            what: format!(
                "{} tenants of {} would move away and come back, under their load; the writes of each pause twice, for about \
                 a round trip",
                self.tenants.len(),
                self.name
            ),
            name: &self.name,
        };
        let begin = async |admin: &Admin, options: BulkMoveOptions| {
            let tenants = self.tenants.clone();
            admin
                .rehearse_region(&self.name, tenants, self.to.as_deref(), options)
                .await
        };
        let question = (!self.yes && !self.args.dry_run).then_some(question);
        bulk::run(target, &self.args, bulk::source(None), question, begin).await
    }
}
