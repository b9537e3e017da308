//! The log on disk: [raft-engine](https://docs.rs/raft-engine), one for all groups of a node.
//!
//! ```text
//!   caller ── view (memory) ── queue ──> writer thread ──> raft-engine ──> files
//!      └─────── read ──┴─────────── below the tail ────────────┘   purge thread ──┘
//! ```
//!
//! The order of locks is queue, then view: a view changes in the order in which its writes are queued. Two threads
//! belong to an open log; they end when the store and the last handle of a group are dropped.

use std::collections::BTreeMap;
use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use bytes::Bytes;
use parking_lot::Mutex;
use raft_engine::{Config, ReadableSize};
use stead_types::GroupId;

use super::{Done, GroupLog, LogStore, Purged, Record, State};
use crate::health::Health;

mod entry;
mod files;
mod purger;
mod recover;
mod view;
mod write;
mod writer;

pub use files::SyncFault;
pub use view::TAIL_LEN_MAX;
pub use writer::QUEUE_LEN_MAX;

use entry::Entries;
use purger::Purger;
use view::View;
use write::Write;
use writer::{Engine, Group, Writer, guarded};

/// How often a read is planned anew when a purge overtakes it.
const READ_ATTEMPTS_MAX: usize = 4;

/// Sizes of the log's files.
#[derive(Clone, Debug)]
pub struct Options {
    /// Length of a file.
    pub file_len: u64,
    /// Total above which old files are removed.
    pub purge_len: u64,
    /// Total of the files that are made when the log is opened, so that writing need not extend them.
    pub prefill_len: u64,
}

impl Options {
    /// For a machine of its own: 192 MB at rest.
    pub const LARGE: Self = Self {
        file_len: 64 << 20,
        purge_len: 128 << 20,
        prefill_len: 256 << 20,
    };

    /// For many nodes on one machine: 48 MB at rest.
    pub const SMALL: Self = Self {
        file_len: 8 << 20,
        purge_len: 32 << 20,
        prefill_len: 32 << 20,
    };

    fn config(&self, dir: &Path) -> io::Result<Config> {
        let dir = dir.to_str().ok_or_else(|| {
            let message = format!("the path of the log is not UTF-8: {}", dir.display());
            io::Error::new(io::ErrorKind::InvalidInput, message)
        })?;
        Ok(Config {
            dir: dir.to_owned(),
            recovery_threads: 2,
            batch_compression_threshold: ReadableSize(0),
            target_file_size: ReadableSize(self.file_len),
            purge_threshold: ReadableSize(self.purge_len),
            enable_log_recycle: true,
            prefill_for_recycle: 0 < self.prefill_len,
            prefill_limit: (0 < self.prefill_len).then_some(ReadableSize(self.prefill_len)),
            ..Config::default()
        })
    }
}

/// Opens the log in a directory, which is made if it is missing. `fault` can make its syncs fail.
pub fn open(dir: &Path, options: &Options, fault: SyncFault) -> io::Result<Arc<dyn LogStore>> {
    Ok(Arc::new(open_parts(dir, options, fault)?))
}

fn open_parts(dir: &Path, options: &Options, fault: SyncFault) -> io::Result<Logs> {
    let config = options.config(dir)?;
    let engine = guarded(|| Engine::open_with_file_system(config, Arc::new(files::Files(fault))))?;
    let groups = recover::groups(&engine)?;
    let health = Health::default();
    let parts = Arc::new(Parts {
        engine,
        writer: Writer::new(health.clone()),
        purger: Purger::new(options.file_len as usize),
        health,
    });
    let (writes, purges) = (parts.clone(), parts.clone());
    let writer = move || writes.writer.run(&writes.engine, |len| writes.purger.wrote(len));
    let purger = move || purges.purger.run(&purges.engine, &purges.health);
    let threads = Threads {
        parts,
        threads: vec![
            thread::Builder::new().name("log-writer".into()).spawn(writer)?,
            thread::Builder::new().name("log-purger".into()).spawn(purger)?,
        ],
    };
    Ok(Logs {
        threads: Arc::new(threads),
        groups: Mutex::new(groups),
    })
}

struct Parts {
    engine: Engine,
    writer: Writer,
    purger: Purger,
    health: Health,
}

/// Ends the threads with the last handle, after what is queued was written.
struct Threads {
    parts: Arc<Parts>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.parts.writer.stop();
        self.parts.purger.stop();
        for handle in self.threads.drain(..) {
            // The last handle may be dropped by a callback, on the writer's own thread.
            if handle.thread().id() != thread::current().id() && handle.join().is_err() {
                self.parts
                    .health
                    .fail("stopping", io::Error::other("a thread of the log panicked"));
            }
        }
    }
}

struct Logs {
    threads: Arc<Threads>,
    groups: Mutex<BTreeMap<GroupId, Arc<Group>>>,
}

struct Handle {
    threads: Arc<Threads>,
    group: Arc<Group>,
}

impl Logs {
    fn handle(&self, id: GroupId) -> Handle {
        let mut groups = self.groups.lock();
        let group = groups.entry(id).or_insert_with(|| {
            let view = Mutex::default();
            Arc::new(Group { id, view })
        });
        Handle {
            threads: self.threads.clone(),
            group: group.clone(),
        }
    }
}

impl LogStore for Logs {
    fn group(&self, group: GroupId) -> Arc<dyn GroupLog> {
        Arc::new(self.handle(group))
    }

    fn groups(&self) -> Vec<GroupId> {
        let groups = self.groups.lock();
        let used = groups.values().filter(|group| group.view.lock().is_used());
        used.map(|group| group.id).collect()
    }

    fn erase(&self, group: GroupId, done: Done) {
        self.handle(group).write_durably(done, |view, _| {
            *view = View::default();
            Ok(Write::Erase)
        });
    }

    fn holding_back(&self) -> Vec<GroupId> {
        self.threads.parts.purger.holding_back()
    }

    fn health(&self) -> &Health {
        &self.threads.parts.health
    }
}

impl Handle {
    fn write_durably(&self, done: Done, change: impl FnOnce(&mut View, u64) -> io::Result<Write>) {
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
            let fetch = scope.spawn(|| fetch(engine, region, range, max_bytes));
            fetch.join().map_err(|_| io::Error::other("reading the log panicked"))?
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
fn joined(mut records: Vec<Record>, plan: view::Plan, max_bytes: usize) -> Vec<Record> {
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

#[cfg(test)]
mod model_test;
#[cfg(test)]
mod raft_engine_test;
