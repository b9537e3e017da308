//! Cache of one group's log as its callers see it: its positions, and its tail in memory, ahead of the disk.
//!
//! # Invariants
//!
//! 1. Records from `tail_first` up are in the tail; those below are on disk and no queued write removes them.
//! 2. A record leaves the tail only after it was written; written records in it are bounded by [`TAIL_LEN_MAX`].

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use bytes::Bytes;

use super::log_write::LogWrite;
use crate::log::operation::{ReadBudget, check_append};
use crate::log::{LogRecord, PurgePoint};

/// Most bytes of written records that a group keeps in memory for Raft's replication and apply.
pub const TAIL_LEN_MAX: usize = 4 << 20;

/// Cached positions and tail of one group's log.
#[derive(Default)]
pub(super) struct LogCache {
    pub(super) purged: Option<PurgePoint>,
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<Bytes>,
    /// Index of the first record.
    first: u64,
    /// Next index; `None` if the log may begin anywhere.
    next: Option<u64>,
    tail_first: u64,
    tail: VecDeque<CachedRecord>,
    tail_len: usize,
    /// Whether the key `end` is set on disk, since records above it were truncated.
    end_is_set: bool,
}

/// Record of the tail.
struct CachedRecord {
    bytes: Bytes,
    /// Number of the write that carries it.
    write: u64,
}

/// Plan of a read: the records found in memory, and the range to fetch from disk before them.
pub(super) struct ReadPlan {
    pub(super) fetch: Range<u64>,
    pub(super) tail: Vec<LogRecord>,
}

impl LogCache {
    /// Creates the cache of a log found on disk.
    pub(super) fn recovered(records: Range<u64>, purged: Option<PurgePoint>, end_is_set: bool) -> Self {
        let anything = purged.is_some() || end_is_set || !records.is_empty();
        Self {
            first: records.start,
            next: anything.then_some(records.end),
            tail_first: records.end,
            purged,
            end_is_set,
            ..Self::default()
        }
    }

    /// Returns the indexes of the log.
    pub(super) fn range(&self) -> Range<u64> {
        self.first..self.next.unwrap_or(self.first)
    }

    /// Tells whether anything was ever written.
    pub(super) fn is_used(&self) -> bool {
        self.next.is_some() || self.vote.is_some() || self.committed.is_some()
    }

    pub(super) fn append(&mut self, records: Vec<LogRecord>, write: u64) -> io::Result<LogWrite> {
        check_append(&records, self.next)?;
        let Some(start) = records.first().map(|record| record.index) else {
            return Ok(LogWrite::Nothing);
        };
        let was_empty = self.range().is_empty();
        if was_empty {
            (self.first, self.tail_first) = (start, start);
        }
        for record in &records {
            self.tail_len += record.bytes.len();
            let bytes = record.bytes.clone();
            self.tail.push_back(CachedRecord { bytes, write });
        }
        self.next = Some(start + records.len() as u64);
        Ok(LogWrite::Entries {
            // Compacting first lets raft-engine restart the log, where it would panic about the hole.
            begin_at: was_empty.then_some(start),
            clear_end: std::mem::take(&mut self.end_is_set),
            records,
        })
    }

    pub(super) fn truncate_after(&mut self, last: Option<u64>) -> LogWrite {
        let end = last.map_or(0, |last| last + 1).max(self.first);
        if self.range().end <= end {
            return LogWrite::Nothing;
        }
        while end < self.tail_first + self.tail.len() as u64 {
            let Some(dropped) = self.tail.pop_back() else {
                self.tail_first = end;
                break;
            };
            self.tail_len -= dropped.bytes.len();
        }
        self.next = Some(end);
        self.end_is_set = true;
        LogWrite::End(end)
    }

    pub(super) fn purge(&mut self, purged: PurgePoint) -> LogWrite {
        if self.purged.as_ref().is_some_and(|last| purged.index <= last.index) {
            return LogWrite::Nothing;
        }
        let first = purged.index + 1;
        self.first = first.max(self.first);
        self.next = Some(self.next.map_or(first, |next| next.max(first)));
        while self.tail_first < first {
            let Some(dropped) = self.tail.pop_front() else {
                self.tail_first = first;
                break;
            };
            self.tail_first += 1;
            self.tail_len -= dropped.bytes.len();
        }
        self.purged = Some(purged.clone());
        LogWrite::Purge(purged)
    }

    /// Evicts written records beyond the bound.
    pub(super) fn evict_written(&mut self, write: u64) {
        while TAIL_LEN_MAX < self.tail_len && self.tail.front().is_some_and(|front| front.write <= write) {
            let dropped = self.tail.pop_front().expect("there is a front");
            self.tail_first += 1;
            self.tail_len -= dropped.bytes.len();
        }
    }

    pub(super) fn plan(&self, range: &Range<u64>, max_bytes: usize) -> ReadPlan {
        let here = self.range();
        let (start, end) = (range.start.max(here.start), range.end.min(here.end));
        let fetch = start..end.min(self.tail_first);
        let skipped = start.saturating_sub(self.tail_first);
        let wanted = end.saturating_sub(start.max(self.tail_first)) as usize;
        let mut budget = ReadBudget::new(max_bytes);
        let tail = (self.tail_first + skipped..)
            .zip(self.tail.iter().skip(skipped as usize).take(wanted))
            .take_while(|(_, cached)| budget.take(cached.bytes.len()))
            .map(|(index, cached)| LogRecord {
                index,
                bytes: cached.bytes.clone(),
            })
            .collect();
        ReadPlan { fetch, tail }
    }
}
