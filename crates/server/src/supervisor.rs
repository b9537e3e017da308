//! Supervisor of a node's background tasks.
//!
//! Every task of the server is spawned here. A task that fails or panics stops the node, because a node that runs
//! without one of its tasks is worse than one that restarts.
//!
//! # Invariants
//!
//! 1. No task outlives [`Supervisor::finish`].
//! 2. A task that fails or panics, also while it stops, fails the node's health with its name and the reason.

use std::{future::Future, time::Duration};

use futures::future::BoxFuture;
use stead_store::health::{CatchPanic, Health, NodeFailure};
use tokio::{sync::mpsc, task::JoinSet};
use tokio_util::sync::CancellationToken;
use tracing::{Instrument, error_span, info, warn};

/// The error of a failed task.
pub type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A named task that is not started yet.
struct Task {
    name: &'static str,
    run: BoxFuture<'static, Result<(), BoxError>>,
}

/// The supervisor, which owns the tasks of a node.
#[derive(Debug)]
pub struct Supervisor {
    stop: CancellationToken,
    tasks: JoinSet<()>,
    health: Health,
    spawned: (mpsc::UnboundedSender<Task>, mpsc::UnboundedReceiver<Task>),
}

/// A handle that hands tasks to the supervisor while the node runs, such as a link to a peer that is needed for the
/// first time. Its channel is unbounded, because its users spawn one task for each peer or group.
#[derive(Clone, Debug)]
pub struct Spawner {
    stop: CancellationToken,
    tasks: mpsc::UnboundedSender<Task>,
}

impl Spawner {
    /// Spawns a task, which must return soon after its stop token fires. After the node's stop it never starts.
    pub fn spawn<F, E>(&self, name: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let run = run(self.stop.child_token());
        let run = async move { run.await.map_err(Into::into) };
        let task = Task {
            name,
            run: Box::pin(run),
        };
        if self.tasks.send(task).is_err() {
            info!(task = name, "task not started: the node is stopping");
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
            spawned: mpsc::unbounded_channel(),
        }
    }

    /// Returns a handle that spawns tasks later.
    pub fn spawner(&self) -> Spawner {
        Spawner {
            stop: self.stop.clone(),
            tasks: self.spawned.0.clone(),
        }
    }

    /// Returns the token that ends every task.
    pub fn stop_token(&self) -> CancellationToken {
        self.stop.clone()
    }

    /// Spawns a task, which must return soon after its stop token fires.
    pub fn spawn<F, E>(&mut self, name: &'static str, run: impl FnOnce(CancellationToken) -> F)
    where
        F: Future<Output = Result<(), E>> + Send + 'static,
        E: Into<BoxError>,
    {
        let run = run(self.stop.child_token());
        self.start(Task {
            name,
            run: Box::pin(async move { run.await.map_err(Into::into) }),
        });
    }

    fn start(&mut self, Task { name, run }: Task) {
        let health = self.health.clone();
        let watched = async move {
            let failed = match CatchPanic::new(run).await {
                Ok(Ok(())) => return,
                Ok(Err(error)) => NodeFailure::of_node(name, error),
                Err(panicked) => NodeFailure::of_node(name, panicked),
            };
            health.fail(failed);
        };
        self.tasks.spawn(watched.instrument(error_span!("task", task = name)));
    }

    /// Starts the tasks that the spawners hand over, until the stop token fires.
    pub async fn run(&mut self) {
        loop {
            tokio::select! {
                Some(_ended) = self.tasks.join_next() => {}
                Some(task) = self.spawned.1.recv() => self.start(task),
                () = self.stop.cancelled() => return,
            }
        }
    }

    /// Stops every task and waits up to `grace` for them to end.
    pub async fn finish(mut self, grace: Duration) {
        self.spawned.1.close();
        // Tasks that never started are dropped now, so that whoever waits for one of them learns it.
        while self.spawned.1.try_recv().is_ok() {}
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
    async fn supervisor_failed_task_fails_node_health() {
        let (mut supervisor, health) = supervisor();
        supervisor.spawn("patient", |stop| async move {
            stop.cancelled().await;
            Ok::<_, BoxError>(())
        });
        supervisor.spawn("broken", |_| async { Err::<(), BoxError>("disk full".into()) });
        let failure = health.wait_for_failure().await;
        assert_eq!(
            (failure.doing, failure.source.to_string()),
            ("broken", "disk full".to_owned())
        );
        supervisor.finish(Duration::from_secs(1)).await;
    }

    #[tokio::test(start_paused = true)]
    async fn supervisor_panic_while_stopping_fails_node_health() {
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
    async fn supervisor_aborts_unresponsive_task_after_grace() {
        let (mut supervisor, health) = supervisor();
        supervisor.spawn("deaf", |_| std::future::pending::<Result<(), BoxError>>());
        supervisor.stop_token().cancel();
        supervisor.run().await;
        supervisor.finish(Duration::from_secs(5)).await;
        assert!(health.failure().is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn spawner_starts_task_while_node_runs() {
        let (mut supervisor, health) = supervisor();
        let spawner = supervisor.spawner();
        spawner.spawn("late", |_| async { Err::<(), BoxError>("broken link".into()) });
        tokio::select! {
            failure = health.wait_for_failure() => assert_eq!(failure.doing, "late"),
            () = supervisor.run() => unreachable!("nobody has stopped it"),
        }
    }
}
