//! `stead kv increment`.

use std::{ffi::OsString, os::unix::ffi::OsStringExt, time::Duration};

use clap::Args;
use serde_json::json;

use super::{
    read,
    write::{self, WriteArgs},
};
use crate::{
    args::Target,
    exit::{Code, CommandError},
    output::{self, Output},
};

#[derive(Debug, Args)]
pub(crate) struct Increment {
    /// Tenant of the key
    tenant: String,
    /// The key, as it is
    key: OsString,
    #[command(flatten)]
    increment: IncrementArgs,
    #[command(flatten)]
    write: WriteArgs,
}

/// Change of a number, and its bounds.
#[derive(Debug, Args)]
pub(super) struct IncrementArgs {
    /// Number to add; negative: to subtract
    #[arg(default_value_t = 1, allow_negative_numbers = true)]
    delta: i64,
    /// Admit no result below this
    #[arg(long, allow_negative_numbers = true)]
    floor: Option<i64>,
    /// Admit no result above this
    #[arg(long, allow_negative_numbers = true)]
    ceiling: Option<i64>,
    /// Window length, such as 1m; the number counts from 0 in each window
    #[arg(long, value_parser = humantime::parse_duration)]
    window: Option<Duration>,
}

impl From<IncrementArgs> for stead_client::Increment {
    fn from(args: IncrementArgs) -> Self {
        Self {
            delta: args.delta,
            floor: args.floor,
            ceiling: args.ceiling,
            window: args.window,
        }
    }
}

impl Increment {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let tenant = write::tenant(target, &self.tenant).await?;
        let done = tenant
            .increment_with(self.key.into_vec(), self.increment.into(), &self.write.write())
            .await?;
        let refused = (!done.admitted).then(|| {
            let what = "not admitted: the number would pass its bound; nothing happened";
            CommandError::new(Code::Conflict, what)
        });
        if target.output == Output::Json {
            let previous = done.previous.as_ref().map(read::item);
            output::json(&json!({
                "header": read::header(&done.header),
                "value": done.value.map(|value| value.to_string()),
                "admitted": done.admitted,
                "previous": previous,
                "repeatedOutcome": done.repeated,
            }))?;
        } else {
            let value = done
                .value
                .map_or_else(|| "no longer known".to_owned(), |value| value.to_string());
            output::line(&format!("{}@{} {value}", self.tenant, done.header.revision))?;
            read::print_source(&self.tenant, &done.header, self.write.verbose);
            read::print_previous(done.previous.as_ref())?;
        }
        refused.map_or(Ok(()), Err)
    }
}
