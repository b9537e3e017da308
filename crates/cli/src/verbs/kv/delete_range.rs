//! `stead kv delete-range`.

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use clap::{ArgGroup, Args};
use serde_json::json;
use stead_client::{IdempotencyKey, KeyRange, ReadOptions, ScanOptions, Tenant};

use super::{non_empty, read, write};
use crate::{
    args::Target,
    confirm,
    exit::CommandError,
    output::{self, Output},
};

#[derive(Debug, Args)]
#[command(group(ArgGroup::new("range").args(["prefix", "start", "end", "all"]).required(true).multiple(true)))]
pub(crate) struct DeleteRange {
    /// Tenant of the keys
    tenant: String,
    /// Only keys that begin with this
    #[arg(long, value_parser = non_empty())]
    prefix: Option<OsString>,
    /// First key
    #[arg(long, value_parser = non_empty())]
    start: Option<OsString>,
    /// End of the range, exclusive
    #[arg(long, value_parser = non_empty())]
    end: Option<OsString>,
    /// Every key of the tenant
    #[arg(long, conflicts_with_all = ["prefix", "start", "end"])]
    all: bool,
    /// Do not ask
    #[arg(long)]
    yes: bool,
    /// The key that a failed command showed, to ask for its outcome; the delete is executed once at most
    #[arg(long, value_name = "CLIENT/SEQUENCE/MS")]
    idempotency_key: Option<IdempotencyKey>,
}

impl DeleteRange {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let tenant = write::tenant(target, &self.tenant).await?;
        let bytes = |text: Option<OsString>| text.unwrap_or_default().into_vec();
        let mut range = if self.all {
            KeyRange::all()
        } else {
            KeyRange::between(bytes(self.start), bytes(self.end))
        };
        range.prefix = bytes(self.prefix).into();
        if !self.yes {
            let count = count(&tenant, &range).await?;
            let what = format!("tenant {} would lose {count} keys", self.tenant);
            confirm::by_name(&what, &self.tenant).await?;
        }
        let deleted = match self.idempotency_key {
            Some(key) => tenant.delete_range_again(&range, key).await?,
            None => tenant.delete_range(&range).await?,
        };
        if target.output == Output::Json {
            return output::json(&json!({
                "header": read::header(&deleted.header),
                "deleted": deleted.keys.to_string(),
                "changes": deleted.changes,
                "repeatedOutcome": deleted.repeated,
            }));
        }
        let steps = match deleted.changes {
            0 | 1 => String::new(),
            changes => format!(", in {changes} changes"),
        };
        read::print_source(&self.tenant, &deleted.header, false);
        let (revision, keys) = (deleted.header.revision, deleted.keys);
        output::line(&format!("{}@{revision} {keys} keys deleted{steps}", self.tenant))
    }
}

async fn count(tenant: &Tenant, range: &KeyRange) -> Result<u64, CommandError> {
    let scan = ScanOptions {
        start: range.start.clone(),
        end: range.end.clone(),
        prefix: range.prefix.clone(),
        count_only: true,
        read: ReadOptions::default(),
        ..ScanOptions::default()
    };
    Ok(tenant.scan(&scan).await?.count)
}
