//! Removes log files that nobody needs, on its own thread, because removing rewrites what is left in them.

use std::fs::File;
use std::io;
use std::path::Path;

use parking_lot::{Condvar, Mutex};
use stead_types::GroupId;

use super::write;
use super::writer::{Engine, guarded};
use crate::health::{Failure, Health};

/// How raft-engine's names of spare files end.
const SPARE: &str = "reserved";

/// Tells whether a file was made for later use: what stands in it is never read.
pub(super) fn is_spare(path: &Path) -> bool {
    path.extension().is_some_and(|extension| extension == SPARE)
}

/// The purge thread's inbox and outbox.
pub(super) struct Purger {
    state: Mutex<State>,
    wake: Condvar,
    /// Purges after so many bytes were written.
    every: usize,
}

#[derive(Default)]
struct State {
    written: usize,
    stopping: bool,
    holding_back: Vec<GroupId>,
}

impl Purger {
    pub(super) fn new(every: usize) -> Self {
        Self {
            state: Mutex::default(),
            wake: Condvar::new(),
            every,
        }
    }

    /// Counts bytes written to the log.
    pub(super) fn wrote(&self, len: usize) {
        let mut state = self.state.lock();
        state.written += len;
        if self.every <= state.written {
            self.wake.notify_all();
        }
    }

    pub(super) fn stop(&self) {
        self.state.lock().stopping = true;
        self.wake.notify_all();
    }

    /// Returns the groups whose old records keep files alive, as of the last purge.
    pub(super) fn holding_back(&self) -> Vec<GroupId> {
        self.state.lock().holding_back.clone()
    }

    /// Makes the spare files of `dir` durable; then purges now and then until stopped or failed.
    pub(super) fn run(&self, dir: &Path, engine: &Engine, health: &Health) {
        if let Err(error) = sync_spare_files(dir) {
            health.fail(Failure::of_node("syncing spare log files", error));
            return;
        }
        while self.wait() {
            match purge(engine) {
                Ok(groups) => self.state.lock().holding_back = groups,
                Err(error) => {
                    health.fail(Failure::of_node("removing old log files", error));
                    return;
                }
            }
        }
    }

    fn wait(&self) -> bool {
        let mut state = self.state.lock();
        while state.written < self.every && !state.stopping {
            self.wake.wait(&mut state);
        }
        state.written = 0;
        !state.stopping
    }
}

/// Writes the files that were made for later use to the disk. They would else be written all at once, some 30 s after
/// the start, and writes of those moments would wait for that.
fn sync_spare_files(dir: &Path) -> io::Result<()> {
    for entry in dir.read_dir()? {
        let path = entry?.path();
        if is_spare(&path) {
            // The log's writer may have taken it into use meanwhile.
            match File::open(&path) {
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                file => file?.sync_data()?,
            }
        }
    }
    Ok(())
}

fn purge(engine: &Engine) -> io::Result<Vec<GroupId>> {
    let regions = guarded(|| engine.purge_expired_files())?;
    let mut groups: Vec<GroupId> = regions.into_iter().filter_map(write::group).collect();
    groups.sort();
    Ok(groups)
}
