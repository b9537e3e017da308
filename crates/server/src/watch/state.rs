//! The keys that a watch begins with.

use bytes::Bytes;
use stead_api::proto::v1::WatchState;
use stead_state::{
    rows::Order,
    shard::read::{Ranges, Reading, Refused, Scan},
};
use stead_types::{
    Revision,
    limits::{PAGE_KEYS_STREAMED, PAGE_LEN_MAX},
};

use crate::reply;

/// Reads keys of some ranges, page after page, at one revision.
#[derive(Debug)]
pub(super) struct Pages {
    at: Revision,
    /// Which range.
    place: usize,
    /// Behind which key of it.
    after: Option<Bytes>,
}

impl Pages {
    pub(super) fn new(at: Revision) -> Self {
        Self {
            at,
            place: 0,
            after: None,
        }
    }

    /// Returns the next page; `more` is false in the last one.
    pub(super) fn next(&mut self, ranges: &Ranges, reading: &Reading<'_>) -> Result<WatchState, Refused> {
        let mut items = Vec::new();
        if let Some((start, end)) = ranges.get(self.place) {
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
                    .map(|(key, version)| reply::key_value(key, version)),
            );
            self.place += usize::from(page.next.is_none());
            self.after = page.next;
        }
        let more = ranges.get(self.place).is_some();
        Ok(WatchState { items, more })
    }
}
