//! How many bytes of a group's log are behind which index: what checkpoints and purging go by.
//!
//! Only what this process appended is counted. What stood in the log when it was opened counts as older than all of
//! that, and is purged first.

use std::collections::VecDeque;

use parking_lot::Mutex;
use tokio::sync::Notify;

/// A mark is set each time this many bytes have been appended, or a part of the tail that is to be kept.
const MARK_BYTES: u64 = 1 << 20;
const MARKS_PER_TAIL: u64 = 8;

/// Counts what a group's log holds.
#[derive(Debug)]
pub(crate) struct Retained {
    mark_bytes: u64,
    counts: Mutex<Counts>,
    /// Told of every append, for whoever waits for enough of them.
    grown: Notify,
}

#[derive(Debug, Default)]
struct Counts {
    /// Bytes and entries appended so far.
    bytes: u64,
    entries: u64,
    /// Index and bytes so far, each about [`MARK_BYTES`] after the last.
    marks: VecDeque<(u64, u64)>,
}

impl Retained {
    /// Counts for a log of which so many bytes are kept.
    pub(crate) fn keeping(tail_bytes: u64) -> Self {
        Self {
            mark_bytes: MARK_BYTES.min(tail_bytes / MARKS_PER_TAIL),
            counts: Mutex::default(),
            grown: Notify::new(),
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
        self.grown.notify_one();
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

    /// Returns bytes and entries appended so far.
    pub(crate) fn so_far(&self) -> (u64, u64) {
        let counts = self.counts.lock();
        (counts.bytes, counts.entries)
    }

    /// Returns the index up to which the log may go, so that about `tail` bytes remain.
    pub(crate) fn beyond_tail(&self, tail: u64) -> Option<u64> {
        let counts = self.counts.lock();
        let keep_from = counts.bytes.checked_sub(tail)?;
        let beyond = counts.marks.iter().take_while(|(_, at)| *at <= keep_from);
        beyond.last().map(|(index, _)| *index)
    }

    /// Waits for something to be appended after the last call.
    pub(crate) async fn grown(&self) {
        self.grown.notified().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tail_is_what_was_appended_last() {
        let retained = Retained::keeping(64 << 20);
        for index in 0..10 {
            retained.appended(index, 1, MARK_BYTES);
        }
        assert_eq!(retained.so_far(), (10 * MARK_BYTES, 10));
        assert_eq!(retained.beyond_tail(3 * MARK_BYTES), Some(6));
        assert_eq!(retained.beyond_tail(20 * MARK_BYTES), None);
        retained.purged(6);
        assert_eq!(retained.beyond_tail(3 * MARK_BYTES), None);
        assert_eq!(retained.beyond_tail(2 * MARK_BYTES), Some(7));
        retained.truncated(Some(7));
        assert_eq!(retained.beyond_tail(0), Some(7));
    }
}
