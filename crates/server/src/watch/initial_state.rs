//! Initial state of a watch: the keys at its start.

use bytes::Bytes;
use stead_api::proto::v1::WatchState;
use stead_state::{
    rows::Order,
    shard::read::{KeyRanges, ReadError, Scan, ScanPage},
};
use stead_types::{
    Revision,
    limits::{PAGE_KEYS_STREAMED, PAGE_LEN_MAX},
};

use crate::response;

/// Bytes by which a row that is read is charged, beside its key and value.
const ROW_LEN: u64 = 64;

/// Page of an initial state.
pub(super) struct StatePage {
    /// The message.
    pub(super) state: WatchState,
    /// Bytes that were read for it.
    pub(super) len: u64,
}

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

    /// Returns the next page, and the bytes that were read for it; `more` is false in the last one. `read_scan` reads the
    /// rows.
    pub(super) fn next(
        &mut self,
        ranges: &KeyRanges,
        read_scan: impl FnOnce(&Scan) -> Result<ScanPage, ReadError>,
    ) -> Result<StatePage, ReadError> {
        let (mut items, mut len) = (Vec::new(), 0);
        if let Some((start, end)) = ranges.get(self.range_index) {
            let page = read_scan(&Scan {
                start: start.clone(),
                end: end.clone(),
                order: Order::Ascending,
                keys_only: false,
                at: Some(self.at),
                after: self.after.clone(),
                keys_max: PAGE_KEYS_STREAMED as usize,
                len_max: PAGE_LEN_MAX,
            })?;
            len = page.skipped_len + page.examined as u64 * ROW_LEN;
            for (key, version) in page.entries {
                len += (key.len() + version.value.bytes.len()) as u64;
                items.push(response::key_value(key, version));
            }
            self.range_index += usize::from(page.next.is_none());
            self.after = page.next;
        }
        let more = ranges.get(self.range_index).is_some();
        let state = WatchState { items, more };
        Ok(StatePage { state, len })
    }
}
