//! `stead kv delete`.

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use clap::Args;
use serde_json::json;

use super::{
    read,
    write::{self, WriteArgs},
};
use crate::{
    args::Target,
    exit::CommandError,
    output::{self, Output},
};

#[derive(Debug, Args)]
pub(crate) struct Delete {
    /// Tenant of the key
    tenant: String,
    /// The key, as it is
    key: OsString,
    #[command(flatten)]
    write: WriteArgs,
}

impl Delete {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let tenant = write::tenant(target, &self.tenant).await?;
        let deleted = tenant.delete_with(self.key.into_vec(), &self.write.write()).await?;
        if target.output == Output::Json {
            let previous = deleted.previous.as_ref().map(read::item);
            return output::json(&json!({
                "header": read::header(&deleted.header),
                "deleted": deleted.existed,
                "previous": previous,
                "repeatedOutcome": deleted.repeated,
            }));
        }
        let what = if deleted.existed {
            "deleted"
        } else {
            "there was no such key"
        };
        output::line(&format!("{}@{} {what}", self.tenant, deleted.header.revision))?;
        read::print_source(&self.tenant, &deleted.header, self.write.verbose);
        read::print_previous(deleted.previous.as_ref())
    }
}
