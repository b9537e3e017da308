//! Execution of blocking work, which waits for a disk.

use stead_store::health::{Health, NodeFailure};
use stead_store::machine::MachineError;
use stead_types::GroupId;

/// Mode of running checkpoints, snapshots and other blocking work.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockingMode {
    /// On the runtime's pool of blocking threads.
    Pool,
    /// Immediately, on the calling task: for simulations, where everything runs on one thread.
    Inline,
}

/// Runner of the blocking work of one group.
#[derive(Clone, Debug)]
pub(crate) struct BlockingWorker {
    pub(crate) blocking: BlockingMode,
    pub(crate) group: GroupId,
    pub(crate) health: Health,
}

impl BlockingWorker {
    /// Runs work and returns its result; a panic of it stops the node and is returned as an error.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce() -> Result<T, MachineError> + Send + 'static,
    ) -> Result<T, MachineError> {
        let (group, health) = (Some(self.group), self.health.clone());
        let work = move || health.guard(group, doing, work);
        match self.blocking {
            BlockingMode::Inline => work(),
            BlockingMode::Pool => match tokio::task::spawn_blocking(work).await {
                Ok(done) => done,
                // The runtime is shut down, and no caller waits any more.
                Err(error) => Err(MachineError {
                    doing,
                    source: Box::new(error),
                }),
            },
        }
    }

    /// Records a failure of the group, which stops the node.
    pub(crate) fn fail(&self, doing: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) {
        self.health.fail(NodeFailure::of_group(self.group, doing, source));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panicking_work_returns_error_and_stops_the_node() {
        for blocking in [BlockingMode::Pool, BlockingMode::Inline] {
            let worker = BlockingWorker {
                blocking,
                group: GroupId::new(3),
                health: Health::default(),
            };
            let done: Result<(), MachineError> = worker.run("cutting a snapshot", || panic!("on purpose")).await;
            assert_eq!(done.unwrap_err().source.to_string(), "panic: on purpose");
            let failure = worker.health.failure().unwrap();
            assert_eq!(failure.to_string(), "group g3 failed while cutting a snapshot");
            assert_eq!(worker.run("counting", || Ok(7)).await.unwrap(), 7);
        }
    }
}
