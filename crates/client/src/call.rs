//! One call: attempts at one node after the other, until an answer, a refusal or the deadline.

use std::{sync::Arc, time::Duration};

use stead_api::{
    convert::{condition, id},
    operation::{idempotency_key, idempotency_key_mut},
    proto::v1,
};
use stead_types::{Condition, Error, ErrorKind, Operand, Relation, TenantTime};
use tokio::time::Instant;
use tonic::{Request, Response, Status, transport::Channel};

use crate::{
    client::Inner,
    failure::{self, Failure},
    map::Want,
    node::Node,
    retry::{self, Next, Progress},
    session::Session,
};

/// How long one node may take before another one is asked; doubled with each failure. Longer than an election, so that
/// a waiting node is not left for one that must wait as well.
const ATTEMPT_FIRST: Duration = Duration::from_secs(3);
/// Of a short time one node gets half, so that another one can be asked too; but no less than this.
const ATTEMPT_MIN: Duration = Duration::from_millis(200);

/// What an operation is to the tenant's home.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Errand {
    /// Any replica may answer.
    Near,
    /// Only the home's leader can answer.
    Led,
    /// As [`Errand::Led`]; a part of it has happened already, under the same key.
    Begun,
}

/// The nodes that a call has tried, and how it went.
#[derive(Default)]
struct Attempts {
    progress: Progress,
    tried: Vec<Arc<Node>>,
}

impl Attempts {
    /// Returns the next node: all are asked once before one is asked twice.
    fn pick(&mut self, inner: &Inner, want: Want<'_>) -> Result<Arc<Node>, Error> {
        let map = inner.map.load();
        if let Some(node) = map.pick(want, &self.tried) {
            return Ok(node);
        }
        self.tried.clear();
        let nobody = || Error::new(ErrorKind::Unavailable, "the cluster names no node that takes calls");
        map.pick(want, &self.tried).ok_or_else(nobody)
    }

    fn until(&self, deadline: Instant) -> Instant {
        let now = Instant::now();
        now + attempt_time(self.progress.failed, deadline.saturating_duration_since(now))
    }

    /// Takes a failure into account and says what is next.
    fn failed(&mut self, node: Arc<Node>, failure: &Failure) -> Next {
        let next = retry::next(self.progress, failure);
        match failure {
            Failure::NeverSent(_) => node.failed(),
            Failure::Ambiguous(_) => {
                node.failed();
                self.progress.ambiguous = true;
            }
            Failure::Answered(error, _) => self.progress.ambiguous |= !error.has_no_effect(),
        }
        if !matches!(next, Next::Return(_)) {
            self.tried.push(node);
        }
        self.progress.failed += 1;
        next
    }
}

/// Returns how long one node may take, after so many have failed and with so much time left.
fn attempt_time(failed: u32, left: Duration) -> Duration {
    let attempt = ATTEMPT_FIRST.saturating_mul(1 << failed.min(6));
    attempt.min((left / 2).max(ATTEMPT_MIN)).min(left)
}

