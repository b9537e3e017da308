//! Whether a node's storage may still be used, and the signal that it may not.
//!
//! A sync that failed says nothing about what reached the disk, and a second one may succeed without having written
//! what the first one lost. So the first failure is final: storage refuses every later call, and the node, which
//! watches [`Health::on_failure`], stops.
//!
//! # Invariants
//!
//! 1. Once failed, always failed; the first failure is the one that is reported.

use std::io;
use std::sync::Arc;

use parking_lot::Mutex;

/// Called once, with what failed.
pub type Listener = Box<dyn FnOnce(&Failure) + Send>;

/// Storage failed earlier, and this call was refused on account of it.
#[derive(Clone, Debug, thiserror::Error)]
#[error("storage failed and must be opened again: {doing}")]
pub struct Failure {
    /// What storage was doing when it failed.
    pub doing: &'static str,
    /// Why it failed.
    #[source]
    pub source: Arc<io::Error>,
}

/// The state of a node's storage; clones share it.
#[derive(Clone, Default)]
pub struct Health(Arc<Mutex<State>>);

#[derive(Default)]
struct State {
    failure: Option<Failure>,
    listeners: Vec<Listener>,
}

impl Health {
    /// Returns the first failure, if there was one.
    pub fn failure(&self) -> Option<Failure> {
        self.0.lock().failure.clone()
    }

    /// Calls `listener` when storage fails, or at once if it has.
    pub fn on_failure(&self, listener: Listener) {
        let mut state = self.0.lock();
        match state.failure.clone() {
            None => state.listeners.push(listener),
            Some(failure) => {
                drop(state);
                listener(&failure);
            }
        }
    }

    /// Refuses if storage has failed.
    pub(crate) fn check(&self) -> io::Result<()> {
        match self.failure() {
            None => Ok(()),
            Some(failure) => Err(failure.into()),
        }
    }

    /// Records a failure and tells the listeners. Returns the first failure, which may be an earlier one.
    pub(crate) fn fail(&self, doing: &'static str, error: io::Error) -> Failure {
        let mut state = self.0.lock();
        let failure = state
            .failure
            .get_or_insert_with(|| Failure {
                doing,
                source: Arc::new(error),
            })
            .clone();
        let listeners = std::mem::take(&mut state.listeners);
        drop(state);
        for listener in listeners {
            listener(&failure);
        }
        failure
    }
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
        Self::new(failure.source.kind(), failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicU32, Ordering};

    #[test]
    fn the_first_failure_is_final_and_every_listener_hears_of_it_once() {
        let health = Health::default();
        let heard = Arc::new(AtomicU32::new(0));
        let listener = |heard: &Arc<AtomicU32>| -> Listener {
            let heard = heard.clone();
            Box::new(move |failure| {
                assert_eq!(failure.doing, "first");
                heard.fetch_add(1, Ordering::Relaxed);
            })
        };
        assert!(health.check().is_ok());
        health.on_failure(listener(&heard));
        health.fail("first", io::Error::other("x"));
        assert_eq!(health.fail("second", io::Error::other("y")).doing, "first");
        health.on_failure(listener(&heard));
        assert!(health.check().is_err());
        assert_eq!(heard.load(Ordering::Relaxed), 2);
    }
}
