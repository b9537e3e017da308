//! Where work runs that waits for a disk.

use stead_store::health::{Failure, Health};
use stead_store::machine::Failed;
use stead_types::GroupId;

/// Where checkpoints, snapshots and the like are run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Blocking {
    /// On the runtime's threads for blocking work.
    Pool,
    /// At once, on the calling task: for simulations, where everything runs on one thread.
    Inline,
}

/// Runs the work of one group that waits for a disk.
#[derive(Clone, Debug)]
pub(crate) struct Worker {
    pub(crate) blocking: Blocking,
    pub(crate) group: GroupId,
    pub(crate) health: Health,
}

impl Worker {
    /// Does some work and returns what it returned; a panic of it stops the node and is an error like any other.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        doing: &'static str,
        work: impl FnOnce() -> Result<T, Failed> + Send + 'static,
    ) -> Result<T, Failed> {
        let (group, health) = (Some(self.group), self.health.clone());
        let work = move || health.guard(group, doing, work);
        match self.blocking {
            Blocking::Inline => work(),
            Blocking::Pool => match tokio::task::spawn_blocking(work).await {
                Ok(done) => done,
                // The runtime is shut down: nobody waits any more.
                Err(error) => Err(Failed {
                    doing,
                    source: Box::new(error),
                }),
            },
        }
    }

    /// Stops the node for what the group's work has come to.
    pub(crate) fn fail(&self, doing: &'static str, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) {
        self.health.fail(Failure::of_group(self.group, doing, source));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn panicking_work_is_an_error_and_stops_the_node() {
        for blocking in [Blocking::Pool, Blocking::Inline] {
            let worker = Worker {
                blocking,
                group: GroupId::new(3),
                health: Health::default(),
            };
            let done: Result<(), Failed> = worker.run("cutting a snapshot", || panic!("on purpose")).await;
            assert_eq!(done.unwrap_err().source.to_string(), "panic: on purpose");
            let failure = worker.health.failure().unwrap();
            assert_eq!(failure.to_string(), "group g3 failed while cutting a snapshot");
            assert_eq!(worker.run("counting", || Ok(7)).await.unwrap(), 7);
        }
    }
}