impl Inner {
    /// Runs an operation of a tenant over the pipes.
    pub(crate) async fn operate(
        &self,
        session: &Session,
        errand: Errand,
        mut request: v1::operation::Request,
        deadline: Instant,
    ) -> Result<v1::answer::Response, Error> {
        let mut attempts = Attempts::default();
        let key = idempotency_key(&request);
        attempts.progress.writes = key.is_some();
        // What a key of another client names may have happened before.
        let is_foreign = key.is_some_and(|key| key.client_id != self.client_id);
        attempts.progress.ambiguous = errand == Errand::Begun || is_foreign;
        loop {
            let route = session.route();
            let want = match &*route {
                Some(route) if errand != Errand::Near && !self.config.nearby => {
                    Want::Home(&route.home_region, session.leader())
                }
                Some(_) | None => Want::Nearest,
            };
            let node = attempts.pick(self, want)?;
            let failure = match node.pipe.call(request.clone(), attempts.until(deadline)).await {
                Ok(response) => {
                    node.answered();
                    self.budget.earn();
                    return settled(&attempts.progress, response, &request);
                }
                Err(failure) => failure,
            };
            if matches!(failure.error().kind, ErrorKind::NotHome { .. }) {
                session.set_route(None);
                self.newly_followed.notify_one();
            }
            let next = attempts.failed(node, &failure);
            if session.leader().is_some() && !matches!(next, Next::Return(_)) {
                session.forget_leader();
            }
            let wait = match next {
                Next::Fail(error) => return Err(outcome(&attempts.progress, error, &request)),
                Next::Restamp(time) => {
                    stamp(&mut request, time);
                    continue;
                }
                Next::Retry(wait) => self.jitter(wait.max(self.budget.pay())),
                Next::Return(wait) => self.no_less(wait),
            };
            if !self.wait(wait, deadline).await {
                return Err(outcome(&attempts.progress, failure.error().clone(), &request));
            }
        }
    }

