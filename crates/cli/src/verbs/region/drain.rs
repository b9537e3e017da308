//! `stead region drain`, `stead region undrain` and `stead region spread`.

use clap::Args;
use stead_client::{Admin, BulkMoveOptions, TenantSelection};

use crate::{
    args::Target,
    exit::CommandError,
    verbs::operation::bulk::{self, BulkArgs, Question, SourceArg},
};

#[derive(Debug, Args)]
pub(crate) struct Drain {
    /// Name of the region
    name: String,
    /// Region where its tenants go; else each goes to a follower if it has one
    #[arg(long, value_name = "REGION")]
    to: Option<String>,
    /// Role of the region afterwards; else it follows, so that the tenants can return without a copy
    #[arg(long, value_enum)]
    source: Option<SourceArg>,
    /// Also if the region holds forks: they stay on its nodes, and are lost if these are taken away
    #[arg(long)]
    keep_forks: bool,
    #[command(flatten)]
    args: BulkArgs,
    /// Do not show the plan and ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Undrain {
    /// Name of the region
    name: String,
    /// Only let the region take tenants again: none returns, and which ones would is forgotten
    #[arg(long)]
    open_only: bool,
    #[command(flatten)]
    args: BulkArgs,
    /// Do not show the plan and ask
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(crate) struct Spread {
    /// Name of the region
    name: String,
    #[command(flatten)]
    args: BulkArgs,
}

impl Drain {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let question = Question {
            what: format!(
                "every tenant would leave its home in {}, which takes no new ones until it is undrained",
                self.name
            ),
            name: &self.name,
        };
        let begin = async |admin: &Admin, options: BulkMoveOptions| {
            let options = BulkMoveOptions {
                keep_forks: self.keep_forks,
                ..options
            };
            admin.drain_region(&self.name, self.to.as_deref(), options).await
        };
        let question = (!self.yes && !self.args.dry_run).then_some(question);
        bulk::run(target, &self.args, bulk::source(self.source), question, begin).await
    }
}

impl Undrain {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let what = match self.open_only {
            true => format!("region {} would take tenants again, and none would return", self.name),
            false => format!("region {} would take tenants again, and these would return", self.name),
        };
        let question = Question { what, name: &self.name };
        let begin = async |admin: &Admin, options: BulkMoveOptions| {
            admin.undrain_region(&self.name, self.open_only, options).await
        };
        let question = (!self.yes && !self.args.dry_run).then_some(question);
        bulk::run(target, &self.args, bulk::source(None), question, begin).await
    }
}

impl Spread {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let begin = async |admin: &Admin, options: BulkMoveOptions| {
            admin
                .move_tenants(TenantSelection::Spread(self.name.clone()), options)
                .await
        };
        bulk::run(target, &self.args, bulk::source(None), None, begin).await
    }
}
