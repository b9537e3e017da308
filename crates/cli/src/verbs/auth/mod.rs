//! `stead auth`.

mod keygen;
pub(super) mod secret_file;
mod token;
mod whoami;

use clap::Subcommand;

use crate::{args::Target, exit::CommandError};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make the keys of an issuer of tokens
    Keygen(keygen::Keygen),
    /// Make a token with an issuer's private key
    Token(token::Token),
    /// Make a token for emergencies, of long life, to be kept sealed
    Emergency(token::Emergency),
    /// Show who you are to the cluster, and your roles
    Whoami(whoami::Whoami),
}

impl Verb {
    pub(crate) async fn run(self, target: &Target) -> Result<(), CommandError> {
        match self {
            Self::Keygen(verb) => verb.run(),
            Self::Token(verb) => verb.run(),
            Self::Emergency(verb) => verb.run(),
            Self::Whoami(verb) => verb.run(target).await,
        }
    }
}
