//! Health of a node: the one place where fatal failures stop the node, and where retries are counted.
//!
//! ```text
//!   storage, groups, tasks, threads ── fail ──> Health ── wait_for_failure ──> the node stops, with the first reason
//!                                  └── retry ──> a log line, and a count per operation, which a metric shows
//! ```
//!
//! After a failed sync it is unknown what reached the disk, and a second one may succeed without having written what
//! the first one lost. So the first failure is final: the log rejects every later call, the rows reject every later
//! write, and the node stops.
//!
//! # Invariants
//!
//! 1. Once failed, always failed; the first failure is the one that is reported.
//! 2. A panic is a failure like any other; its message is the reason.

use std::collections::BTreeMap;
use std::error::Error;
use std::fmt;
use std::io;
use std::sync::Arc;

use parking_lot::Mutex;
use stead_types::GroupId;
use tokio::sync::watch;

use crate::machine::MachineError;

mod catch_panic;

pub use catch_panic::{CatchPanic, PanicError, catch_panic, is_catching_panics};

/// Failure that stops a node.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{} failed while {doing}", group.map_or_else(|| "the node".to_owned(), |group| format!("group {group}")))]
pub struct NodeFailure {
    /// The group it happened in, if it was one.
    pub group: Option<GroupId>,
    /// The operation that failed.
    pub doing: &'static str,
    /// The cause.
    #[source]
    pub source: Arc<dyn Error + Send + Sync>,
    /// The rows cannot be trusted: they are set aside when the node has stopped.
    pub rebuild: Option<Rebuild>,
}

/// Request to rebuild the rows from the log and from other voters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuild {
    /// The group whose rows differ from those of other voters, and the entry that its rebuilt rows must reach by a
    /// snapshot: the node's own log is not trusted up to there either.
    pub target: Option<(GroupId, u64)>,
}

impl NodeFailure {
    /// Creates a failure that belongs to no group.
    pub fn of_node(doing: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            group: None,
            doing,
            source: source.into().into(),
            rebuild: None,
        }
    }

    /// Creates a failure of a group.
    pub fn of_group(group: GroupId, doing: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            group: Some(group),
            ..Self::of_node(doing, source)
        }
    }

    /// Adds a request to rebuild the rows once the node has stopped.
    #[must_use]
    pub fn with_rebuild(self, rebuild: Rebuild) -> Self {
        Self {
            rebuild: Some(rebuild),
            ..self
        }
    }
}

/// Health of one node; clones share it.
#[derive(Clone)]
pub struct Health(Arc<HealthState>);

struct HealthState {
    first: watch::Sender<Option<NodeFailure>>,
    retries: Mutex<BTreeMap<&'static str, RetryCounts>>,
}

/// Retry counts of one operation.
#[derive(Default)]
struct RetryCounts {
    total: u64,
    /// Consecutive failures since the last success, by group.
    in_a_row: BTreeMap<Option<GroupId>, u64>,
}

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(HealthState {
            first: watch::Sender::new(None),
            retries: Mutex::default(),
        }))
    }
}

impl fmt::Debug for Health {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Health").field(&self.failure()).finish()
    }
}

