//! `stead directory`.

mod display;
mod lookup;
mod recover;
mod restore;
mod watch;

use clap::Subcommand;

use crate::{args::Target, exit::CommandError};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the home of a tenant
    Lookup(lookup::Lookup),
    /// Recover a directory whose majority is lost for good, from the disk of a voter that is left
    ///
    /// Give it on the machine of that voter, whose node is stopped. The voter becomes the only one of a new directory. All
    /// tenants stop until their groups have told what they hold; changes of the directory that only the lost voters knew are
    /// lost. It is refused while another voter answers. docs/runbook.md says when, and what comes after it.
    Recover(recover::Recover),
    /// Give the directory the voters that the nodes allow, for instance after its recovery with one voter
    Restore(restore::Restore),
    /// Show the homes of tenants, and each change, until Ctrl-C
    Watch(watch::Watch),
}

impl Verb {
    /// Tells whether the verb handles Ctrl-C itself, because what it has begun goes on.
    pub(crate) fn detaches(&self) -> bool {
        matches!(self, Self::Restore(_))
    }

    pub(crate) async fn run(self, target: &Target) -> Result<(), CommandError> {
        match self {
            Self::Lookup(verb) => verb.run(target).await,
            Self::Recover(verb) => verb.run(target).await,
            Self::Restore(verb) => verb.run(target).await,
            Self::Watch(verb) => verb.run(target).await,
        }
    }
}
