//! `stead kv append`.

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use clap::Args;
use serde_json::json;

use super::{
    read,
    value::ValueArgs,
    write::{self, WriteArgs},
};
use crate::{
    args::Target,
    exit::CommandError,
    output::{self, Output},
};

#[derive(Debug, Args)]
pub(crate) struct Append {
    /// Tenant of the key
    tenant: String,
    /// The key, as it is
    key: OsString,
    #[command(flatten)]
    value: ValueArgs,
    /// Most bytes that the value may have afterwards; at most 1 MiB
    #[arg(long, value_name = "BYTES")]
    max_length: Option<u32>,
    #[command(flatten)]
    write: WriteArgs,
}

impl Append {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let value = self.value.read().await?;
        let tenant = write::tenant(target, &self.tenant).await?;
        let done = tenant
            .append_with(self.key.into_vec(), value, self.max_length, &self.write.write())
            .await?;
        if target.output == Output::Json {
            let previous = done.previous.as_ref().map(read::item);
            return output::json(&json!({
                "header": read::header(&done.header),
                "length": done.length.map(|length| length.to_string()),
                "previous": previous,
                "repeatedOutcome": done.repeated,
            }));
        }
        let length = done
            .length
            .map_or_else(|| "no longer known".to_owned(), |length| length.to_string());
        output::line(&format!("{}@{} {length} bytes", self.tenant, done.header.revision))?;
        read::print_source(&self.tenant, &done.header, self.write.verbose);
        read::print_previous(done.previous.as_ref())
    }
}
