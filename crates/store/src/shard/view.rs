//! What readers see of a group: its records and data as of what has been applied.

use stead_state::{
    rows::{Rows, Unreadable, feed::Feed},
    shard::{Shard, read::Reading, record::Record},
};
use stead_types::TenantNumber;

/// A group's state between two applies. Applying waits while it is held: read what one answer needs, no more.
#[derive(Clone, Copy)]
pub struct View<'a> {
    pub(super) shard: &'a Shard,
    pub(super) rows: &'a dyn Rows,
    pub(super) applied: u64,
}

impl<'a> View<'a> {
    /// Returns the index of the last applied entry.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Returns records, streams and windows.
    pub fn shard(&self) -> &'a Shard {
        self.shard
    }

    /// Returns a tenant's record.
    pub fn record(&self, tenant: TenantNumber) -> Option<&'a Record> {
        self.shard.record(tenant)
    }

    /// Gives access to a tenant's data.
    pub fn reading(&self, tenant: TenantNumber) -> Option<Reading<'a>> {
        self.shard.reading(self.rows, tenant)
    }

    /// Returns the entries after `after` that touched tenants of this home, up to `entries_max`, by Raft index.
    pub fn feed(&self, after: u64, entries_max: usize) -> Result<Vec<(u64, Feed)>, Unreadable> {
        self.shard.feed(self.rows, after, entries_max)
    }

    /// Returns the first and the last entry that the feed remembers.
    pub fn feed_ends(&self) -> Result<Option<(u64, u64)>, Unreadable> {
        self.shard.feed_ends(self.rows)
    }
}
