//! Ring of the tenants that the latest entries named, so that whoever follows tenants looks only at those that may have
//! changed. It is local and in memory: it begins anew with each start and each installed snapshot, and no result of an
//! entry depends on it.
//!
//! # Invariants
//!
//! 1. A command changes revision, role and copies of the tenant that it names, and of no other.
//! 2. The ring holds every tenant named by an entry after `since`, and is bounded by [`CHANGES_MAX`].

use std::collections::{BTreeSet, VecDeque};

use stead_types::TenantNumber;

use super::Shard;

/// Most changes in the ring; a reader that is further behind looks at all tenants.
const CHANGES_MAX: usize = 4_096;

/// Tenants that the latest entries named, by log index.
#[derive(Debug, Default)]
#[cfg_attr(test, derive(Clone))]
pub(super) struct ChangedTenants {
    /// Index after which all entries are in the ring; `None` before the first entry.
    since: Option<u64>,
    changes: VecDeque<(u64, TenantNumber)>,
}

impl ChangedTenants {
    /// Begins an entry.
    pub(super) fn begin(&mut self, index: u64) {
        self.since.get_or_insert(index.saturating_sub(1));
    }

    /// Adds a tenant that a command of the entry at this index names.
    pub(super) fn add(&mut self, index: u64, tenant: TenantNumber) {
        if self.changes.back() == Some(&(index, tenant)) {
            return;
        }
        if self.changes.len() == CHANGES_MAX
            && let Some((forgotten, _)) = self.changes.pop_front()
        {
            self.since = Some(forgotten);
        }
        self.changes.push_back((index, tenant));
    }

    fn after(&self, index: u64) -> Option<BTreeSet<TenantNumber>> {
        let later = self.changes.iter().rev().take_while(|(of, _)| *of > index);
        self.since
            .is_some_and(|since| since <= index)
            .then(|| later.map(|(_, tenant)| *tenant).collect())
    }
}

impl Shard {
    /// Returns the tenants that commands of the entries after an index named; `None` if that is no longer known: any
    /// may have changed.
    pub fn tenants_changed_after(&self, index: u64) -> Option<BTreeSet<TenantNumber>> {
        self.changed.after(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tenants(numbers: &[u64]) -> Option<BTreeSet<TenantNumber>> {
        Some(numbers.iter().copied().map(TenantNumber::new).collect())
    }

    fn ring(changes: impl IntoIterator<Item = (u64, u64)>) -> ChangedTenants {
        let mut ring = ChangedTenants::default();
        for (index, tenant) in changes {
            ring.begin(index);
            ring.add(index, TenantNumber::new(tenant));
        }
        ring
    }

    #[test]
    fn ring_returns_tenants_of_later_entries_only() {
        let ring = ring([(11, 1), (11, 2), (11, 2), (13, 1)]);
        assert_eq!(ring.after(9), None, "entries before it began");
        assert_eq!(ring.after(10), tenants(&[1, 2]));
        assert_eq!([11, 12].map(|index| ring.after(index)), [tenants(&[1]), tenants(&[1])]);
        assert_eq!(ring.after(13), tenants(&[]));
        assert_eq!(ring.changes.len(), 3, "commands of one tenant in a row are one change");
    }

    #[test]
    fn ring_is_unknown_before_first_entry_and_after_overflow() {
        // Invariant 2.
        assert_eq!(ChangedTenants::default().after(u64::MAX), None);
        let full = CHANGES_MAX as u64;
        let ring = ring((1..=full + 2).map(|index| (index, index)));
        assert_eq!(ring.changes.len(), CHANGES_MAX);
        assert_eq!(ring.after(1), None);
        assert_eq!(ring.after(2).map(|changed| changed.len()), Some(CHANGES_MAX));
    }
}
