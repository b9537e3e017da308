//! `stead region`.

mod list;
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
}

impl Verb {
    pub(crate) async fn run(self, target: &Target) -> Result<(), CommandError> {
        match self {
            Self::List => list::run(target).await,
            Self::Status(verb) => verb.run(target).await,
        }
    }
}
