//! Log on disk in [raft-engine](https://docs.rs/raft-engine), one engine for all groups of a node.
//!
//! ```text
//!   caller ── cache (memory) ── queue ──> writer thread ──> raft-engine ──> files
//!      └─────── read ──┴─────────── below the tail ────────────┘   purge thread ──┘
//! ```
//!
//! The lock order is queue, then cache: a cache changes in the order in which its writes are queued. Two threads
//! belong to an open log; they end when the store and the last handle of a group are dropped.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use raft_engine::{Config, ReadableSize};
use stead_types::GroupId;

use super::{GroupLog, LogStore, SyncCallback};
use crate::health::{Health, NodeFailure, catch_panic};
use crate::latency::LatencySnapshot;

mod entry;
mod files;
mod handle;
mod log_cache;
mod log_write;
mod purger;
mod recover;
mod writer;

use files::AbandonedFlag;
pub use files::SyncFault;
pub use log_cache::TAIL_LEN_MAX;
pub use writer::QUEUE_LEN_MAX;

use handle::GroupHandle;
use log_cache::LogCache;
use log_write::LogWrite;
use purger::Purger;
use writer::{CachedGroup, LogEngine, LogWriter, call_engine};

/// Sizes of the log's files.
#[derive(Clone, Debug)]
pub struct Options {
    /// Length of a file.
    pub file_len: u64,
    /// Total length above which old files are removed.
    pub purge_len: u64,
    /// Total length of the files that are allocated when the log is opened, so that writes need not extend them.
    pub prefill_len: u64,
}

impl Options {
    /// Sizes for one node on a host: 192 MB when idle.
    pub const LARGE: Self = Self {
        file_len: 64 << 20,
        purge_len: 128 << 20,
        prefill_len: 256 << 20,
    };

    /// Sizes for many nodes on one host: 48 MB when idle.
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

/// Tells whether a file of the log is a spare one, whose contents are never read.
pub(crate) fn is_spare(path: &Path) -> bool {
    purger::is_spare(path)
}

/// Opens the log in a directory, which is created if it is missing, for a node with this health. `fault` can make its
/// syncs fail.
pub fn open(dir: &Path, options: &Options, fault: SyncFault, health: Health) -> io::Result<Arc<dyn LogStore>> {
    Ok(Arc::new(open_parts(dir, options, fault, health)?))
}

fn open_parts(dir: &Path, options: &Options, fault: SyncFault, health: Health) -> io::Result<RaftEngineLogs> {
    let config = options.config(dir)?;
    let abandoned = AbandonedFlag::default();
    let files = files::Files {
        fault,
        abandoned: abandoned.clone(),
    };
    let engine = call_engine(|| LogEngine::open_with_file_system(config, Arc::new(files)))?;
    let groups = recover::groups(&engine)?;
    let parts = Arc::new(Parts {
        engine,
        writer: LogWriter::new(health.clone(), dir),
        purger: Purger::new(options.file_len as usize),
        health,
        abandoned,
    });
    let (writes, purges, dir) = (parts.clone(), parts.clone(), dir.to_owned());
    let writer = move || writes.run_thread("writing the log", || writes.write());
    let purger = move || purges.run_thread("removing old log files", || purges.purge(&dir));
    let threads = Threads {
        parts,
        threads: vec![
            thread::Builder::new().name("log-writer".into()).spawn(writer)?,
            thread::Builder::new().name("log-purger".into()).spawn(purger)?,
        ],
    };
    Ok(RaftEngineLogs {
        threads: Arc::new(threads),
        groups: Mutex::new(groups),
    })
}

struct Parts {
    engine: LogEngine,
    writer: LogWriter,
    purger: Purger,
    health: Health,
    abandoned: AbandonedFlag,
}

impl Parts {
    /// Runs one of the threads; a panic of it stops the node.
    fn run_thread(&self, doing: &'static str, run: impl FnOnce()) {
        if let Err(panicked) = catch_panic(run) {
            self.health.fail(NodeFailure::of_node(doing, panicked));
            self.writer.reject_queued();
        }
    }

    fn write(&self) {
        self.writer.run(&self.engine, |len| self.purger.count_written(len));
    }

    fn purge(&self, dir: &Path) {
        self.purger.run(dir, &self.engine, &self.health);
    }
}

/// Threads of an open log; they end with the last handle, after the queued writes.
struct Threads {
    parts: Arc<Parts>,
    threads: Vec<JoinHandle<()>>,
}

impl Drop for Threads {
    fn drop(&mut self) {
        self.parts.writer.stop();
        self.parts.purger.stop();
        let mut have_ended = true;
        for handle in self.threads.drain(..) {
            // The last handle may be dropped by a callback, on the writer's own thread.
            if handle.thread().id() == thread::current().id() {
                have_ended = false;
            } else if handle.join().is_err() {
                tracing::error!("a log thread panicked while it reported a panic");
            }
        }
        if have_ended && self.parts.health.failure().is_some() {
            self.parts.abandoned.set();
        }
    }
}

struct RaftEngineLogs {
    threads: Arc<Threads>,
    groups: Mutex<BTreeMap<GroupId, Arc<CachedGroup>>>,
}

impl RaftEngineLogs {
    fn handle(&self, id: GroupId) -> GroupHandle {
        let mut groups = self.groups.lock();
        let group = groups.entry(id).or_insert_with(|| {
            let cache = Mutex::default();
            Arc::new(CachedGroup { id, cache })
        });
        GroupHandle {
            threads: self.threads.clone(),
            group: group.clone(),
        }
    }
}

impl LogStore for RaftEngineLogs {
    fn group(&self, group: GroupId) -> Arc<dyn GroupLog> {
        Arc::new(self.handle(group))
    }

    fn groups(&self) -> Vec<GroupId> {
        let groups = self.groups.lock();
        let used = groups.values().filter(|group| group.cache.lock().is_used());
        used.map(|group| group.id).collect()
    }

    fn erase(&self, group: GroupId, done: SyncCallback) {
        self.handle(group).write_durably(done, |cache, _| {
            *cache = LogCache::default();
            Ok(LogWrite::Erase)
        });
    }

    fn purge_blockers(&self) -> Vec<GroupId> {
        self.threads.parts.purger.purge_blockers()
    }

    fn is_in_use(&self) -> bool {
        1 < Arc::strong_count(&self.threads)
    }

    fn health(&self) -> &Health {
        &self.threads.parts.health
    }

    fn sync_latency(&self) -> LatencySnapshot {
        self.threads.parts.writer.latency.snapshot()
    }
}

#[cfg(test)]
mod model_test;
#[cfg(test)]
mod raft_engine_test;
