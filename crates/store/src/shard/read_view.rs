//! Read view of a group: its records and data as of the last applied entry.

use stead_state::{
    rows::{Rows, Unreadable, feed::FeedEntry},
    shard::{
        Shard,
        read::{ForkReader, ForkSummary, TenantReader},
        record::TenantRecord,
    },
};
use stead_types::TenantNumber;

/// View of a group's state between two applies. Applying waits while it is held: read what one response needs, no more.
#[derive(Clone, Copy)]
pub struct ReadView<'a> {
    pub(super) shard: &'a Shard,
    pub(super) rows: &'a dyn Rows,
    pub(super) applied: u64,
}

impl<'a> ReadView<'a> {
    /// Returns the index of the last applied entry.
    pub fn applied(&self) -> u64 {
        self.applied
    }

    /// Returns records, streams and windows.
    pub fn shard(&self) -> &'a Shard {
        self.shard
    }

    /// Returns a tenant's record.
    pub fn record(&self, tenant: TenantNumber) -> Option<&'a TenantRecord> {
        self.shard.record(tenant)
    }

    /// Returns a reader of a tenant's data.
    pub fn reading(&self, tenant: TenantNumber) -> Option<TenantReader<'a>> {
        self.shard.reading(self.rows, tenant)
    }

    /// Returns overviews of a tenant's forks.
    pub fn forks(&self, tenant: TenantNumber) -> Result<Vec<ForkSummary>, Unreadable> {
        self.shard.forks(self.rows, tenant)
    }

    /// Returns a reader of a fork; `None` where there is no such fork, or while the live copy is being rewound.
    pub fn fork(&self, tenant: TenantNumber, number: u32) -> Option<ForkReader<'a>> {
        self.shard.fork(self.rows, tenant, number)
    }

    /// Returns the entries after `after` that touched tenants of this home, up to `entries_max`, by log index.
    pub fn feed(&self, after: u64, entries_max: usize) -> Result<Vec<(u64, FeedEntry)>, Unreadable> {
        self.shard.feed(self.rows, after, entries_max)
    }

    /// Tells whether retention has dropped entries of the feed after an index: what is sent from there on lacks them.
    pub fn has_dropped_feed_after(&self, index: u64) -> bool {
        self.shard.feed_floor() > index
    }

    /// Returns the first and the last entry of the feed's retained history.
    pub fn feed_bounds(&self) -> Result<Option<(u64, u64)>, Unreadable> {
        self.shard.feed_bounds(self.rows)
    }
}
