//! `stead cert`: certificates of a cluster, in a folder on an operator's machine. No node is asked.

mod authority;
mod bearer;
mod initial;
mod rotate;
mod show;

use std::path::PathBuf;

use clap::{Args, Subcommand};
use stead_cert::CertificateFolder;

use crate::{
    exit::{Code, CommandError},
    output::Output,
};

#[derive(Debug, Subcommand)]
pub(crate) enum Verb {
    /// Make the CA of a cluster
    Ca(authority::MakeAuthority),
    /// Make the CA, the certificates of all nodes of a configuration, and those of operators, as far as they are missing
    Initial(initial::MakeInitial),
    /// Make the certificate of a node
    Node(bearer::MakeNode),
    /// Make the certificate of a service that uses the store
    Client(bearer::MakeClient),
    /// Make the certificate of an operator
    Operator(bearer::MakeOperator),
    /// Renew certificates, or replace the CA in three steps
    Rotate(rotate::Rotate),
    /// Show names and times of validity
    Show(show::Show),
}

impl Verb {
    pub(crate) fn run(self, output: Output) -> Result<(), CommandError> {
        match self {
            Self::Ca(verb) => verb.run(),
            Self::Initial(verb) => verb.run(),
            Self::Node(verb) => verb.run(),
            Self::Client(verb) => verb.run(),
            Self::Operator(verb) => verb.run(),
            Self::Rotate(verb) => verb.run(),
            Self::Show(verb) => verb.run(output),
        }
    }
}

/// Folder of certificates.
#[derive(Clone, Debug, Args)]
struct Folder {
    /// Folder of the certificates and keys
    #[arg(long, value_name = "FOLDER", default_value = "certs")]
    dir: PathBuf,
}

impl Folder {
    fn open(&self) -> CertificateFolder {
        CertificateFolder::at(&self.dir)
    }
}

/// Returns the error of a certificate that was not made.
fn failed(error: impl std::error::Error + Send + Sync + 'static) -> CommandError {
    CommandError::new(Code::Failed, format!("{:#}", anyhow::Error::from(error)))
}
