//! `stead kv scan`: reads pages until the limit, and prints each as it comes; all show one revision.

use std::{ffi::OsString, os::unix::ffi::OsStringExt};

use bytes::Bytes;
use clap::Args;
use serde_json::json;
use stead_types::{Error, ErrorKind};

use super::read::{self, ReadArgs};
use crate::{
    args::Target,
    context,
    exit::CommandError,
    output::{self, Output, RowStream},
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
        let mut rows = RowStream::new(target.output);
        let (mut left, mut last) = (self.limit, None);
        loop {
            let page = match tenant.scan(&scan).await {
                Ok(page) => page,
                Err(error) => return Err(ended_early(error, last.as_ref(), self.reverse)),
            };
            self.read.check(&page.header)?;
            if self.count {
                return print_count(target.output, page.count);
            }
            let mut table = read::table();
            for item in page.items.iter().take(left) {
                read::push(&mut table, item);
            }
            if !rows.print(&table)? {
                return Ok(());
            }
            left = left.saturating_sub(page.items.len());
            last = page.items.into_iter().next_back().map(|item| item.key).or(last);
            match page.next {
                Some(next) if left > 0 => scan.page_token = next,
                Some(_) | None => return rows.finish(),
            }
        }
    }
}

/// Returns the error of a page, with a hint how the rest can be read.
fn ended_early(error: Error, last: Option<&Bytes>, is_reverse: bool) -> CommandError {
    let hint = last.and_then(|last| rest(&error.kind, last, is_reverse));
    let error = CommandError::from(error);
    match hint {
        Some(hint) => error.hint(hint),
        None => error,
    }
}

/// Says how the rest can be read where history no longer has the revision of the pages before.
fn rest(kind: &ErrorKind, last: &[u8], is_reverse: bool) -> Option<String> {
    if !matches!(kind, ErrorKind::Compacted { .. }) {
        return None;
    }
    let last = output::display_bytes(last, usize::MAX);
    let rest = if is_reverse {
        format!("the same scan with --end '{last}' and without --revision reads the keys below the last one printed")
    } else {
        format!("the same scan with --start '{last}' and without --revision reads from the last key printed on")
    };
    Some(format!("{rest}, at a newer revision"))
}

fn print_count(format: Output, count: u64) -> Result<(), CommandError> {
    if format == Output::Json {
        output::json(&json!({ "count": count.to_string() }))
    } else {
        output::line(&count.to_string())
    }
}

#[cfg(test)]
mod tests {
    use stead_types::Revision;

    use super::*;

    #[test]
    fn compacted_scan_says_where_to_go_on() {
        let oldest = Revision::ZERO;
        let of_compacted = |is_reverse| rest(&ErrorKind::Compacted { oldest }, b"user/7", is_reverse).unwrap();
        assert!(of_compacted(false).contains("--start 'user/7'"));
        assert!(of_compacted(true).contains("--end 'user/7'"));
        assert_eq!(rest(&ErrorKind::NoLeader, b"user/7", false), None);
    }
}
