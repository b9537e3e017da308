//! `stead directory`.

mod lookup;
mod shown;
mod watch;

use clap::Subcommand;

use crate::{args::Target, exit::Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show where a tenant lives
    Lookup(lookup::Lookup),
    /// Show where tenants live, and each change, until Ctrl-C
    Watch(watch::Watch),
}

impl Verb {
    pub(crate) async fn run(self, target: &Target) -> Result<(), Failure> {
        match self {
            Self::Lookup(verb) => verb.run(target).await,
            Self::Watch(verb) => verb.run(target).await,
        }
    }
}
