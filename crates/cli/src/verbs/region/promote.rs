//! `stead region promote`.

use clap::Args;
use stead_client::PromotionSelection;

use crate::{
    args::Target,
    exit::CommandError,
    verbs::operation::promote::{self, PromoteArgs},
};

#[derive(Debug, Args)]
pub(crate) struct Promote {
    /// Name of the region that is lost
    name: String,
    #[command(flatten)]
    args: PromoteArgs,
}

impl Promote {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let what = format!(
            "every tenant whose home is in {} would get another home; {0} serves none of them from then on, also if it is alive",
            self.name
        );
        let selection = PromotionSelection::Region(self.name.clone());
        promote::run(target, &self.args, selection, &what, &self.name).await
    }
}
