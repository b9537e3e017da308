//! `stead kv put`: a value from the command line, a file or standard input.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, path::PathBuf};

use clap::Args;
use serde_json::json;
use tokio::io::AsyncReadExt;

use super::{read, write::WriteArgs};
use crate::{
    args::Target,
    context,
    exit::{Code, Failure},
    output::{self, Output},
};

/// What is read of a file before the node would refuse it anyway.
const VALUE_READ_MAX: u64 = 2 * stead_types::limits::VALUE_LEN_MAX as u64;

#[derive(Debug, Args)]
pub(crate) struct Put {
    /// Whose key
    tenant: String,
    /// The key, as it is
    key: OsString,
    /// The value; -: standard input
    #[arg(required_unless_present = "file")]
    value: Option<OsString>,
    /// The value is what this file holds
    #[arg(short, long, conflicts_with = "value")]
    file: Option<PathBuf>,
    #[command(flatten)]
    write: WriteArgs,
}

impl Put {
    pub(super) async fn run(self, target: &Target) -> Result<(), Failure> {
        let value = value(self.value, self.file).await?;
        let tenant = context::connect(target).await?.tenant(&self.tenant)?;
        let written = tenant.put_with(self.key.into_vec(), value, &self.write.write()).await?;
        if target.output == Output::Json {
            let previous = written.previous.as_ref().map(read::item);
            return output::json(&json!({
                "header": read::header(&written.header),
                "previous": previous,
                "repeatedOutcome": written.repeated,
            }));
        }
        output::line(&format!("{}@{}", self.tenant, written.header.revision))?;
        read::show_before(written.previous.as_ref())
    }
}

/// Reads a value from the command line, a file or standard input.
pub(super) async fn value(argument: Option<OsString>, file: Option<PathBuf>) -> Result<Vec<u8>, Failure> {
    let mut value = Vec::new();
    match (argument, file) {
        (_, Some(path)) => {
            let unreadable = |error| Failure::new(Code::Usage, format!("{} cannot be read: {error}", path.display()));
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
