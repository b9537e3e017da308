//! The health of a node: the one way by which a part that cannot go on stops the node, and the one by which a part that
//! can wait is retried.
//!
//! ```text
//!   storage, groups, tasks, threads ── fail ──> Health ── failed ──> the node stops, with the first reason
//!                                  └── retry ──> a log line, and a count by part, which a metric shows
//! ```
//!
//! A sync that failed says nothing about what reached the disk, and a second one may succeed without having written
//! what the first one lost. So the first failure is final: storage refuses every later call, and the node stops.
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

use crate::machine::Failed;

mod caught;

pub use caught::{Caught, Panicked, caught, is_caught};

/// Why a node can go on no longer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{} failed while {doing}", group.map_or_else(|| "the node".to_owned(), |group| format!("group {group}")))]
pub struct Failure {
    /// The group it happened in, if it was one.
    pub group: Option<GroupId>,
    /// What it was doing.
    pub doing: &'static str,
    /// Why it failed.
    #[source]
    pub source: Arc<dyn Error + Send + Sync>,
    /// The rows cannot be trusted: they are set aside when the node has ended.
    pub rebuild: Option<Rebuild>,
}

/// Rows are to be brought back from the log and from other voters.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rebuild {
    /// The group whose rows differ from those of other voters, and the entry that its new rows must reach by a snapshot:
    /// what the own log holds up to there is not believed either.
    pub reaching: Option<(GroupId, u64)>,
}

impl Failure {
    /// The failure of a part that is no group's.
    pub fn of_node(doing: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            group: None,
            doing,
            source: source.into().into(),
            rebuild: None,
        }
    }

    /// The failure of a group.
    pub fn of_group(group: GroupId, doing: &'static str, source: impl Into<Box<dyn Error + Send + Sync>>) -> Self {
        Self {
            group: Some(group),
            ..Self::of_node(doing, source)
        }
    }

    /// Has the rows rebuilt once the node has ended.
    #[must_use]
    pub fn rebuilding(self, rebuild: Rebuild) -> Self {
        Self {
            rebuild: Some(rebuild),
            ..self
        }
    }
}

/// The health of one node; clones share it.
#[derive(Clone)]
pub struct Health(Arc<Shared>);

struct Shared {
    first: watch::Sender<Option<Failure>>,
    retries: Mutex<BTreeMap<&'static str, Retries>>,
}

/// What one part had to do again.
#[derive(Default)]
struct Retries {
    total: u64,
    /// Since it last succeeded, by what it is a part of.
    in_a_row: BTreeMap<Option<GroupId>, u64>,
}

impl Default for Health {
    fn default() -> Self {
        Self(Arc::new(Shared {
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
    /// Stops the node. Returns the first failure, which may be an earlier one.
    pub fn fail(&self, failure: Failure) -> Failure {
        self.0.first.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                let reason = reason(&*failure.source);
                tracing::error!(%failure, %reason, "the node must stop");
                *first = Some(failure.clone());
            } else {
                let reason = reason(&*failure.source);
                tracing::warn!(%failure, %reason, "failed too, after the node was to stop");
            }
            is_first
        });
        self.failure().unwrap_or(failure)
    }

    /// Returns the first failure, if there was one.
    pub fn failure(&self) -> Option<Failure> {
        self.0.first.borrow().clone()
    }

    /// Waits for the first failure.
    pub async fn failed(&self) -> Failure {
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

    /// Refuses if the node has failed.
    pub fn check(&self) -> Result<(), Failure> {
        self.failure().map_or(Ok(()), Err)
    }

    /// Does something; a panic of it stops the node and is an error like any other.
    pub fn guard<T>(
        &self,
        group: Option<GroupId>,
        doing: &'static str,
        work: impl FnOnce() -> Result<T, Failed>,
    ) -> Result<T, Failed> {
        caught(work).unwrap_or_else(|panicked| {
            let source = Arc::new(panicked.clone());
            self.fail(Failure {
                group,
                doing,
                source,
                rebuild: None,
            });
            let source = Box::new(panicked);
            Err(Failed { doing, source })
        })
    }

    /// Tells that a part did not come about and will be tried again: counted, and told at the first time, and each time
    /// that twice as many have failed in a row.
    pub fn retry(&self, group: Option<GroupId>, part: &'static str, error: &(dyn Error + 'static)) {
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
            tracing::warn!(part, group, failures = in_a_row, error = %reason(error), "failed and is tried again");
        }
    }

    /// Tells that a part has come about.
    pub fn succeeded(&self, group: Option<GroupId>, part: &'static str) {
        let failures = {
            let mut retries = self.0.retries.lock();
            retries
                .get_mut(part)
                .and_then(|retries| retries.in_a_row.remove(&group))
        };
        if let Some(failures) = failures {
            let group = group.map(|group| group.to_string());
            tracing::info!(part, group, failures, "succeeded again");
        }
    }

    /// Returns how often each part was retried since the node started.
    pub fn retries(&self) -> Vec<(&'static str, u64)> {
        let retries = self.0.retries.lock();
        retries.iter().map(|(part, retries)| (*part, retries.total)).collect()
    }
}

/// An error with what it came from, in one line.
fn reason(error: &(dyn Error + 'static)) -> String {
    let causes = std::iter::successors(Some(error), |error| (*error).source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}

impl From<Failure> for io::Error {
    fn from(failure: Failure) -> Self {
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
    async fn first_failure_is_final_and_everybody_hears_of_it() {
        // Invariant 1.
        let health = Health::default();
        health.check().unwrap();
        let before = health.clone();
        let heard = tokio::spawn(async move { before.failed().await.doing });
        health.fail(Failure::of_node("first", io::Error::other("x")));
        let second = health.fail(Failure::of_group(GROUP, "second", "y"));
        assert_eq!(second.to_string(), "the node failed while first");
        assert_eq!(heard.await.unwrap(), "first");
        assert_eq!(health.failed().await.doing, "first");
        let refused = io::Error::from(health.check().unwrap_err());
        assert_eq!(refused.kind(), io::ErrorKind::Other);
    }

    #[test]
    fn panic_stops_the_node_with_its_message() {
        // Invariant 2.
        let health = Health::default();
        let done: Result<(), Failed> = health.guard(Some(GROUP), "counting", || panic!("at {}", 7));
        assert_eq!(done.unwrap_err().source.to_string(), "panic: at 7");
        let failure = health.failure().unwrap();
        assert_eq!(failure.to_string(), "group g3 failed while counting");
        assert_eq!(failure.source.to_string(), "panic: at 7");
        let health = Health::default();
        let done: Result<(), Failed> = health.guard(None, "counting", || panic!("no number"));
        assert_eq!(done.unwrap_err().source.to_string(), "panic: no number");
        assert_eq!(health.guard(None, "counting", || Ok(7)).unwrap(), 7);
    }

    #[test]
    fn retries_are_counted_by_part() {
        let health = Health::default();
        for _ in 0..3 {
            health.retry(None, "sending", &io::Error::other("away"));
        }
        health.retry(Some(GROUP), "sending", &io::Error::other("away"));
        health.succeeded(None, "sending");
        health.succeeded(None, "asking");
        assert_eq!(health.retries(), [("sending", 4)]);
        assert!(health.failure().is_none());
    }
}
