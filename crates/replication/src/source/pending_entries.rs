//! Changes of a stream that are due and do not fit into one batch.

use std::collections::VecDeque;

use stead_types::{FeedOffset, TenantNumber};

use super::sessions::ChangeRange;

/// Changes of scanned entries that are not sent yet.
#[derive(Debug)]
pub(super) struct PendingEntries {
    /// Range to send of each tenant.
    pub(super) ranges: VecDeque<(TenantNumber, ChangeRange)>,
    /// The stream's scanned index once all is sent.
    pub(super) scanned_index: u64,
    /// Offset of the last entry.
    pub(super) offset: FeedOffset,
}

impl PendingEntries {
    /// Returns the ranges to send so that the follower has everything up to an index and an offset.
    pub(super) fn new(ranges: Vec<(TenantNumber, ChangeRange)>, scanned_index: u64, offset: FeedOffset) -> Self {
        let ranges = ranges.into();
        Self {
            ranges,
            scanned_index,
            offset,
        }
    }

    /// Takes a tenant's range out.
    pub(super) fn take(&mut self, tenant: TenantNumber) -> Option<ChangeRange> {
        let at = self.ranges.iter().position(|(of, _)| *of == tenant)?;
        self.ranges.remove(at).map(|(_, range)| range)
    }
}
