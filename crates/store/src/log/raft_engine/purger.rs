//! Removes log files that nobody needs, on its own thread, because removing rewrites what is left in them.

use std::io;

use parking_lot::{Condvar, Mutex};
use stead_types::GroupId;

use super::write;
use super::writer::{Engine, guarded};
use crate::health::Health;

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

    /// Purges now and then until stopped or failed.
    pub(super) fn run(&self, engine: &Engine, health: &Health) {
        while self.wait() {
            match purge(engine) {
                Ok(groups) => self.state.lock().holding_back = groups,
                Err(error) => {
                    health.fail("removing old log files", error);
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

fn purge(engine: &Engine) -> io::Result<Vec<GroupId>> {
    let regions = guarded(|| engine.purge_expired_files())?;
    let mut groups: Vec<GroupId> = regions.into_iter().filter_map(write::group).collect();
    groups.sort();
    Ok(groups)
}
