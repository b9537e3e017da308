//! Stream of all keys of a range, read page by page.

use std::collections::VecDeque;

use stead_types::{Error, ErrorKind, Revision, TenantTime, limits::PAGE_KEYS_STREAMED};

use super::Tenant;
use crate::{Consistency, Item, ScanOptions};

/// Keys of a range, at one revision.
#[derive(Debug)]
pub struct ScanStream {
    tenant: Tenant,
    /// Options for the next page; `None` after the last.
    next: Option<ScanOptions>,
    revision: Option<Revision>,
    time: Option<TenantTime>,
    items: VecDeque<Item>,
}

impl ScanStream {
    pub(super) fn new(tenant: Tenant, scan: ScanOptions) -> Self {
        let first = ScanOptions {
            page_size: PAGE_KEYS_STREAMED,
            page_token: String::new(),
            count_only: false,
            ..scan
        };
        Self {
            tenant,
            next: Some(first),
            revision: None,
            time: None,
            items: VecDeque::new(),
        }
    }

    /// Returns the revision of all keys, once the first page was read.
    pub fn revision(&self) -> Option<Revision> {
        self.revision
    }

    /// Returns the tenant's time when the first page was read: what is left of a key's time to live is its expiry less this.
    pub fn time(&self) -> Option<TenantTime> {
        self.time
    }

    /// Returns the next key; `None` at the end. After an error the next call reads the same page again.
    ///
    /// # Errors
    ///
    /// As [`Tenant::scan`]; `Compacted` where the scan took longer than the retention.
    pub async fn next(&mut self) -> Result<Option<Item>, Error> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Ok(Some(item));
            }
            let Some(scan) = self.next.clone() else { return Ok(None) };
            let page = self.tenant.scan(&scan).await?;
            if *self.revision.get_or_insert(page.header.revision) != page.header.revision {
                let message = "the next page has another revision than the first: the node's version may differ";
                return Err(Error::new(ErrorKind::Internal, message));
            }
            self.time.get_or_insert(page.header.tenant_time);
            // Any replica that has applied as much as the first page's node can serve the other pages.
            self.next = page.next.map(|page_token| {
                let mut next = ScanOptions { page_token, ..scan };
                if let Some(token) = page.header.token {
                    next.read.consistency = Consistency::Token(token);
                }
                next
            });
            self.items = page.items.into();
        }
    }
}
