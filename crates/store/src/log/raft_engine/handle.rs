//! The log of one group: changes go through its view into the queue, reads through its view and the disk.

use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::thread;

use bytes::Bytes;

use super::Threads;
use super::entry::Entries;
use super::view::{Plan, View};
use super::write::{self, Write};
use super::writer::{Engine, Group, guarded};
use crate::health::{Panicked, caught};
use crate::log::{Done, GroupLog, Purged, Record, State};

/// How often a read is planned anew when a purge overtakes it.
const READ_ATTEMPTS_MAX: usize = 4;

pub(super) struct Handle {
    pub(super) threads: Arc<Threads>,
    pub(super) group: Arc<Group>,
}

impl Handle {
    pub(super) fn write_durably(&self, done: Done, change: impl FnOnce(&mut View, u64) -> io::Result<Write>) {
        let slot = match self.threads.parts.writer.slot() {
            Ok(slot) => slot,
            Err(error) => return done(Err(error)),
        };
        let changed = change(&mut self.group.view.lock(), slot.number());
        match changed {
            Ok(write) => slot.push(self.group.clone(), write, Some(done)),
            Err(error) => {
                drop(slot);
                done(Err(error));
            }
        }
    }

    fn write(&self, change: impl FnOnce(&mut View) -> Write) -> io::Result<()> {
        let slot = self.threads.parts.writer.slot()?;
        let write = change(&mut self.group.view.lock());
        slot.push(self.group.clone(), write, None);
        Ok(())
    }

    /// Reads from disk, on a thread of its own: raft-engine caches blocks by thread and would take another engine's
    /// block in this process for its own.
    fn fetch(&self, range: &Range<u64>, max_bytes: usize) -> io::Result<Vec<Record>> {
        let (engine, region) = (&self.threads.parts.engine, write::region(self.group.id));
        thread::scope(|scope| {
            let fetch = || caught(|| fetch(engine, region, range, max_bytes));
            let fetch = scope.spawn(fetch);
            let fetched = fetch.join().map_err(|payload| Panicked::new(&*payload));
            fetched.flatten().map_err(io::Error::other)?
        })
    }
}

fn fetch(engine: &Engine, region: u64, range: &Range<u64>, max_bytes: usize) -> io::Result<Vec<Record>> {
    let mut entries = Vec::new();
    guarded(|| engine.fetch_entries_to::<Entries>(region, range.start, range.end, Some(max_bytes), &mut entries))?;
    Ok(entries.into_iter().map(Record::from).collect())
}

impl GroupLog for Handle {
    fn state(&self) -> io::Result<State> {
        self.threads.parts.health.check()?;
        let (range, mut state) = {
            let view = self.group.view.lock();
            let state = State {
                purged: view.purged.clone(),
                vote: view.vote.clone(),
                committed: view.committed.clone(),
                ..State::default()
            };
            (view.range(), state)
        };
        if !range.is_empty() {
            state.first = Some(range.start);
            state.last = self.read(range.end - 1..range.end, 0)?.pop();
        }
        Ok(state)
    }

    fn append(&self, records: Vec<Record>, done: Done) {
        self.write_durably(done, |view, number| view.append(records, number));
    }

    fn truncate_after(&self, last: Option<u64>) -> io::Result<()> {
        self.write(|view| view.truncate_after(last))
    }

    fn purge(&self, upto: u64, meta: Bytes) -> io::Result<()> {
        self.write(|view| view.purge(Purged { index: upto, meta }))
    }

    fn save_vote(&self, vote: Bytes, done: Done) {
        self.write_durably(done, |view, _| {
            view.vote = Some(vote.clone());
            Ok(Write::Vote(vote))
        });
    }

    fn save_committed(&self, committed: Bytes) -> io::Result<()> {
        self.write(|view| {
            view.committed = Some(committed.clone());
            Write::Committed(committed)
        })
    }

    fn read(&self, range: Range<u64>, max_bytes: usize) -> io::Result<Vec<Record>> {
        self.threads.parts.health.check()?;
        let mut attempts = 0;
        loop {
            let plan = self.group.view.lock().plan(&range, max_bytes);
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

/// Appends what was found in memory, if all before it was read and as much as fits.
fn joined(mut records: Vec<Record>, plan: Plan, max_bytes: usize) -> Vec<Record> {
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
