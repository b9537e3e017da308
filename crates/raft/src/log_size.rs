//! Size of a group's log by index, for scheduling checkpoints and purges.
//!
//! Only entries that this process appended are counted. Those that were in the log when it was opened count as older,
//! and are purged first.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// Bytes between two marks, or a fraction of the tail if that is less.
const MARK_BYTES: u64 = 1 << 20;
const MARKS_PER_TAIL: u64 = 8;

/// Counts of a group's log, with marks from index to bytes.
#[derive(Debug)]
pub(crate) struct LogSize {
    mark_bytes: u64,
    counts: Mutex<AppendCounts>,
    /// Notified of every append.
    on_append: Notify,
}

/// Bytes and entries appended since the group was opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct AppendTotals {
    pub(crate) bytes: u64,
    pub(crate) entries: u64,
}

#[derive(Debug, Default)]
struct AppendCounts {
    /// Bytes and entries appended so far.
    bytes: u64,
    entries: u64,
    /// Index and total bytes, each about [`MARK_BYTES`] after the last.
    marks: VecDeque<(u64, u64)>,
}

impl LogSize {
    /// Creates the counts of a log whose tail has this many bytes.
    pub(crate) fn with_tail(tail_bytes: u64) -> Self {
        Self {
            mark_bytes: MARK_BYTES.min(tail_bytes / MARKS_PER_TAIL),
            counts: Mutex::default(),
            on_append: Notify::new(),
        }
    }

    pub(crate) fn appended(&self, last: u64, entries: u64, bytes: u64) {
        let mut counts = self.counts.lock();
        counts.bytes += bytes;
        counts.entries += entries;
        let total = counts.bytes;
        if counts.marks.back().is_none_or(|(_, at)| total >= at + self.mark_bytes) {
            counts.marks.push_back((last, total));
        }
        drop(counts);
        self.on_append.notify_one();
    }

    pub(crate) fn truncated(&self, last: Option<u64>) {
        let mut counts = self.counts.lock();
        while counts
            .marks
            .back()
            .is_some_and(|(index, _)| last.is_none_or(|last| *index > last))
        {
            counts.marks.pop_back();
        }
    }

    pub(crate) fn purged(&self, upto: u64) {
        let mut counts = self.counts.lock();
        while counts.marks.front().is_some_and(|(index, _)| *index <= upto) {
            counts.marks.pop_front();
        }
    }

    /// Returns the bytes and entries appended so far.
    pub(crate) fn totals(&self) -> AppendTotals {
        let counts = self.counts.lock();
        AppendTotals {
            bytes: counts.bytes,
            entries: counts.entries,
        }
    }

    /// Returns the index up to which the log may be purged, so that about `tail` bytes remain.
    pub(crate) fn beyond_tail(&self, tail: u64) -> Option<u64> {
        let counts = self.counts.lock();
        let keep_from = counts.bytes.checked_sub(tail)?;
        let beyond = counts.marks.iter().take_while(|(_, at)| *at <= keep_from);
        beyond.last().map(|(index, _)| *index)
    }

    /// Waits for an append after the last call.
    pub(crate) async fn wait_for_append(&self) {
        self.on_append.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_size_tail_is_last_appended_bytes() {
        let log_size = LogSize::with_tail(64 << 20);
        for index in 0..10 {
            log_size.appended(index, 1, MARK_BYTES);
        }
        let totals = AppendTotals {
            bytes: 10 * MARK_BYTES,
            entries: 10,
        };
        assert_eq!(log_size.totals(), totals);
        assert_eq!(log_size.beyond_tail(3 * MARK_BYTES), Some(6));
        assert_eq!(log_size.beyond_tail(20 * MARK_BYTES), None);
        log_size.purged(6);
        assert_eq!(log_size.beyond_tail(3 * MARK_BYTES), None);
        assert_eq!(log_size.beyond_tail(2 * MARK_BYTES), Some(7));
        log_size.truncated(Some(7));
        assert_eq!(log_size.beyond_tail(0), Some(7));
    }
}
