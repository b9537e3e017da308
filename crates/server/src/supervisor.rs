//! The background tasks of a node, and their end.
//!
//! Every task of the server is spawned here. A task that fails or panics stops the node: a node that runs with a part
//! missing is worse than one that restarts.
//!
//! # Invariants
//!
//! 1. No task outlives [`Supervisor::finish`].
//! 2. The first failure is the one that is reported.

use std::{collections::HashMap, future::Future, time::Duration};

use futures::future::BoxFuture;
use tokio::{
    sync::mpsc,
    task::{Id, JoinError, JoinSet},
};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error_span, info, warn};

/// Why a task failed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A task ended before it was asked to.
#[derive(Debug, thiserror::Error)]
#[error("task {task} failed")]
pub struct TaskFailed {
    /// Its name.
    pub task: &'static str,
    /// Why.
    #[source]
    pub source: BoxError,
}

type Task = (&'static str, BoxFuture<'static, Result<(), BoxError>>);

/// Owns the tasks of a node.
#[derive(Debug)]
pub struct Supervisor {
    stop: CancellationToken,
    tasks: JoinSet<Result<(), BoxError>>,
    names: HashMap<Id, &'static str>,
    later: (mpsc::UnboundedSender<Task>, mpsc::UnboundedReceiver<Task>),
}

/// Hands tasks to the supervisor while the node runs: a link to a peer that is needed for the first time. Unbounded,
/// because its users spawn one task for each peer or group.
#[derive(Clone, Debug)]
pub struct Spawner {
    stop: CancellationToken,
    tasks: mpsc::UnboundedSender<Task>,
}

impl Spawner {
    /// Spawns a task. It must return soon after its stop token fires; after the node's stop it never starts.
    pub fn spawn<F, E>(&self, task: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let run = run(self.stop.child_token());
        let run = async move { run.await.map_err(Into::into) };
        if self.tasks.send((task, Box::pin(run))).is_err() {
            info!(task, "a task is not started, the node is stopping");
        }
    }
}

impl Supervisor {
    /// Returns a supervisor whose tasks stop when this token fires.
    pub fn new(stop: CancellationToken) -> Self {
        Self {
            stop,
            tasks: JoinSet::new(),
            names: HashMap::new(),
            later: mpsc::unbounded_channel(),
        }
    }

    /// Returns a handle that spawns tasks later.
    pub fn spawner(&self) -> Spawner {
        Spawner {
            stop: self.stop.clone(),
            tasks: self.later.0.clone(),
        }
    }

    /// Returns the token that ends every task.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Spawns a task. It must return soon after its stop token fires.
    pub fn spawn<F, E>(&mut self, task: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let run = run(self.stop.child_token());
        self.start((task, Box::pin(async move { run.await.map_err(Into::into) })));
    }

    fn start(&mut self, (task, run): Task) {
        let handle = self.tasks.spawn(run.instrument(error_span!("task", task)));
        self.names.insert(handle.id(), task);
    }

    /// Waits until a task fails; for ever, while none does and none was asked to stop.
    ///
    /// # Errors
    ///
    /// The first task that failed or panicked.
    pub async fn watch(&mut self) -> Result<(), TaskFailed> {
        loop {
            tokio::select! {
                Some(ended) = self.tasks.join_next_with_id() => {
                    if let Some(failed) = self.failure(ended) {
                        return Err(failed);
                    }
                }
                Some(task) = self.later.1.recv() => self.start(task),
                () = self.stop.cancelled() => return Ok(()),
            }
        }
    }

    /// Stops every task, and gives them `grace` to end.
    ///
    /// # Errors
    ///
    /// The first task that failed or panicked while it stopped.
    pub async fn finish(mut self, grace: Duration) -> Result<(), TaskFailed> {
        self.later.1.close();
        // What never started is dropped now, so that whoever waits for it is told.
        while self.later.1.try_recv().is_ok() {}
        self.stop.cancel();
        info!(tasks = self.tasks.len(), "stopping");
        let mut first = None;
        let drained = tokio::time::timeout(grace, async {
            while let Some(ended) = self.tasks.join_next_with_id().await {
                let failed = self.failure(ended);
                first = first.take().or(failed);
            }
        });
        if drained.await.is_err() {
            warn!(tasks = self.tasks.len(), ?grace, "tasks did not stop in time");
            self.tasks.shutdown().await;
        }
        first.map_or(Ok(()), Err)
    }

    fn failure(&mut self, ended: Result<(Id, Result<(), BoxError>), JoinError>) -> Option<TaskFailed> {
        let (id, source) = match ended {
            Ok((id, Ok(()))) => {
                self.names.remove(&id);
                return None;
            }
            Ok((id, Err(error))) => (id, error),
            Err(panic) => (panic.id(), panic.into()),
        };
        Some(TaskFailed {
            task: self.names.get(&id).copied().unwrap_or("unknown"),
            source,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_failed_task_stops_the_others_and_is_the_one_reported() {
        let mut supervisor = Supervisor::new(CancellationToken::new());
        supervisor.spawn("patient", |stop| async move {
            stop.cancelled().await;
            Ok::<_, BoxError>(())
        });
        supervisor.spawn("broken", |_| async { Err::<(), BoxError>("disk full".into()) });
        let failed = supervisor.watch().await.unwrap_err();
        assert_eq!(failed.task, "broken");
        supervisor.finish(Duration::from_secs(1)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_is_ended_after_the_grace() {
        let stop = CancellationToken::new();
        let mut supervisor = Supervisor::new(stop.clone());
        supervisor.spawn("deaf", |_| std::future::pending::<Result<(), BoxError>>());
        stop.cancel();
        supervisor.watch().await.unwrap();
        supervisor.finish(Duration::from_secs(5)).await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_can_be_spawned_while_the_node_runs() {
        let mut supervisor = Supervisor::new(CancellationToken::new());
        let spawner = supervisor.spawner();
        spawner.spawn("late", |_| async { Err::<(), BoxError>("broken link".into()) });
        assert_eq!(supervisor.watch().await.unwrap_err().task, "late");
    }
}
