//! `stead kv put`.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, time::Duration};

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
pub(crate) struct Put {
    /// Tenant of the key
    tenant: String,
    /// The key, as it is
    key: OsString,
    #[command(flatten)]
    value: ValueArgs,
    /// Time to live of the key, such as 30s; without it the key does not expire
    #[arg(long, value_parser = lifetime, value_name = "TIME", allow_hyphen_values = true)]
    ttl: Option<Duration>,
    #[command(flatten)]
    write: WriteArgs,
}

impl Put {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let value = self.value.read().await?;
        let tenant = write::tenant(target, &self.tenant).await?;
        let (key, write) = (self.key.into_vec(), self.write.write());
        let written = match self.ttl {
            Some(ttl) => tenant.put_expiring(key, value, ttl, &write).await?,
            None => tenant.put_with(key, value, &write).await?,
        };
        if target.output == Output::Json {
            let previous = written.previous.as_ref().map(read::item);
            return output::json(&json!({
                "header": read::header(&written.header),
                "previous": previous,
                "repeatedOutcome": written.repeated,
            }));
        }
        output::line(&format!("{}@{}", self.tenant, written.header.revision))?;
        read::print_source(&self.tenant, &written.header, self.write.verbose);
        read::print_previous(written.previous.as_ref())
    }
}

/// Parses a time to live; the node checks its bounds.
pub(super) fn lifetime(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "write a time as 500ms, 30s or 2h".to_owned())
}
