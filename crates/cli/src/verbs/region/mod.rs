//! `stead region`.

mod list;
mod status;

use clap::Subcommand;

pub(super) use self::status::ailing;
use crate::{args::Target, exit::Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Show the regions
    List,
    /// Show how a region is: nodes, groups, how far it is behind others
    Status(status::Status),
}

impl Verb {
    pub(crate) async fn run(self, target: &Target) -> Result<(), Failure> {
        match self {
            Self::List => list::run(target).await,
            Self::Status(verb) => verb.run(target).await,
        }
    }
}
