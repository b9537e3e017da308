//! Tasks of this crate, each with a name and a stop token. Nothing is spawned anywhere else.
//!
//! # Invariants
//!
//! 1. No task outlives [`Tasks::stop`].
//! 2. A task that panics stops the node.

use stead_store::health::{CatchPanic, Health, NodeFailure};
use stead_types::GroupId;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Tasks of one group.
#[derive(Clone, Debug)]
pub(crate) struct Tasks {
    group: GroupId,
    tracker: TaskTracker,
    stop: CancellationToken,
    health: Health,
}

impl Tasks {
    pub(crate) fn new(group: GroupId, health: Health) -> Self {
        Self {
            group,
            tracker: TaskTracker::new(),
            stop: CancellationToken::new(),
            health,
        }
    }

    /// Spawns a task that runs until it ends or the group stops; it is dropped at an await.
    pub(crate) fn spawn(&self, name: &'static str, task: impl Future<Output = ()> + Send + 'static) {
        let (stop, health, group) = (self.stop.clone(), self.health.clone(), self.group);
        self.tracker.spawn(async move {
            if let Err(panicked) = CatchPanic::new(stop.run_until_cancelled_owned(task)).await {
                health.fail(NodeFailure::of_group(group, name, panicked));
            }
        });
    }

    /// Tells whether the group is stopping.
    pub(crate) fn is_stopping(&self) -> bool {
        self.stop.is_cancelled()
    }

    /// Signals the stop, without waiting for the tasks.
    pub(crate) fn announce_stop(&self) {
        self.stop.cancel();
    }

    /// Stops every task and waits for it.
    pub(crate) async fn stop(&self) {
        self.stop.cancel();
        self.tracker.close();
        self.tracker.wait().await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panicking_task_stops_the_node_with_its_message() {
        // Invariant 2.
        let health = Health::default();
        let tasks = Tasks::new(GroupId::new(3), health.clone());
        tasks.spawn("counting", async { panic!("on purpose") });
        let failure = health.wait_for_failure().await;
        assert_eq!(failure.to_string(), "group g3 failed while counting");
        assert_eq!(failure.source.to_string(), "panic: on purpose");
        tasks.stop().await;
    }
}
