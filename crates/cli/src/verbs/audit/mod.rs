//! `stead audit`.

mod list;

use clap::Subcommand;

use crate::{args::Target, exit::CommandError};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show who changed what, when and why, the newest first
    List(list::List),
}

impl Verb {
    pub(crate) async fn run(self, target: &Target) -> Result<(), CommandError> {
        match self {
            Self::List(verb) => verb.run(target).await,
        }
    }
}
