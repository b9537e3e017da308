//! `stead group promote`.

use clap::Args;
use stead_client::PromotionSelection;

use crate::{
    args::Target,
    exit::CommandError,
    verbs::operation::promote::{self, PromoteArgs},
};

#[derive(Debug, Args)]
pub(crate) struct Promote {
    /// Number of the group that is lost
    number: u32,
    #[command(flatten)]
    args: PromoteArgs,
}

impl Promote {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let what = format!(
            "every tenant whose home is group {} would get another home; the group serves none of them from then on, also if \
             it is alive",
            self.number
        );
        let selection = PromotionSelection::Group(self.number);
        promote::run(target, &self.args, selection, &what, &self.number.to_string()).await
    }
}
