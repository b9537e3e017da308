//! What one group's log holds, as its callers see it: the end of it in memory, ahead of the disk.
//!
//! # Invariants
//!
//! 1. Records from `tail_first` up are in the tail; those below are on disk and will not be dropped by what waits.
//! 2. A record leaves the tail only after it was written; what is kept beyond that is bounded by [`TAIL_LEN_MAX`].

use std::collections::VecDeque;
use std::io;
use std::ops::Range;

use bytes::Bytes;

use super::write::Write;
use crate::log::group_state::{Budget, check_append};
use crate::log::{Purged, Record};

/// Most bytes of written records that a group keeps in memory for Raft's replication and apply.
pub const TAIL_LEN_MAX: usize = 4 << 20;

#[derive(Default)]
pub(super) struct View {
    pub(super) purged: Option<Purged>,
    pub(super) vote: Option<Bytes>,
    pub(super) committed: Option<Bytes>,
    /// Index of the first record.
    first: u64,
    /// Where the log goes on; `None` if it may begin anywhere.
    next: Option<u64>,
    tail_first: u64,
    tail: VecDeque<Tailed>,
    tail_len: usize,
    /// Whether the disk remembers, beside the log, that records stand there which were dropped.
    end_is_set: bool,
}

struct Tailed {
    bytes: Bytes,
    /// Number of the write that carries it.
    write: u64,
}

/// What a read finds in memory, and what it must fetch from disk before that.
pub(super) struct Plan {
    pub(super) fetch: Range<u64>,
    pub(super) tail: Vec<Record>,
}

impl View {
    /// The view of a log found on disk.
    pub(super) fn recovered(records: Range<u64>, purged: Option<Purged>, end_is_set: bool) -> Self {
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

    /// Returns the indexes that are there.
    pub(super) fn range(&self) -> Range<u64> {
        self.first..self.next.unwrap_or(self.first)
    }

    /// Tells whether anything was ever kept.
    pub(super) fn is_used(&self) -> bool {
        self.next.is_some() || self.vote.is_some() || self.committed.is_some()
    }

    pub(super) fn append(&mut self, records: Vec<Record>, write: u64) -> io::Result<Write> {
        check_append(&records, self.next)?;
        let Some(start) = records.first().map(|record| record.index) else {
            return Ok(Write::Nothing);
        };
        let was_empty = self.range().is_empty();
        if was_empty {
            (self.first, self.tail_first) = (start, start);
        }
        for record in &records {
            self.tail_len += record.bytes.len();
            let bytes = record.bytes.clone();
            self.tail.push_back(Tailed { bytes, write });
        }
        self.next = Some(start + records.len() as u64);
        Ok(Write::Entries {
            // Compacting first lets raft-engine begin the log anew, where it would panic about the hole.
            begin_at: was_empty.then_some(start),
            clear_end: std::mem::take(&mut self.end_is_set),
            records,
        })
    }

    pub(super) fn truncate_after(&mut self, last: Option<u64>) -> Write {
        let end = last.map_or(0, |last| last + 1).max(self.first);
        if self.range().end <= end {
            return Write::Nothing;
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
        Write::End(end)
    }

    pub(super) fn purge(&mut self, purged: Purged) -> Write {
        if self.purged.as_ref().is_some_and(|last| purged.index <= last.index) {
            return Write::Nothing;
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
        Write::Purge(purged)
    }

    /// Lets go of what is written and beyond the bound.
    pub(super) fn written(&mut self, write: u64) {
        while TAIL_LEN_MAX < self.tail_len && self.tail.front().is_some_and(|front| front.write <= write) {
            let dropped = self.tail.pop_front().expect("there is a front");
            self.tail_first += 1;
            self.tail_len -= dropped.bytes.len();
        }
    }

    pub(super) fn plan(&self, range: &Range<u64>, max_bytes: usize) -> Plan {
        let here = self.range();
        let (start, end) = (range.start.max(here.start), range.end.min(here.end));
        let fetch = start..end.min(self.tail_first);
        let skipped = start.saturating_sub(self.tail_first);
        let wanted = end.saturating_sub(start.max(self.tail_first)) as usize;
        let mut budget = Budget::new(max_bytes);
        let tail = (self.tail_first + skipped..)
            .zip(self.tail.iter().skip(skipped as usize).take(wanted))
            .take_while(|(_, tailed)| budget.take(tailed.bytes.len()))
            .map(|(index, tailed)| Record {
                index,
                bytes: tailed.bytes.clone(),
            })
            .collect();
        Plan { fetch, tail }
    }
}
