//! `stead kv put`.

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use clap::Args;
use serde_json::json;

use super::{read, value::ValueArgs, write::WriteArgs};
use crate::{
    args::Target,
    context,
    exit::Failure,
    output::{self, Output},
};

#[derive(Debug, Args)]
pub(crate) struct Put {
    /// Whose key
    tenant: String,
    /// The key, as it is
    key: OsString,
    #[command(flatten)]
    value: ValueArgs,
    #[command(flatten)]
    write: WriteArgs,
}

impl Put {
    pub(super) async fn run(self, target: &Target) -> Result<(), Failure> {
        let value = self.value.read().await?;
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
