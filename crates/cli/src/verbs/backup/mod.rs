//! `stead backup`: tenants at one revision each, in a folder or a bucket.
//!
//! ```text
//! create   collect (scan or watch) -> parts -> files -> seal -> place | bucket;  manifest last
//! restore  catalog -> kept -> chain -> compose (merge) -> restoration (kv import) -> content compared
//! ```

mod bucket;
#[cfg(test)]
mod bucket_test;
mod catalog;
mod chain;
#[cfg(test)]
mod chain_test;
mod change;
mod collect;
mod compose;
mod create;
mod files;
mod from;
mod kept;
mod keygen;
mod list;
mod manifest;
mod metrics;
mod parts;
mod place;
mod policy;
mod restoration;
mod restore;
mod restored;
mod run;
mod seal;
mod verify;

use clap::Subcommand;

pub(super) use self::run::age;
use crate::{args::Target, exit::CommandError};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Write the keys of tenants, each at one revision, into a new folder
    Create(create::Create),
    /// Make backups on a schedule, and remove old ones, until it is ended
    Run(run::Run),
    /// Show the backups of a place, the oldest first
    List(list::List),
    /// Compare every file of a backup, and of those on which it builds, with its digest
    Verify(verify::Verify),
    /// Make a new tenant from a backup, or all of its tenants
    Restore(restore::Restore),
    /// Make a key for encrypted backups
    Keygen(keygen::Keygen),
}

impl Verb {
    /// Tells whether an interrupt is the verb's own to handle.
    pub(crate) fn detaches(&self) -> bool {
        matches!(self, Self::Restore(_) | Self::Run(_))
    }

    pub(crate) async fn run(self, target: &Target) -> Result<(), CommandError> {
        match self {
            Self::Create(verb) => verb.run(target).await,
            Self::Run(verb) => Box::pin(verb.run(target)).await,
            Self::List(verb) => verb.run(target),
            Self::Verify(verb) => verb.run(target),
            Self::Restore(verb) => Box::pin(verb.run(target)).await,
            Self::Keygen(verb) => verb.run(),
        }
    }
}
