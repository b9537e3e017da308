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
use std::path::Path;
use std::sync::Arc;
use std::thread::{self, JoinHandle};

use parking_lot::Mutex;
use raft_engine::{Config, ReadableSize};
use stead_types::GroupId;

use super::{Done, GroupLog, LogStore};
use crate::health::{Failure, Health, caught};

mod entry;
mod files;
mod handle;
mod purger;
mod recover;
mod view;
mod write;
mod writer;

use files::Abandoned;
pub use files::SyncFault;
pub use view::TAIL_LEN_MAX;
pub use writer::QUEUE_LEN_MAX;

use handle::Handle;
use purger::Purger;
use view::View;
use write::Write;
use writer::{Engine, Group, Writer, guarded};

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

/// Tells whether a file of the log holds nothing that is ever read.
pub(crate) fn is_spare(path: &Path) -> bool {
    purger::is_spare(path)
}

/// Opens the log in a directory, which is made if it is missing, for a node with this health. `fault` can make its syncs
/// fail.
pub fn open(dir: &Path, options: &Options, fault: SyncFault, health: Health) -> io::Result<Arc<dyn LogStore>> {
    Ok(Arc::new(open_parts(dir, options, fault, health)?))
}

fn open_parts(dir: &Path, options: &Options, fault: SyncFault, health: Health) -> io::Result<Logs> {
    let config = options.config(dir)?;
    let abandoned = Abandoned::default();
    let files = files::Files {
        fault,
        abandoned: abandoned.clone(),
    };
    let engine = guarded(|| Engine::open_with_file_system(config, Arc::new(files)))?;
    let groups = recover::groups(&engine)?;
    let parts = Arc::new(Parts {
        engine,
        writer: Writer::new(health.clone()),
        purger: Purger::new(options.file_len as usize),
        health,
        abandoned,
    });
    let (writes, purges, dir) = (parts.clone(), parts.clone(), dir.to_owned());
    let writer = move || writes.watched("writing the log", || writes.write());
    let purger = move || purges.watched("removing old log files", || purges.purge(&dir));
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
    abandoned: Abandoned,
}

impl Parts {
    /// Runs one of the threads; a panic of it stops the node.
    fn watched(&self, doing: &'static str, run: impl FnOnce()) {
        if let Err(panicked) = caught(run) {
            self.health.fail(Failure::of_node(doing, panicked));
            self.writer.give_up();
        }
    }

    fn write(&self) {
        self.writer.run(&self.engine, |len| self.purger.wrote(len));
    }

    fn purge(&self, dir: &Path) {
        self.purger.run(dir, &self.engine, &self.health);
    }
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
        let mut have_ended = true;
        for handle in self.threads.drain(..) {
            // The last handle may be dropped by a callback, on the writer's own thread.
            if handle.thread().id() == thread::current().id() {
                have_ended = false;
            } else if handle.join().is_err() {
                tracing::error!("a thread of the log panicked while it told of a panic");
            }
        }
        if have_ended && self.parts.health.failure().is_some() {
            self.parts.abandoned.set();
        }
    }
}

struct Logs {
    threads: Arc<Threads>,
    groups: Mutex<BTreeMap<GroupId, Arc<Group>>>,
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

    fn is_in_use(&self) -> bool {
        1 < Arc::strong_count(&self.threads)
    }

    fn health(&self) -> &Health {
        &self.threads.parts.health
    }
}

#[cfg(test)]
mod model_test;
#[cfg(test)]
mod raft_engine_test;
