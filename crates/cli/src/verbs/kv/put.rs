//! `stead kv put`.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, time::Duration};

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
    /// How long the key lives, such as 30s; without it: until it is deleted
    #[arg(long, value_parser = lifetime, value_name = "TIME", allow_hyphen_values = true)]
    ttl: Option<Duration>,
    #[command(flatten)]
    write: WriteArgs,
}

impl Put {
    pub(super) async fn run(self, target: &Target) -> Result<(), Failure> {
        let value = self.value.read().await?;
        let tenant = context::connect(target).await?.tenant(&self.tenant)?;
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
        read::show_before(written.previous.as_ref())
    }
}

/// Reads how long a key lives; the node says what is too short or too long.
pub(super) fn lifetime(text: &str) -> Result<Duration, String> {
    humantime::parse_duration(text).map_err(|_| "write a time as 500ms, 30s or 2h".to_owned())
}
