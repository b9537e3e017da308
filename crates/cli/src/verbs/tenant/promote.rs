//! `stead tenant promote`.

use clap::Args;
use stead_client::PromotionSelection;

use crate::{
    args::Target,
    exit::CommandError,
    output::list,
    verbs::operation::promote::{self, PromoteArgs},
};

#[derive(Debug, Args)]
pub(crate) struct Promote {
    /// Names of the tenants whose home is lost
    #[arg(required = true)]
    names: Vec<String>,
    #[command(flatten)]
    args: PromoteArgs,
}

impl Promote {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let (what, typed) = match self.names.as_slice() {
            [only] => (format!("{only} would get another home"), only.clone()),
            many => (
                format!("{} would get other homes", list(many)),
                format!("{} tenants", many.len()),
            ),
        };
        let what = format!("{what}; the home before does not serve from then on, also if it is alive");
        let selection = PromotionSelection::Tenants(self.names.clone());
        promote::run(target, &self.args, selection, &what, &typed).await
    }
}
