//! `stead backup keygen`.

use std::path::PathBuf;

use clap::Args;

use super::seal::Key;
use crate::{exit::CommandError, output, verbs::auth::secret_file};

#[derive(Debug, Args)]
pub(crate) struct Keygen {
    /// File for the key, which must not exist
    file: PathBuf,
}

impl Keygen {
    pub(super) fn run(self) -> Result<(), CommandError> {
        let key = Key::generate();
        secret_file::create(&self.file, &key.text())?;
        eprintln!("without this file nobody reads what is encrypted with it: keep copies of it, away from the backups");
        output::line(&format!("key {}: {}", key.id(), self.file.display()))
    }
}
