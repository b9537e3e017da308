//! The tasks of this crate, each with a name and a stop token. Nothing is spawned anywhere else.
//!
//! # Invariants
//!
//! 1. No task outlives [`Tasks::stop`].
//! 2. A task that panics stops the node.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use futures::FutureExt;
use stead_types::GroupId;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::failure::{Ended, Failure, Failures};

/// The tasks of one group.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    group: GroupId,
    tracker: TaskTracker,
    stop: CancellationToken,
    failures: Failures,
}

impl Tasks {
    pub(crate) fn new(group: GroupId, failures: Failures) -> Self {
        Self {
            group,
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            failures,
        }
    }

    /// Runs a task until it ends or the group stops; it is dropped where it waits.
    pub(crate) fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let (stop, failures, group) = (self.stop.clone(), self.failures.clone(), self.group);
        self.tracker.spawn(async move {
            let task = AssertUnwindSafe(stop.run_until_cancelled_owned(task)).catch_unwind();
            if task.await.is_err() {
                failures.report(Failure {
                    group: Some(group),
                    doing: name,
                    source: Arc::new(Ended("the task panicked")),
                });
            }
        });
    }

    /// Tells whether the group is stopping.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Announces the end, without waiting for it.
    pub(crate) fn announce_stop(&self) {
        self.stop.cancel();
    }

    /// Ends every task and waits for it.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}