impl Health {
    /// Records a failure, which stops the node. Returns the first failure, which may be an earlier one.
    pub fn fail(&self, failure: NodeFailure) -> NodeFailure {
        self.0.first.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                let reason = reason(&*failure.source);
                tracing::error!(%failure, %reason, "node failed and stops");
                *first = Some(failure.clone());
            } else {
                let reason = reason(&*failure.source);
                tracing::warn!(%failure, %reason, "further failure after the node failed");
            }
            is_first
        });
        self.failure().unwrap_or(failure)
    }

    /// Returns the first failure, if there was one.
    pub fn failure(&self) -> Option<NodeFailure> {
        self.0.first.borrow().clone()
    }

    /// Waits for the first failure.
    pub async fn wait_for_failure(&self) -> NodeFailure {
        let mut first = self.0.first.subscribe();
        let failure = first
            .wait_for(Option::is_some)
            .await
            .ok()
            .and_then(|first| first.clone());
        match failure {
            Some(failure) => failure,
            // The sender is self, so that it cannot be gone.
            None => std::future::pending().await,
        }
    }

    /// Returns the first failure as an error, if the node has failed.
    pub fn check(&self) -> Result<(), NodeFailure> {
        self.failure().map_or(Ok(()), Err)
    }

    /// Runs a closure; a panic of it stops the node and is returned as an error.
    pub fn guard<T>(
        &self,
        group: Option<GroupId>,
        doing: &'static str,
        work: impl FnOnce() -> Result<T, MachineError>,
    ) -> Result<T, MachineError> {
        catch_panic(work).unwrap_or_else(|panicked| {
            let source = Arc::new(panicked.clone());
            self.fail(NodeFailure {
                group,
                doing,
                source,
                rebuild: None,
            });
            let source = Box::new(panicked);
            Err(MachineError { doing, source })
        })
    }

    /// Records that a background task failed and will be retried. It is counted, and logged at the first failure in a row
    /// and each time that their number has doubled.
    pub fn record_retry(&self, group: Option<GroupId>, part: &'static str, error: &(dyn Error + 'static)) {
        let in_a_row = {
            let mut retries = self.0.retries.lock();
            let retries = retries.entry(part).or_default();
            retries.total += 1;
            let in_a_row = retries.in_a_row.entry(group).or_default();
            *in_a_row += 1;
            *in_a_row
        };
        if in_a_row.is_power_of_two() {
            let group = group.map(|group| group.to_string());
            tracing::warn!(part, group, failures = in_a_row, error = %reason(error), "background task failed and is retried");
        }
    }

    /// Records that a background task succeeded.
    pub fn succeeded(&self, group: Option<GroupId>, part: &'static str) {
        let failures = {
            let mut retries = self.0.retries.lock();
            retries
                .get_mut(part)
                .and_then(|retries| retries.in_a_row.remove(&group))
        };
        if let Some(failures) = failures {
            let group = group.map(|group| group.to_string());
            tracing::info!(part, group, failures, "operation succeeded after retries");
        }
    }

    /// Returns the number of retries of each operation since the node started.
    pub fn retries(&self) -> Vec<(&'static str, u64)> {
        let retries = self.0.retries.lock();
        retries.iter().map(|(part, retries)| (*part, retries.total)).collect()
    }
}

/// Returns an error with its causes, in one line.
fn reason(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl From<NodeFailure> for io::Error {
    fn from(failure: NodeFailure) -> Self {
        let source: &(dyn Error + 'static) = &*failure.source;
        let kind = source
            .downcast_ref::<io::Error>()
            .map_or(io::ErrorKind::Other, io::Error::kind);
        Self::new(kind, failure)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GROUP: GroupId = GroupId::new(3);

    #[tokio::test]
    async fn first_failure_is_final_and_reported_to_all() {
        // Invariant 1.
        let health = Health::default();
        health.check().unwrap();
        let before = health.clone();
        let heard = tokio::spawn(async move { before.wait_for_failure().await.doing });
        health.fail(NodeFailure::of_node("first", io::Error::other("x")));
        let second = health.fail(NodeFailure::of_group(GROUP, "second", "y"));
        assert_eq!(second.to_string(), "the node failed while first");
        assert_eq!(heard.await.unwrap(), "first");
        assert_eq!(health.wait_for_failure().await.doing, "first");
        let refused = io::Error::from(health.check().unwrap_err());
        assert_eq!(refused.kind(), io::ErrorKind::Other);
    }

    #[test]
    fn guarded_panic_stops_the_node_with_its_message() {
        // Invariant 2.
        let health = Health::default();
        let done: Result<(), MachineError> = health.guard(Some(GROUP), "counting", || panic!("at {}", 7));
        assert_eq!(done.unwrap_err().source.to_string(), "panic: at 7");
        let failure = health.failure().unwrap();
        assert_eq!(failure.to_string(), "group g3 failed while counting");
        assert_eq!(failure.source.to_string(), "panic: at 7");
        let health = Health::default();
        let done: Result<(), MachineError> = health.guard(None, "counting", || panic!("no number"));
        assert_eq!(done.unwrap_err().source.to_string(), "panic: no number");
        assert_eq!(health.guard(None, "counting", || Ok(7)).unwrap(), 7);
    }

    #[test]
    fn retries_are_counted_per_operation() {
        let health = Health::default();
        for _ in 0..3 {
            health.record_retry(None, "sending", &io::Error::other("away"));
        }
        health.record_retry(Some(GROUP), "sending", &io::Error::other("away"));
        health.succeeded(None, "sending");
        health.succeeded(None, "asking");
        assert_eq!(health.retries(), [("sending", 4)]);
        assert!(health.failure().is_none());
    }
}