    /// Makes a unary call at the nearest node; one that is not `repeatable` is sent once at most.
    pub(crate) async fn unary<Q: Clone, A>(
        &self,
        request: Q,
        deadline: Instant,
        repeatable: bool,
        call: impl AsyncFn(Channel, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Error> {
        let mut attempts = Attempts::default();
        loop {
            let node = attempts.pick(self, Want::Nearest)?;
            let until = attempts.until(deadline);
            let mut message = Request::new(request.clone());
            message.set_timeout(until.saturating_duration_since(Instant::now()));
            let outcome = tokio::time::timeout_at(until, call(node.channel.clone(), message)).await;
            let failure = match outcome {
                Ok(Ok(answer)) => {
                    node.answered();
                    return Ok(answer.into_inner());
                }
                Ok(Err(status)) => failure::of(&status, &node.address),
                Err(_) => {
                    let message = format!("{} did not answer in time", node.address);
                    Failure::Ambiguous(Error::new(ErrorKind::DeadlineExceeded, message))
                }
            };
            let next = attempts.failed(node, &failure);
            if attempts.progress.ambiguous && !repeatable {
                let message = format!("the change may or may not have happened: {}", failure.error());
                return Err(Error::new(ErrorKind::OutcomeUnknown { key: None }, message));
            }
            let wait = match next {
                Next::Fail(error) => return Err(error),
                Next::Restamp(_) => return Err(failure.error().clone()),
                Next::Retry(wait) => self.jitter(wait.max(self.budget.pay())),
                Next::Return(wait) => self.no_less(wait),
            };
            if !self.wait(wait, deadline).await {
                return Err(failure.error().clone());
            }
        }
    }
}

/// Says what is known of a call that was answered. A write without effect is not remembered under its key, so an earlier
/// attempt that is still on its way, in a process that was frozen, may yet have one.
fn settled(
    progress: &Progress,
    response: v1::answer::Response,
    request: &v1::operation::Request,
) -> Result<v1::answer::Response, Error> {
    let failed = matches!(&response, v1::answer::Response::Txn(txn) if !txn.succeeded);
    let is_final = failed && fails_for_good(request);
    let may_be_under_way = progress.writes && progress.ambiguous && !is_final;
    let without_effect = without_effect(&response).filter(|_| may_be_under_way);
    let Some(without_effect) = without_effect else {
        return Ok(response);
    };
    let message = format!("{without_effect}, and an attempt may be under way");
    Err(outcome(progress, Error::new(ErrorKind::Unavailable, message), request))
}

/// Says why a write had no effect, if it had none.
fn without_effect(response: &v1::answer::Response) -> Option<&'static str> {
    use v1::{answer::Response, txn_result::Result as Done};
    let is_read = |result: &v1::TxnResult| match &result.result {
        Some(Done::Get(_)) => true,
        Some(Done::Delete(delete)) => !delete.deleted,
        Some(Done::Put(_) | Done::Increment(_) | Done::Append(_)) | None => false,
    };
    match response {
        Response::Delete(delete) => (!delete.deleted).then_some("the key was not there"),
        Response::Increment(increment) => (!increment.admitted).then_some("the bound is reached"),
        Response::Txn(txn) if txn.not_admitted.is_some() => Some("a bound is reached"),
        Response::Txn(txn) => {
            (!txn.repeated_outcome && txn.results.iter().all(is_read)).then_some("it changed nothing")
        }
        Response::DeleteRange(range) => {
            (!range.repeated_outcome && range.deleted == 0).then_some("there was nothing to delete")
        }
        Response::Error(_)
        | Response::Get(_)
        | Response::BatchGet(_)
        | Response::Put(_)
        | Response::Append(_)
        | Response::Scan(_) => None,
    }
}

/// Tells whether a write whose conditions do not hold can never happen later: a revision that a key no longer has does not
/// come back. An earlier attempt that had happened would have answered with its outcome.
fn fails_for_good(request: &v1::operation::Request) -> bool {
    let happens_once = |condition: &Condition| {
        matches!(
            condition,
            Condition::Compared(Relation::Equal, Operand::Modified(_) | Operand::Created(_))
        )
    };
    let conditions = conditions(request);
    !conditions.is_empty() && conditions.iter().all(happens_once)
}

/// Returns the conditions of a write. This library has made them, so that they can be read.
fn conditions(request: &v1::operation::Request) -> Vec<Condition> {
    use v1::operation::Request;
    let precondition = match request {
        Request::Put(put) => &put.precondition,
        Request::Delete(delete) => &delete.precondition,
        Request::Increment(increment) => &increment.precondition,
        Request::Append(append) => &append.precondition,
        Request::Txn(txn) => {
            let read = |compare: &v1::Compare| condition::compare("compares", compare.clone()).ok();
            let conditions = txn.compares.iter().map(|compare| Some(read(compare)?.1));
            return conditions.collect::<Option<_>>().unwrap_or_default();
        }
        Request::DeleteRange(_) | Request::Get(_) | Request::BatchGet(_) | Request::Scan(_) => &None,
    };
    let read = condition::precondition(precondition.clone()).ok();
    read.flatten().into_iter().collect()
}

/// Says what is known of a call that failed for good: a write that may have happened is never called failed.
fn outcome(progress: &Progress, error: Error, request: &v1::operation::Request) -> Error {
    let is_settled = matches!(error.kind, ErrorKind::TenantNotFound)
        || (matches!(error.kind, ErrorKind::ConditionFailed { .. }) && fails_for_good(request));
    if !progress.writes || !progress.ambiguous || is_settled {
        return error;
    }
    let key = idempotency_key(request).and_then(|key| id::idempotency_key(key).ok());
    let with = key.map_or_else(String::new, |key| format!("; ask again with key {key}"));
    let message = format!("the write may or may not have happened: {error}{with}");
    Error::new(ErrorKind::OutcomeUnknown { key }, message)
}

fn stamp(request: &mut v1::operation::Request, time: TenantTime) {
    if let Some(key) = idempotency_key_mut(request) {
        key.first_sent_ms = time.0;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_silent_node_leaves_time_for_another_one() {
        let seconds = Duration::from_secs_f64;
        for (failed, left, time) in [
            (0, 30.0, 3.0),
            (1, 27.0, 6.0),
            (2, 21.0, 10.5),
            (0, 3.0, 1.5),
            (1, 1.5, 0.75),
            (4, 0.3, 0.2),
            (5, 0.1, 0.1),
            (60, 0.0, 0.0),
        ] {
            assert_eq!(
                attempt_time(failed, seconds(left)),
                seconds(time),
                "{failed} failed, {left} s left"
            );
        }
    }
}
