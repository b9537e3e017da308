//! `stead cluster upgrade`.

use clap::Args;

use super::display;
use crate::{args::Target, confirm, context, exit::CommandError};

#[derive(Debug, Args)]
pub(crate) struct Upgrade {
    /// Raise the feature level at once to what this version supports
    ///
    /// Every node must have told the directory's leader that it supports it; else this is refused, with the names of the
    /// others. Without it the level is raised a day after every node has supported it. Afterwards no node of an earlier
    /// version can be started any more.
    #[arg(long)]
    finish: bool,
    /// Reason, for the audit log
    #[arg(long, default_value = "")]
    reason: String,
    /// Do not ask
    #[arg(long)]
    yes: bool,
}

impl Upgrade {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let admin = context::connect(target).await?.admin();
        let before = admin.cluster().await?;
        if !self.finish {
            return display::table(&before).print_one(target.output);
        }
        if before.feature_level < before.feature_level_supported && !self.yes {
            let level = before.feature_level_supported.to_string();
            let what = format!(
                "the feature level would be raised from {} to {level}: nodes of earlier versions could not be started any \
                 more",
                before.feature_level
            );
            confirm::by_name(&what, &level).await?;
        }
        let finished = admin.finish_upgrade(&self.reason).await;
        let cluster = finished
            .map_err(|error| CommandError::from(error).if_unknown("`stead cluster show` shows whether it was done"))?;
        display::table(&cluster).print_one(target.output)
    }
}
