//! `stead region`.

mod change;
mod drain;
mod failback;
mod list;
mod promote;
mod readiness;
mod rehearse;
pub(super) mod seeds;
mod status;

use clap::Subcommand;

pub(super) use self::status::health_problem;
use crate::{args::Target, exit::CommandError};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the regions
    List,
    /// Show the status of a region: nodes, groups, lag behind others
    Status(status::Status),
    /// Move every tenant out of its home in a region, in waves, and let it take no new ones
    Drain(drain::Drain),
    /// Let a drained region take tenants again, and move those back that were drained
    Undrain(drain::Undrain),
    /// Give every tenant of a region that is lost another home, from the copies that are left
    Promote(promote::Promote),
    /// Show what a promotion would do if a region were lost now: where its tenants would go, for how long nobody would serve
    /// them, what could be lost
    Readiness(readiness::Readiness),
    /// Move tenants of a region away and back under their load, and keep what was measured
    Rehearse(rehearse::Rehearse),
    /// Move the tenants back that promotions have taken from a region, in waves
    Failback(failback::Failback),
    /// Move tenants of a region from its groups with most to those with least
    Spread(drain::Spread),
    /// Add a region with its first nodes: announce them, wait until they have joined, and let tenants be followed there
    Add(change::Add),
    /// Remove a region in which no tenant is at home, once it has erased what it followed
    Remove(change::Remove),
}

impl Verb {
    pub(crate) async fn run(self, target: &Target) -> Result<(), CommandError> {
        match self {
            Self::List => list::run(target).await,
            Self::Status(verb) => verb.run(target).await,
            Self::Drain(verb) => verb.run(target).await,
            Self::Undrain(verb) => verb.run(target).await,
            Self::Promote(verb) => verb.run(target).await,
            Self::Readiness(verb) => verb.run(target).await,
            Self::Rehearse(verb) => verb.run(target).await,
            Self::Failback(verb) => verb.run(target).await,
            Self::Spread(verb) => verb.run(target).await,
            Self::Add(verb) => verb.run(target).await,
            Self::Remove(verb) => verb.run(target).await,
        }
    }

    /// Tells whether the verb handles Ctrl-C itself, because what it has begun goes on.
    pub(crate) fn detaches(&self) -> bool {
        matches!(
            self,
            Self::Drain(_)
                | Self::Undrain(_)
                | Self::Promote(_)
                | Self::Spread(_)
                | Self::Rehearse(_)
                | Self::Failback(_)
                | Self::Add(_)
                | Self::Remove(_)
        )
    }
}
