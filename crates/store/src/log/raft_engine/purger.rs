//! Purge thread, which removes old log files. It is separate because removing a file rewrites its live records.

use std::fs::File;
use std::io;
use std::path::Path;

use parking_lot::{Condvar, Mutex};
use stead_types::GroupId;

use super::log_write;
use super::writer::{LogEngine, call_engine};
use crate::health::{Health, NodeFailure};
use crate::room::is_out_of_room;

const PURGING: &str = "removing old log files";

/// Extension of raft-engine's spare files.
const SPARE: &str = "reserved";

/// Tells whether a file is a spare one: its contents are never read.
pub(super) fn is_spare(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == SPARE)
}

/// State shared with the purge thread.
pub(super) struct Purger {
    state: Mutex<PurgerState>,
    wake: Condvar,
    /// Bytes written between two purges.
    interval_bytes: usize,
}

#[derive(Default)]
struct PurgerState {
    written: usize,
    stopping: bool,
    purge_blockers: Vec<GroupId>,
}

impl Purger {
    pub(super) fn new(interval_bytes: usize) -> Self {
        Self {
            state: Mutex::default(),
            wake: Condvar::new(),
            interval_bytes,
        }
    }

    /// Counts bytes written to the log.
    pub(super) fn count_written(&self, len: usize) {
        let mut state = self.state.lock();
        state.written += len;
        if self.interval_bytes <= state.written {
            self.wake.notify_all();
        }
    }

    pub(super) fn stop(&self) {
        self.state.lock().stopping = true;
        self.wake.notify_all();
    }

    /// Returns the groups whose old records keep files from being removed, as of the last purge.
    pub(super) fn purge_blockers(&self) -> Vec<GroupId> {
        self.state.lock().purge_blockers.clone()
    }

    /// Makes the spare files of `dir` durable; then purges periodically until stopped or failed.
    pub(super) fn run(&self, dir: &Path, engine: &LogEngine, health: &Health) {
        if let Err(error) = sync_spare_files(dir) {
            health.fail(NodeFailure::of_node("syncing spare log files", error));
            return;
        }
        while self.wait() {
            match purge(engine) {
                Ok(groups) => {
                    health.succeeded(None, PURGING);
                    self.state.lock().purge_blockers = groups;
                }
                // What was to be rewritten is still where it was: the next round tries again.
                Err(error) if is_out_of_room(&error) => health.record_retry(None, PURGING, &error),
                Err(error) => {
                    health.fail(NodeFailure::of_node(PURGING, error));
                    return;
                }
            }
        }
    }

    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while state.written < self.interval_bytes && !state.stopping {
            self.wake.wait(&mut state);
        }
        state.written = 0;
        !state.stopping
    }
}

/// Syncs the spare files. The kernel would otherwise write them all at once, some 30 s after the start, and delay the
/// writes at that time.
fn sync_spare_files(dir: &Path) -> io::Result<()> {
    for entry in dir.read_dir()? {
        let path = entry?.path();
        if is_spare(&path) {
            // The log's writer may have started to use it meanwhile.
            match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                file => file?.sync_data()?,
            }
        }
    }
    Ok(())
}

fn purge(engine: &LogEngine) -> io::Result<Vec<GroupId>> {
    let engine_groups = call_engine(|| engine.purge_expired_files())?;
    let mut groups: Vec<GroupId> = engine_groups.into_iter().filter_map(log_write::group_of).collect();
    groups.sort();
    Ok(groups)
}
