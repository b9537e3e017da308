//! `stead config`: configurations of nodes.

mod check;
mod default;

use clap::Subcommand;

use crate::exit::CommandError;

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Print a configuration with every setting, its default and its meaning
    Default,
    /// Check a configuration without starting a node
    Check(check::Check),
}

impl Verb {
    pub(crate) fn run(self) -> Result<(), CommandError> {
        match self {
            Self::Default => default::run(),
            Self::Check(verb) => verb.run(),
        }
    }
}
