//! The background tasks of a node, and their end.
//!
//! Every task of the server is spawned here. A task that fails or panics stops the node: a node that runs with a part
//! missing is worse than one that restarts.
//!
//! # Invariants
//!
//! 1. No task outlives [`Supervisor::finish`].
//! 2. A task that fails or panics, also while it stops, is a failure of the node's health, with its name and the reason.

use std::{future::Future, time::Duration};

use futures::future::BoxFuture;
use stead_store::health::{Caught, Failure, Health};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error_span, info, warn};

/// Why a task failed.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

type Task = (&'static str, BoxFuture<'static, Result<(), BoxError>>);

/// Owns the tasks of a node.
#[derive(Debug)]
pub struct Supervisor {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    health: Health,
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
    pub fn new(stop: CancellationToken, health: Health) -> Self {
        Self {
            stop,
            tasks: JoinSet::new(),
            health,
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
        let health = self.health.clone();
        let watched = async move {
            let failed = match Caught::new(run).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => Failure::of_node(task, error),
                Err(panicked) => Failure::of_node(task, panicked),
            };
            health.fail(failed);
        };
        self.tasks.spawn(watched.instrument(error_span!("task", task)));
    }

    /// Starts what is spawned later, until the tasks are to stop.
    pub async fn watch(&mut self) {
        loop {
            tokio::select! {
                Some(_ended) = self.tasks.join_next() => {}
                Some(task) = self.later.1.recv() => self.start(task),
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Stops every task, and gives them `grace` to end.
    pub async fn finish(mut self, grace: Duration) {
        self.later.1.close();
        // What never started is dropped now, so that whoever waits for it is told.
        while self.later.1.try_recv().is_ok() {}
        self.stop.cancel();
        info!(tasks = self.tasks.len(), "stopping");
        let drained = tokio::time::timeout(grace, async { while self.tasks.join_next().await.is_some() {} });
        if drained.await.is_err() {
            warn!(tasks = self.tasks.len(), ?grace, "tasks did not stop in time");
            self.tasks.shutdown().await;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn supervisor() -> (Supervisor, Health) {
        let health = Health::default();
        (Supervisor::new(CancellationToken::new(), health.clone()), health)
    }

    #[tokio::test(start_paused = true)]
    async fn failed_task_stops_the_node_with_its_name() {
        let (mut supervisor, health) = supervisor();
        supervisor.spawn("patient", |stop| async move {
            stop.cancelled().await;
            Ok::<_, BoxError>(())
        });
        supervisor.spawn("broken", |_| async { Err::<(), BoxError>("disk full".into()) });
        let failure = health.failed().await;
        assert_eq!(
            (failure.doing, failure.source.to_string()),
            ("broken", "disk full".to_owned())
        );
        supervisor.finish(Duration::from_secs(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn panicking_task_stops_the_node_also_while_it_stops() {
        let (mut supervisor, health) = supervisor();
        supervisor.spawn("fragile", |stop| async move {
            stop.cancelled().await;
            if stop.is_cancelled() {
                panic!("at the end");
            }
            Ok::<_, BoxError>(())
        });
        supervisor.finish(Duration::from_secs(1)).await;
        let failure = health.failure().unwrap();
        assert_eq!(
            (failure.doing, failure.source.to_string()),
            ("fragile", "panic: at the end".to_owned())
        );
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_that_does_not_stop_is_ended_after_the_grace() {
        let (mut supervisor, health) = supervisor();
        supervisor.spawn("deaf", |_| std::future::pending::<Result<(), BoxError>>());
        supervisor.stop_token().cancel();
        supervisor.watch().await;
        supervisor.finish(Duration::from_secs(5)).await;
        assert!(health.failure().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn a_task_can_be_spawned_while_the_node_runs() {
        let (mut supervisor, health) = supervisor();
        let spawner = supervisor.spawner();
        spawner.spawn("late", |_| async { Err::<(), BoxError>("broken link".into()) });
        tokio::select! {
            failure = health.failed() => assert_eq!(failure.doing, "late"),
            () = supervisor.watch() => unreachable!("nobody has stopped it"),
        }
    }
}
