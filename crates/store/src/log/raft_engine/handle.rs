//! Handle of one group's log: changes go through its cache into the queue, reads through its cache and the disk.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;

use super::Threads;
use super::entry::Entries;
use super::log_cache::{LogCache, ReadPlan};
use super::log_write::{self, LogWrite};
use super::writer::{CachedGroup, LogEngine, call_engine};
use crate::health::{PanicError, catch_panic};
use crate::log::{GroupLog, GroupLogState, LogRecord, PurgePoint, SyncCallback};

/// Attempts of a read that a purge overtakes.
const READ_ATTEMPTS_MAX: usize = 4;

pub(super) struct GroupHandle {
    pub(super) threads: Arc<Threads>,
    pub(super) group: Arc<CachedGroup>,
}

impl GroupHandle {
    pub(super) fn write_durably(
        &self,
        done: SyncCallback,
        change: impl FnOnce(&mut LogCache, u64) -> io::Result<LogWrite>,
    ) {
        let slot = match self.threads.parts.writer.slot() {
            Ok(slot) => slot,
            Err(error) => return done(Err(error)),
        };
        let changed = change(&mut self.group.cache.lock(), slot.number());
        match changed {
            Ok(write) => slot.push(self.group.clone(), write, Some(done)),
            Err(error) => {
                drop(slot);
                done(Err(error));
            }
        }
    }

    fn write(&self, change: impl FnOnce(&mut LogCache) -> LogWrite) -> io::Result<()> {
        let slot = self.threads.parts.writer.slot()?;
        let write = change(&mut self.group.cache.lock());
        slot.push(self.group.clone(), write, None);
        Ok(())
    }

    /// Reads from disk on a thread of its own: raft-engine caches blocks by thread and would mistake the block of
    /// another engine in this process for its own.
    fn fetch(&self, range: &Range<u64>, max_bytes: usize) -> io::Result<Vec<LogRecord>> {
        let (engine, engine_group) = (&self.threads.parts.engine, log_write::engine_group_id(self.group.id));
        thread::scope(|scope| {
            let fetch = || catch_panic(|| fetch(engine, engine_group, range, max_bytes));
            let fetch = scope.spawn(fetch);
            let fetched = fetch.join().map_err(|payload| PanicError::new(&*payload));
            fetched.flatten().map_err(io::Error::other)?
        })
    }
}

fn fetch(engine: &LogEngine, engine_group: u64, range: &Range<u64>, max_bytes: usize) -> io::Result<Vec<LogRecord>> {
    let mut entries = Vec::new();
    call_engine(|| {
        engine.fetch_entries_to::<Entries>(engine_group, range.start, range.end, Some(max_bytes), &mut entries)
    })?;
    Ok(entries.into_iter().map(LogRecord::from).collect())
}

impl GroupLog for GroupHandle {
    fn state(&self) -> io::Result<GroupLogState> {
        self.threads.parts.health.check()?;
        let (range, mut state) = {
            let cache = self.group.cache.lock();
            let state = GroupLogState {
                purged: cache.purged.clone(),
                vote: cache.vote.clone(),
                committed: cache.committed.clone(),
                ..GroupLogState::default()
            };
            (cache.range(), state)
        };
        if !range.is_empty() {
            state.first = Some(range.start);
            state.last = self.read(range.end - 1..range.end, 0)?.pop();
        }
        Ok(state)
    }

    fn append(&self, records: Vec<LogRecord>, done: SyncCallback) {
        self.write_durably(done, |cache, number| cache.append(records, number));
    }

    fn truncate_after(&self, last: Option<u64>) -> io::Result<()> {
        self.write(|cache| cache.truncate_after(last))
    }

    fn purge(&self, upto: u64, meta: Bytes) -> io::Result<()> {
        self.write(|cache| cache.purge(PurgePoint { index: upto, meta }))
    }

    fn save_vote(&self, vote: Bytes, done: SyncCallback) {
        self.write_durably(done, |cache, _| {
            cache.vote = Some(vote.clone());
            Ok(LogWrite::Vote(vote))
        });
    }

    fn save_committed(&self, committed: Bytes) -> io::Result<()> {
        self.write(|cache| {
            cache.committed = Some(committed.clone());
            LogWrite::Committed(committed)
        })
    }

    fn read(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<LogRecord>> {
        self.threads.parts.health.check()?;
        let mut attempts = 0;
        loop {
            let plan = self.group.cache.lock().plan(&range, max_bytes);
            if plan.fetch.is_empty() {
                return Ok(plan.tail);
            }
            attempts += 1;
            match self.fetch(&plan.fetch, max_bytes) {
                Ok(records) => return Ok(joined(records, plan, max_bytes)),
                Err(error) if READ_ATTEMPTS_MAX <= attempts => return Err(error),
                Err(_purged_meanwhile) => {}
            }
        }
    }
}

/// Appends the records of the cached tail that fit, if everything before them was read.
fn joined(mut records: Vec<LogRecord>, plan: ReadPlan, max_bytes: usize) -> Vec<LogRecord> {
    if records.last().is_none_or(|last| last.index + 1 != plan.fetch.end) {
        return records;
    }
    let mut left = max_bytes.saturating_sub(records.iter().map(|record| record.bytes.len()).sum());
    for record in plan.tail {
        if left < record.bytes.len() {
            break;
        }
        left -= record.bytes.len();
        records.push(record);
    }
    records
}
