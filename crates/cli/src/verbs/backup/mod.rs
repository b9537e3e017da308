//! `stead backup`: tenants at one revision each, in a folder.

mod create;
mod list;
mod manifest;
mod parts;
mod restore;

use clap::Subcommand;

use crate::{args::Target, exit::CommandError};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Write the keys of tenants, each at one revision, into a new folder
    Create(create::Create),
    /// Show the backups of a folder, the oldest first
    List(list::List),
    /// Compare every file of a backup with its digest
    Verify(list::Verify),
    /// Make a new tenant from a backup
    Restore(restore::Restore),
}

impl Verb {
    /// Tells whether an interrupt is the verb's own to handle.
    pub(crate) fn detaches(&self) -> bool {
        matches!(self, Self::Restore(_))
    }

    pub(crate) async fn run(self, target: &Target) -> Result<(), CommandError> {
        match self {
            Self::Create(verb) => verb.run(target).await,
            Self::List(verb) => verb.run(target),
            Self::Verify(verb) => verb.run(target),
            Self::Restore(verb) => verb.run(target).await,
        }
    }
}
