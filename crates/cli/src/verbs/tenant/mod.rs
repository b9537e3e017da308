//! `stead tenant`.

mod create;
mod delete;
mod get;
mod list;
mod shown;
mod update;

use clap::{Subcommand, ValueEnum};
use stead_client::Durability;

use crate::{args::Target, exit::Failure};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make a tenant
    Create(create::Create),
    /// Show a tenant
    Get(get::Get),
    /// Show tenants
    List(list::List),
    /// Change a tenant; what is not named stays
    Update(update::Update),
    /// Disable a tenant, or erase a disabled one everywhere
    Delete(delete::Delete),
}

impl Verb {
    pub(crate) async fn run(self, target: &Target) -> Result<(), Failure> {
        match self {
            Self::Create(verb) => verb.run(target).await,
            Self::Get(verb) => verb.run(target).await,
            Self::List(verb) => verb.run(target).await,
            Self::Update(verb) => verb.run(target).await,
            Self::Delete(verb) => verb.run(target).await,
        }
    }
}

/// When a tenant's writes are acknowledged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
enum DurabilityArg {
    /// Committed by a majority of the home's nodes
    Region,
    /// And applied in another region
    Remote,
}

impl From<DurabilityArg> for Durability {
    fn from(durability: DurabilityArg) -> Self {
        match durability {
            DurabilityArg::Region => Self::Region,
            DurabilityArg::Remote => Self::Remote,
        }
    }
}

/// Reads `name=value`.
fn label(text: &str) -> Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a label is written name=value")?;
    Ok((name.to_owned(), value.to_owned()))
}
