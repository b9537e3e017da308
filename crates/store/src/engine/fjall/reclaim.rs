//! Return of disk space: compaction of all tables once many of their rows were removed.
//!
//! fjall compacts where tables are added. After the last of many deletes none is added, so that tombstones, and the rows that
//! they hide, would stay until later writes reach them.
//!
//! # Invariants
//!
//! 1. At most a twentieth of the time goes into it, on a thread of low priority.
//! 2. The thread has ended when the engine is closed.

use std::io;
use std::mem;
use std::sync::Arc;
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use fjall::Keyspace;
use parking_lot::Mutex;

use super::{compact, to_io};
use crate::background::lower_priority;
use crate::health::catch_panic;
use crate::room::is_out_of_room;

/// Least size at which space is worth it, and the largest at which compacting everything is.
const LEN_MIN: u64 = 16 << 20;
const LEN_MAX: u64 = 4 << 30;
/// Growth since the last compaction, beside twice the size after it, that is put down to replaced rows.
const GROWTH: u64 = 64 << 20;
/// Shortest pause between two compactions, and their share of the time.
const PAUSE_MIN: Duration = Duration::from_secs(60);
const PAUSES_PER_RUN: u32 = 20;

/// Compaction of all tables, when it is due.
#[derive(Default)]
pub(super) struct Reclaimer {
    state: Arc<Mutex<State>>,
    thread: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Debug, Default)]
struct State {
    /// Rows that were removed since the last compaction began.
    removed: u64,
    /// Size after the last compaction.
    len_after: u64,
    /// When the last compaction ended, and how long it took.
    last: Option<(Instant, Duration)>,
    is_running: bool,
    /// Error of the last compaction.
    failed: Option<io::Error>,
}

/// Sizes by which it is decided.
#[derive(Clone, Copy, Debug)]
struct Sizes {
    /// Bytes of all tables.
    len: u64,
    /// Rows of all tables, tombstones and hidden ones included.
    rows: u64,
}

impl State {
    fn is_due(&self, now: Instant, sizes: Sizes) -> bool {
        let has_paused = self
            .last
            .is_none_or(|(ended, took)| ended + PAUSE_MIN.max(took * PAUSES_PER_RUN) <= now);
        let has_removed = 0 < self.removed && sizes.rows / 4 <= self.removed;
        let has_grown = self.last.is_some() && self.len_after.saturating_mul(2).saturating_add(GROWTH) <= sizes.len;
        !self.is_running && has_paused && (LEN_MIN..=LEN_MAX).contains(&sizes.len) && (has_removed || has_grown)
    }
}

impl Reclaimer {
    /// Counts rows that a batch has removed.
    pub(super) fn count_removed(&self, rows: u64) {
        self.state.lock().removed += rows;
    }

    /// Starts a compaction if it is due. Returns the error of the last one, unless it had too little room.
    pub(super) fn start_if_due(&self, rows: &Keyspace) -> io::Result<()> {
        let mut state = self.state.lock();
        if let Some(failed) = state.failed.take() {
            return Err(failed);
        }
        let sizes = Sizes {
            len: rows.disk_space(),
            rows: rows.approximate_len() as u64,
        };
        if !state.is_due(Instant::now(), sizes) {
            return Ok(());
        }
        state.is_running = true;
        state.removed = 0;
        drop(state);
        let (state, rows) = (self.state.clone(), rows.clone());
        let run = move || {
            lower_priority();
            let began = Instant::now();
            let compacted = catch_panic(|| compact(&rows).map_err(to_io));
            let compacted = compacted.unwrap_or_else(|panicked| Err(io::Error::other(panicked)));
            let len_after = rows.disk_space();
            drop(rows);
            finish(&mut state.lock(), began, sizes.len, len_after, compacted);
        };
        let thread = thread::Builder::new().name("space".into()).spawn(run)?;
        *self.thread.lock() = Some(thread);
        Ok(())
    }
}

fn finish(state: &mut State, began: Instant, len: u64, len_after: u64, compacted: io::Result<()>) {
    let took = began.elapsed();
    state.is_running = false;
    state.last = Some((Instant::now(), took));
    state.len_after = len_after;
    match compacted {
        Ok(()) => tracing::info!(
            before_mib = len >> 20,
            after_mib = len_after >> 20,
            took_ms = took.as_millis() as u64,
            "disk space of removed rows is free"
        ),
        Err(error) if is_out_of_room(&error) => {
            tracing::warn!(%error, "no room to free the disk space of removed rows: it is tried again");
        }
        Err(error) => state.failed = Some(error),
    }
}

impl Drop for Reclaimer {
    fn drop(&mut self) {
        if let Some(thread) = mem::take(&mut *self.thread.lock())
            && thread.join().is_err()
        {
            tracing::error!("the thread that frees disk space panicked");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn sizes(mib: u64, rows: u64) -> Sizes {
        Sizes { len: mib * MIB, rows }
    }

    #[test]
    fn compaction_is_due_after_many_removals_or_much_growth() {
        let now = Instant::now();
        let mut state = State {
            removed: 25,
            ..State::default()
        };
        assert!(state.is_due(now, sizes(100, 100)));
        assert!(!state.is_due(now, sizes(100, 104)), "too few of all rows");
        assert!(!state.is_due(now, sizes(15, 100)), "too little");
        assert!(!state.is_due(now, sizes(5_000, 100)), "too much to compact at once");
        state.removed = 0;
        assert!(!state.is_due(now, sizes(1_000, 0)), "nothing is known to be removed");
        state.last = Some((now, Duration::from_secs(4)));
        state.len_after = 100 * MIB;
        let later = now + Duration::from_secs(80);
        assert!(state.is_due(later, sizes(264, 100)));
        assert!(!state.is_due(later, sizes(263, 100)));
        assert!(
            !state.is_due(later - Duration::from_millis(1), sizes(264, 100)),
            "a twentieth of the time"
        );
        state.is_running = true;
        assert!(!state.is_due(later, sizes(264, 100)));
    }
}
