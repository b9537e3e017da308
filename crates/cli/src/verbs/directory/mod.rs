//! `stead directory`.

mod display;
mod lookup;
mod watch;

use clap::Subcommand;

use crate::{args::Target, exit::CommandError};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the home of a tenant
    Lookup(lookup::Lookup),
    /// Show the homes of tenants, and each change, until Ctrl-C
    Watch(watch::Watch),
}

impl Verb {
    pub(crate) async fn run(self, target: &Target) -> Result<(), CommandError> {
        match self {
            Self::Lookup(verb) => verb.run(target).await,
            Self::Watch(verb) => verb.run(target).await,
        }
    }
}
