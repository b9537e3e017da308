//! `stead auth keygen`.

use std::path::PathBuf;

use clap::Args;
use stead_server::auth::generate_issuer_keys;

use super::secret_file;
use crate::exit::{Code, CommandError};

#[derive(Debug, Args)]
pub(crate) struct Keygen {
    /// File for the private key, which signs tokens; the public one is beside it, with .pub
    file: PathBuf,
}

impl Keygen {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let keys = generate_issuer_keys().map_err(|error| CommandError::new(Code::Failed, error.to_string()))?;
        let mut public = self.file.clone().into_os_string();
        public.push(".pub");
        secret_file::create(&self.file, &keys.private_key)?;
        let public = PathBuf::from(public);
        std::fs::write(&public, keys.public_key)?;
        eprintln!("private key: {}", self.file.display());
        eprintln!(
            "public key:  {}, for auth.issuers of every node's configuration",
            public.display()
        );
        Ok(())
    }
}
