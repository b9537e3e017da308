//! `stead cluster`.

mod check;
mod display;
mod set;
mod upgrade;

use clap::Subcommand;

use crate::{args::Target, context, exit::CommandError};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the settings of the whole cluster
    Show,
    /// Change a setting of the whole cluster
    #[command(subcommand)]
    Set(set::Setting),
    /// Show whether an upgrade is finished, or finish it
    Upgrade(upgrade::Upgrade),
    /// Find what is wrong, or bears less than it could, before users notice it; exit code 8 if anything is found
    Check(check::Check),
}

impl Verb {
    pub(crate) async fn run(self, target: &Target) -> Result<(), CommandError> {
        match self {
            Self::Show => {
                let admin = context::connect(target).await?.admin();
                display::table(&admin.cluster().await?).print_one(target.output)
            }
            Self::Set(setting) => setting.run(target).await,
            Self::Upgrade(verb) => verb.run(target).await,
            Self::Check(verb) => verb.run(target).await,
        }
    }
}
