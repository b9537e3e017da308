//! `stead kv`.

mod delete;
mod get;
mod put;
mod read;
mod scan;
mod write;

use clap::Subcommand;

use crate::{args::Target, exit::Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Print a key's value as it is
    Get(get::Get),
    /// Write a key
    Put(put::Put),
    /// Remove a key
    Delete(delete::Delete),
    /// Show keys in their order
    Scan(scan::Scan),
}

impl Verb {
    pub(crate) async fn run(self, target: &Target) -> Result<(), Failure> {
        match self {
            Self::Get(verb) => verb.run(target).await,
            Self::Put(verb) => verb.run(target).await,
            Self::Delete(verb) => verb.run(target).await,
            Self::Scan(verb) => verb.run(target).await,
        }
    }
}
