//! Initial state of a watch: the keys at its start.

use bytes::Bytes;
use stead_api::proto::v1::WatchState;
use stead_state::{
    rows::Order,
    shard::read::{KeyRanges, ReadError, Scan, TenantReader},
};
use stead_types::{
    Revision,
    limits::{PAGE_KEYS_STREAMED, PAGE_LEN_MAX},
};

use crate::response;

/// Reader of ranges of keys, page by page, at one revision.
#[derive(Debug)]
pub(super) struct StatePages {
    at: Revision,
    /// Index of the range.
    range_index: usize,
    /// Last key that was read of it.
    after: Option<Bytes>,
}

impl StatePages {
    pub(super) fn new(at: Revision) -> Self {
        Self {
            at,
            range_index: 0,
            after: None,
        }
    }

    /// Returns the next page; `more` is false in the last one.
    pub(super) fn next(&mut self, ranges: &KeyRanges, reading: &TenantReader<'_>) -> Result<WatchState, ReadError> {
        let mut items = Vec::new();
        if let Some((start, end)) = ranges.get(self.range_index) {
            let page = reading.scan(&Scan {
                start: start.clone(),
                end: end.clone(),
                order: Order::Ascending,
                keys_only: false,
                at: Some(self.at),
                after: self.after.clone(),
                keys_max: PAGE_KEYS_STREAMED as usize,
                len_max: PAGE_LEN_MAX,
            })?;
            items.extend(
                page.entries
                    .into_iter()
                    .map(|(key, version)| response::key_value(key, version)),
            );
            self.range_index += usize::from(page.next.is_none());
            self.after = page.next;
        }
        let more = ranges.get(self.range_index).is_some();
        Ok(WatchState { items, more })
    }
}
