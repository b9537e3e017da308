//! History that watches share while they catch up: a page of changes that one has read serves those that come after it.
//!
//! # Invariants
//!
//! 1. A page is used only while all of its changes are on the copy's lineage and within its retention.
//! 2. Pages have [`HISTORY_LEN_MAX`] bytes at most together; the oldest goes first.

use std::{collections::VecDeque, sync::Arc};

use parking_lot::Mutex;
use stead_state::shard::read::{ReadError, TenantReader};
use stead_types::{Revision, Sequence};

use super::hub::{BATCH_LEN_MAX, Batch, HubKey};

/// Most bytes of the pages that a node keeps: watches that resumed together are at most so far apart.
const HISTORY_LEN_MAX: usize = 32 << 20;

/// Pages of history that were read last, of all tenants.
#[derive(Debug, Default)]
pub(super) struct SharedHistory(Mutex<Pages>);

#[derive(Debug, Default)]
struct Pages {
    /// The page that was read first is the first.
    pages: VecDeque<Page>,
    len: usize,
}

#[derive(Debug)]
struct Page {
    key: HubKey,
    batch: Arc<Batch>,
}

/// Changes after a position.
pub(super) struct HistoryPage {
    /// The changes, perhaps after some at or before the position.
    pub(super) batch: Arc<Batch>,
    /// Whether there are more after them.
    pub(super) more: bool,
}

impl SharedHistory {
    /// Returns the changes of a tenant after a position: a page that another watch has read, or one from the copy.
    ///
    /// # Errors
    ///
    /// A position that the copy does not have.
    pub(super) fn page_after(
        &self,
        key: HubKey,
        position: Revision,
        reading: &TenantReader<'_>,
    ) -> Result<HistoryPage, ReadError> {
        let is_kept = |revision| reading.resolve(Some(revision)).is_ok();
        let known = self.find(key, position);
        if let Some(batch) = known.filter(|batch| is_kept(position) && is_kept(batch.next)) {
            return Ok(HistoryPage { batch, more: true });
        }
        let found = reading.changes(position, Sequence::MAX, BATCH_LEN_MAX)?;
        let more = found.more;
        let batch = Arc::new(Batch {
            after: position,
            changes: found.changes,
            next: found.next,
        });
        if more {
            self.0.lock().add(Page {
                key,
                batch: batch.clone(),
            });
        }
        Ok(HistoryPage { batch, more })
    }

    fn find(&self, key: HubKey, position: Revision) -> Option<Arc<Batch>> {
        let pages = self.0.lock();
        let has_next = |page: &&Page| page.key == key && page.batch.after <= position && position < page.batch.next;
        pages.pages.iter().rev().find(has_next).map(|page| page.batch.clone())
    }
}

impl Pages {
    fn add(&mut self, page: Page) {
        self.len += page.batch.len();
        self.pages.push_back(page);
        while self.len > HISTORY_LEN_MAX
            && let Some(oldest) = self.pages.pop_front()
        {
            self.len -= oldest.batch.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use stead_types::{GroupId, TenantNumber};

    use super::{super::change_fixture::change, *};

    const KEY: HubKey = (GroupId::new(1), TenantNumber::new(7));

    fn page(after: &str, next: &str, len: usize) -> Page {
        Page {
            key: KEY,
            batch: Arc::new(Batch {
                after: after.parse().unwrap(),
                changes: vec![change(next, "k", Some(len))],
                next: next.parse().unwrap(),
            }),
        }
    }

    #[test]
    fn page_is_found_from_each_position_within_it() {
        let history = SharedHistory::default();
        history.0.lock().add(page("1.4", "1.8", 1));
        history.0.lock().add(page("1.8", "1.12", 1));
        let found = |key, position: &str| {
            let batch = history.find(key, position.parse().unwrap());
            batch.map(|batch| batch.next.to_string())
        };
        let expected = [
            ("1.3", None),
            ("1.4", Some("1.8")),
            ("1.7", Some("1.8")),
            ("1.8", Some("1.12")),
            ("1.12", None),
        ];
        for (position, next) in expected {
            assert_eq!(found(KEY, position).as_deref(), next, "{position}");
        }
        assert_eq!(found((KEY.0, TenantNumber::new(8)), "1.4"), None);
    }

    /// Invariant 2.
    #[test]
    fn oldest_pages_go_first() {
        let mut pages = Pages::default();
        for at in 0..200 {
            pages.add(page(&format!("1.{at}"), &format!("1.{}", at + 1), 1 << 20));
            assert!(pages.len <= HISTORY_LEN_MAX);
        }
        assert_eq!(pages.pages.back().unwrap().batch.next.to_string(), "1.200");
        assert!(pages.pages.len() < 40);
        let len: usize = pages.pages.iter().map(|page| page.batch.len()).sum();
        assert_eq!(pages.len, len);
    }
}
