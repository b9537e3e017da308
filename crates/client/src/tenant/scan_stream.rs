//! All keys of a range, page after page.

use std::collections::VecDeque;

use stead_types::{Error, ErrorKind, Revision, limits::PAGE_KEYS_STREAMED};

use super::Tenant;
use crate::{Consistency, Item, Scan};

/// The keys of a range, at one revision.
#[derive(Debug)]
pub struct ScanStream {
    tenant: Tenant,
    /// Asks for the next page; `None` behind the last.
    next: Option<Scan>,
    revision: Option<Revision>,
    items: VecDeque<Item>,
}

impl ScanStream {
    pub(super) fn new(tenant: Tenant, scan: Scan) -> Self {
        let first = Scan {
            page_size: PAGE_KEYS_STREAMED,
            page_token: String::new(),
            count_only: false,
            ..scan
        };
        Self {
            tenant,
            next: Some(first),
            revision: None,
            items: VecDeque::new(),
        }
    }

    /// Returns the revision of all keys, once the first page has come.
    pub fn revision(&self) -> Option<Revision> {
        self.revision
    }

    /// Returns the next key; `None` at the end. After an error the next call asks for the same page again.
    ///
    /// # Errors
    ///
    /// As [`Tenant::scan`]; `Compacted` where the scan took longer than history is kept.
    pub async fn next(&mut self) -> Result<Option<Item>, Error> {
        loop {
            if let Some(item) = self.items.pop_front() {
                return Ok(Some(item));
            }
            let Some(scan) = self.next.clone() else { return Ok(None) };
            let page = self.tenant.scan(&scan).await?;
            if *self.revision.get_or_insert(page.header.revision) != page.header.revision {
                let message = "the node's next page is of another revision: its version may differ";
                return Err(Error::new(ErrorKind::Internal, message));
            }
            // Whoever has come as far as the first page's node can serve the others.
            self.next = page.next.map(|page_token| {
                let mut next = Scan { page_token, ..scan };
                if let Some(token) = page.header.token {
                    next.read.consistency = Consistency::Token(token);
                }
                next
            });
            self.items = page.items.into();
        }
    }
}
