//! End of a call at this node: its answer is sent, and counted.

use std::{sync::Arc, time::Duration};

use stead_api::proto::v1::Answer;
use stead_replication::RemoteWait;
use stead_state::lease::loss::Confirmation;
use stead_types::Error;
use tokio::time::Instant;

use super::{call::Call, job::Job, rejections};
use crate::{
    metrics::{Metrics, ServedFrom},
    response,
};

/// CallCompletion of calls: sends each answer, and counts it by operation and by where it was served.
#[derive(Clone)]
pub(super) struct CallCompletion {
    metrics: Arc<Metrics>,
}

impl CallCompletion {
    /// Returns a completion that counts in these metrics.
    pub(super) fn new(metrics: Arc<Metrics>) -> Self {
        Self { metrics }
    }

    /// Counts a call that is answered, or was passed on.
    pub(super) fn count(&self, call: &Call, served_from: ServedFrom) {
        self.metrics.request(call.label(), served_from);
    }

    /// Counts a wait for another region: how long it took, and how it ended.
    pub(super) fn record_remote_wait(&self, took: Duration, wait: RemoteWait) {
        self.metrics.remote.record_wait(took, wait);
    }

    /// Answers a call, with a mark if no lease has counted for it.
    pub(super) fn answer(&self, call: Call, served_from: ServedFrom, mut answer: Answer) {
        self.count(&call, served_from);
        let took = call.responder.began.elapsed();
        self.metrics.latencies.operation(call.label(), served_from, took);
        if matches!(served_from, ServedFrom::Home | ServedFrom::Follower) {
            self.metrics
                .loads
                .record(Instant::now(), &call.operation, &answer, took);
        }
        if call.confirmation == Confirmation::Unconfirmed {
            response::mark_unconfirmed(&mut answer);
            self.metrics.unconfirmed();
        }
        call.responder.send(answer);
    }

    /// Answers a call with an error.
    pub(super) fn reject(&self, call: Call, error: &Error) {
        self.answer(call, ServedFrom::Failed, response::error_answer(error));
    }

    /// Counts a call that is refused for a limit of this node.
    pub(super) fn count_refused(&self, limit: &'static str) {
        self.metrics.refused(limit);
    }

    /// Answers a call with the error of a limit of this node, which is not its tenant's.
    pub(super) fn shed(&self, call: Call, limit: &'static str, error: &Error) {
        self.metrics.refused(limit);
        self.reject(call, error);
    }

    /// Rejects jobs that were cancelled or exceeded their deadline, before they cost anything; returns the others.
    pub(super) fn reject_inactive<R>(&self, jobs: Vec<Job<R>>) -> Vec<Job<R>> {
        let now = Instant::now();
        let is_active = |job: &Job<R>| job.call.deadline > now && !job.call.responder.is_abandoned();
        let (active, inactive): (Vec<_>, Vec<_>) = jobs.into_iter().partition(is_active);
        for job in inactive {
            let error = if job.call.deadline > now {
                rejections::cancelled()
            } else {
                rejections::deadline_exceeded()
            };
            self.reject(job.call, &error);
        }
        active
    }
}
