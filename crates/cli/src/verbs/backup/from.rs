//! Options that name the backups that are read.

use std::path::PathBuf;

use clap::Args;

use super::{bucket::BucketArgs, catalog::Catalog};
use crate::exit::CommandError;

/// Place of backups that are read, and their key.
#[derive(Clone, Debug, Args)]
pub(crate) struct FromArgs {
    /// Folder of backups, or s3://BUCKET/PREFIX
    #[arg(long, value_name = "PLACE")]
    from: String,
    #[command(flatten)]
    bucket: BucketArgs,
    /// File with the key of encrypted backups
    #[arg(long, value_name = "FILE")]
    key_file: Option<PathBuf>,
}

impl FromArgs {
    pub(super) fn catalog(&self) -> Result<Catalog, CommandError> {
        Catalog::open(&self.from, &self.bucket, self.key_file.as_deref())
    }
}
