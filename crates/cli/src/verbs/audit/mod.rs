//! `stead audit`.

mod export;
mod list;

use clap::Subcommand;

use crate::{args::Target, exit::CommandError};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show who changed what, when and why, and what was refused, the newest first
    List(list::List),
    /// Write all records that are kept as JSON lines, the oldest first
    Export(export::Export),
}

impl Verb {
    pub(crate) async fn run(self, target: &Target) -> Result<(), CommandError> {
        match self {
            Self::List(verb) => verb.run(target).await,
            Self::Export(verb) => verb.run(target).await,
        }
    }
}
