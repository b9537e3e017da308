//! The signal that this node can go on no longer, with the reason.

use std::error::Error;
use std::sync::Arc;

use stead_types::GroupId;
use tokio::sync::watch;

/// Why the node must stop.
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
}

/// Collects failures; the first one counts. Clones share it.
#[derive(Clone, Debug)]
pub(crate) struct Failures(watch::Sender<Option<Failure>>);

impl Failures {
    pub(crate) fn new() -> Self {
        Self(watch::Sender::new(None))
    }

    pub(crate) fn report(&self, failure: Failure) {
        self.0.send_if_modified(|first| {
            let is_first = first.is_none();
            if is_first {
                tracing::error!(error = &failure as &dyn Error, reason = %failure.source, "the node must stop");
                *first = Some(failure);
            }
            is_first
        });
    }

    /// Returns the first failure, once there is one.
    pub(crate) async fn first(&self) -> Failure {
        let mut failures = self.0.subscribe();
        let first = failures.wait_for(Option::is_some).await;
        let failure = first.expect("self holds the sender").clone();
        failure.expect("it was waited for")
    }
}

/// Something ended that never should; its own cause was logged where it is known.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("{0}")]
pub(crate) struct Ended(pub(crate) &'static str);
