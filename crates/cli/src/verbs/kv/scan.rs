//! `stead kv scan`: reads pages until the limit; all show one revision.

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use clap::Args;
use serde_json::json;

use super::read::{self, ReadArgs};
use crate::{
    args::Target,
    context,
    exit::CommandError,
    output::{self, Output},
};

/// Far above the page size of nodes.
const PAGE_SIZE_MAX: i64 = 1_000_000;

#[derive(Debug, Args)]
pub(crate) struct Scan {
    /// Tenant of the keys
    tenant: String,
    /// Only keys that begin with this
    #[arg(long, default_value = "")]
    prefix: OsString,
    /// First key
    #[arg(long, default_value = "")]
    start: OsString,
    /// End of the range, exclusive
    #[arg(long, default_value = "")]
    end: OsString,
    /// Read from the highest key down
    #[arg(long)]
    reverse: bool,
    /// Most keys
    #[arg(long, default_value_t = usize::MAX, hide_default_value = true, conflicts_with = "count")]
    limit: usize,
    /// Keys of a page; 0: the node's default
    #[arg(long, default_value_t = 0, allow_negative_numbers = true, value_parser = clap::value_parser!(u32).range(0..=PAGE_SIZE_MAX))]
    page_size: u32,
    /// Without values
    #[arg(long)]
    keys_only: bool,
    /// Print only the number of keys
    #[arg(long)]
    count: bool,
    #[command(flatten)]
    read: ReadArgs,
}

impl Scan {
    pub(super) async fn run(self, target: &Target) -> Result<(), CommandError> {
        let tenant = context::connect(target).await?.tenant(&self.tenant)?;
        let mut scan = stead_client::ScanOptions {
            start: self.start.into_vec().into(),
            end: self.end.into_vec().into(),
            prefix: self.prefix.into_vec().into(),
            reverse: self.reverse,
            page_size: self.page_size,
            page_token: String::new(),
            keys_only: self.keys_only,
            count_only: self.count,
            read: self.read.read()?,
        };
        let mut table = read::table();
        let mut left = self.limit;
        loop {
            let page = tenant.scan(&scan).await?;
            self.read.check(&page.header)?;
            if self.count {
                return print_count(target.output, page.count);
            }
            for item in page.items.iter().take(left) {
                read::push(&mut table, item);
            }
            left = left.saturating_sub(page.items.len());
            match page.next {
                Some(next) if left > 0 => scan.page_token = next,
                Some(_) | None => return table.print(target.output),
            }
        }
    }
}

fn print_count(format: Output, count: u64) -> Result<(), CommandError> {
    if format == Output::Json {
        output::json(&json!({ "count": count.to_string() }))
    } else {
        output::line(&count.to_string())
    }
}
