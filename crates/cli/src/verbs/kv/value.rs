//! A value from the command line, a file or standard input.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

use clap::Args;
use tokio::io::AsyncReadExt;

use crate::exit::{Code, Failure};

/// What is read of a file before the node would refuse it anyway.
const VALUE_READ_MAX: u64 = 2 * stead_types::limits::VALUE_LEN_MAX as u64;

/// A value.
#[derive(Debug, Args)]
pub(super) struct ValueArgs {
    /// The value; -: standard input
    #[arg(required_unless_present = "file")]
    value: Option<OsString>,
    /// The value is what this file holds
    #[arg(short, long, conflicts_with = "value")]
    file: Option<PathBuf>,
}

impl ValueArgs {
    pub(super) async fn read(self) -> Result<Vec<u8>, Failure> {
        let mut value = Vec::new();
        match (self.value, self.file) {
            (_, Some(path)) => {
                let unreadable =
                    |error| Failure::new(Code::Usage, format!("{} cannot be read: {error}", path.display()));
                let file = tokio::fs::File::open(&path).await.map_err(unreadable)?;
                file.take(VALUE_READ_MAX)
                    .read_to_end(&mut value)
                    .await
                    .map_err(unreadable)?;
            }
            (Some(argument), None) if argument == "-" => {
                tokio::io::stdin().take(VALUE_READ_MAX).read_to_end(&mut value).await?;
            }
            (argument, None) => value = argument.unwrap_or_default().into_vec(),
        }
        Ok(value)
    }
}
