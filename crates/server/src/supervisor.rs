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

use tokio::task::{Id, JoinError, JoinSet};
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

/// Owns the tasks of a node.
#[derive(Debug, Default)]
pub struct Supervisor {
    stop: CancellationToken,
    tasks: JoinSet<Result<(), BoxError>>,
    names: HashMap<Id, &'static str>,
}

impl Supervisor {
    /// Returns a supervisor whose tasks stop when this token fires.
    pub fn new(stop: CancellationToken) -> Self {
        Self {
            stop,
            ..Self::default()
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
        let run = async move { run.await.map_err(Into::into) };
        let handle = self.tasks.spawn(run.instrument(error_span!("task", task)));
        self.names.insert(handle.id(), task);
    }

    /// Waits until a task fails or the stop token fires, then gives the rest `grace` to end.
    ///
    /// # Errors
    ///
    /// The first task that failed or panicked.
    pub async fn finish(mut self, grace: Duration) -> Result<(), TaskFailed> {
        let mut first = None;
        while first.is_none() && !self.tasks.is_empty() {
            tokio::select! {
                Some(ended) = self.tasks.join_next_with_id() => first = self.failure(ended),
                () = self.stop.cancelled() => break,
            }
        }
        self.stop.cancel();
        info!(tasks = self.tasks.len(), "stopping");
        let drained = tokio::time::timeout(grace, async {
            while let Some(ended) = self.tasks.join_next_with_id().await {
                first = first.take().or(self.failure(ended));
            }
        });
        if drained.await.is_err() {
            warn!(tasks = self.tasks.len(), ?grace, "tasks did not stop in time");
            self.tasks.shutdown().await;
        }
        first.map_or(Ok(()), Err)
    }

    fn failure(&self, ended: Result<(Id, Result<(), BoxError>), JoinError>) -> Option<TaskFailed> {
        let (id, source) = match ended {
            Ok((_, Ok(()))) => return None,
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
        let failed = supervisor.finish(Duration::from_secs(1)).await.unwrap_err();
        assert_eq!(failed.task, "broken");
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_is_ended_after_the_grace() {
        let stop = CancellationToken::new();
        let mut supervisor = Supervisor::new(stop.clone());
        supervisor.spawn("deaf", |_| std::future::pending::<Result<(), BoxError>>());
        stop.cancel();
        supervisor.finish(Duration::from_secs(5)).await.unwrap();
    }
}
