//! `stead region`.

mod drain;
mod list;
mod promote;
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
    /// Move tenants of a region from its groups with most to those with least
    Spread(drain::Spread),
}

impl Verb {
    pub(crate) async fn run(self, target: &Target) -> Result<(), CommandError> {
        match self {
            Self::List => list::run(target).await,
            Self::Status(verb) => verb.run(target).await,
            Self::Drain(verb) => verb.run(target).await,
            Self::Undrain(verb) => verb.run(target).await,
            Self::Promote(verb) => verb.run(target).await,
            Self::Spread(verb) => verb.run(target).await,
        }
    }

    /// Tells whether the verb handles Ctrl-C itself, because what it has begun goes on.
    pub(crate) fn detaches(&self) -> bool {
        matches!(
            self,
            Self::Drain(_) | Self::Undrain(_) | Self::Promote(_) | Self::Spread(_)
        )
    }
}
