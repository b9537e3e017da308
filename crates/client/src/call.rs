//! Execution of one call: attempts at one node after the other, until a response, a final error or the deadline.

use std::{sync::Arc, time::Duration};

use stead_api::{
    convert::{condition, id},
    operation::{idempotency_key, idempotency_key_mut},
    proto::v1::{self, directory_service_client::DirectoryServiceClient},
};
use stead_types::{Condition, Error, ErrorKind, Operand, RegionName, Relation, TenantTime};
use tokio::time::Instant;
use tonic::{Request, Response, Status};

use crate::{
    channel::Channel,
    cluster_map::NodePreference,
    failure::{self, AttemptFailure},
    late_stamp::LateStamp,
    node::Node,
    retry::{self, Progress, RetryAction},
    session::{Route, TenantSession},
    state::ClientState,
};

/// Timeout of the first attempt at a node, doubled with each failure. Longer than an election, so that a node that
/// waits for one is not left for another node that must wait as well.
const ATTEMPT_TIMEOUT_FIRST: Duration = Duration::from_secs(3);
/// Longest wait for a node of another region that is asked for a route.
const LOOKUP_ELSEWHERE_MAX: Duration = Duration::from_millis(500);
/// Longest time in which a node must have answered before a change is sent to it that cannot be sent twice.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Least timeout of an attempt: of a short remaining time one node gets half, so that another one can be asked too.
const ATTEMPT_TIMEOUT_MIN: Duration = Duration::from_millis(200);

/// Which replica must serve an operation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum RoutePreference {
    /// Any replica, the nearest first.
    Nearest,
    /// Only the leader of the home.
    Leader,
    /// As [`RoutePreference::Leader`], for an operation of which a part has happened already, under the same key.
    LeaderContinued,
}

/// Nodes that a call has tried, and its progress.
#[derive(Default)]
struct Attempts {
    progress: Progress,
    tried: Vec<Arc<Node>>,
    /// The last error that a node has answered: it says more than that the next one cannot be reached.
    answered: Option<Error>,
}

/// Kind of a call to any node.
#[derive(Clone, Copy, PartialEq, Eq)]
enum CallKind {
    /// One answer, within the attempt's timeout; sent once at most unless it is repeatable.
    Unary { repeatable: bool },
    /// Stream of answers, which is open for as long as the caller reads it.
    Stream,
}

impl Attempts {
    /// Returns the next node; every node is asked once before one is asked twice.
    fn pick(&mut self, state: &ClientState, preference: NodePreference<'_>) -> Result<Arc<Node>, Error> {
        if let Ok(node) = state.pick(preference, &self.tried) {
            return Ok(node);
        }
        self.tried.clear();
        state.pick(preference, &self.tried)
    }

    /// Tells whether every node of a region was asked, but for those that are known to have failed.
    fn has_tried_all(&self, state: &ClientState, region: &RegionName) -> bool {
        let is_tried = |node: &Arc<Node>| self.tried.iter().any(|tried| Arc::ptr_eq(tried, node));
        let map = state.map.load();
        let mut alive = map.nodes_of(region).iter().filter(|node| !node.is_circuit_open());
        alive.all(is_tried)
    }

    fn attempt_deadline(&self, deadline: Instant) -> Instant {
        let now = Instant::now();
        now + attempt_timeout(self.progress.failed, deadline.saturating_duration_since(now))
    }

    /// Returns the error of a call whose time is over: what a node has answered, else why the last one could not be asked.
    fn into_error(self, last: &AttemptFailure) -> Error {
        self.answered.unwrap_or_else(|| last.error().clone())
    }

    /// Records a failed attempt and returns the next action.
    fn record_failure(&mut self, node: Arc<Node>, failure: &AttemptFailure) -> RetryAction {
        let next = retry::decide(self.progress, failure);
        match failure {
            AttemptFailure::NeverSent(_) => node.mark_failed(),
            AttemptFailure::Ambiguous(_) => {
                node.mark_failed();
                self.progress.ambiguous = true;
            }
            AttemptFailure::ErrorResponse(error, _) => {
                self.progress.ambiguous |= !error.has_no_effect();
                self.answered = Some(error.clone());
            }
        }
        if !matches!(next, RetryAction::RetrySameNode(_)) {
            self.tried.push(node);
        }
        self.progress.failed += 1;
        next
    }
}

/// Returns the timeout of an attempt, from the number of failures and the time left.
fn attempt_timeout(failed: u32, left: Duration) -> Duration {
    let attempt = ATTEMPT_TIMEOUT_FIRST.saturating_mul(1 << failed.min(6));
    attempt.min((left / 2).max(ATTEMPT_TIMEOUT_MIN)).min(left)
}

impl ClientState {
    /// Runs an operation of a tenant over the pipelines.
    pub(crate) async fn operate(
        &self,
        session: &TenantSession,
        preference: RoutePreference,
        mut request: v1::operation::Request,
        deadline: Instant,
    ) -> Result<v1::answer::Response, Error> {
        let called = self
            .attempt_operation(session, preference, &mut request, deadline)
            .await;
        if let Err(Error {
            kind: ErrorKind::Forked { last, kept, .. },
            ..
        }) = &called
        {
            // The caller is told once; what it has seen up to `kept` counts on.
            session.replace_cut(*last, *kept);
            self.imported.replace_cut(*last, *kept);
        }
        called
    }

    async fn attempt_operation(
        &self,
        session: &TenantSession,
        preference: RoutePreference,
        request: &mut v1::operation::Request,
        deadline: Instant,
    ) -> Result<v1::answer::Response, Error> {
        let mut attempts = Attempts::default();
        let key = idempotency_key(request);
        attempts.progress.writes = key.is_some();
        // A write under the key of another client may have happened before.
        let is_foreign = key.is_some_and(|key| key.client_id != self.client_id);
        attempts.progress.ambiguous = preference == RoutePreference::LeaderContinued || is_foreign;
        // The tenant's time was not known when it was stamped.
        let is_unstamped = key.is_some_and(|key| key.first_sent_ms == 0) && !attempts.progress.ambiguous;
        let mut late_stamp = is_unstamped.then(|| LateStamp::new(self, session, deadline));
        loop {
            let route = session.route();
            let node_preference = match &*route {
                Some(route) if preference != RoutePreference::Nearest && !self.config.nearest_only => {
                    NodePreference::Home(&route.home_region, session.leader())
                }
                Some(_) | None => NodePreference::Nearest,
            };
            let node = attempts.pick(self, node_preference)?;
            let call = node.pipeline.call(request.clone(), attempts.attempt_deadline(deadline));
            let outcome = match &mut late_stamp {
                Some(late_stamp) => late_stamp.during(call).await,
                None => call.await,
            };
            let failure = match outcome {
                Ok(response) => {
                    node.mark_alive();
                    self.budget.deposit();
                    return check_response(&attempts.progress, response, request);
                }
                Err(failure) => failure,
            };
            self.drop_wrong_route(session, &failure);
            let next = attempts.record_failure(node, &failure);
            if attempts.progress.ambiguous
                && let Some(late) = &mut late_stamp
                && let Some(first_sent) = late.find(&failure).await
            {
                stamp(request, first_sent);
                late_stamp = None;
                if matches!(failure.error().kind, ErrorKind::IdempotencyExpired { .. }) {
                    continue;
                }
            }
            if matches!(failure.error().kind, ErrorKind::NoLease)
                && let Some(route) = &*route
                && attempts.has_tried_all(self, &route.home_region)
            {
                self.ask_elsewhere(session, route, deadline).await;
                attempts.tried.clear();
            }
            if session.leader().is_some() && !matches!(next, RetryAction::RetrySameNode(_)) {
                session.clear_leader();
            }
            let wait = match next {
                RetryAction::Fail(error) => return Err(final_error(&attempts.progress, error, request)),
                RetryAction::Restamp(time) => {
                    stamp(request, time);
                    late_stamp = None;
                    continue;
                }
                RetryAction::Retry(wait) => self.jitter(wait.max(self.budget.withdraw())),
                RetryAction::RetrySameNode(wait) => self.jitter_at_least(wait),
            };
            if !self.wait(wait, deadline).await {
                let progress = attempts.progress;
                return Err(final_error(&progress, attempts.into_error(&failure), request));
            }
        }
    }

    /// Drops the route of a tenant that is at home elsewhere.
    fn drop_wrong_route(&self, session: &TenantSession, failure: &AttemptFailure) {
        if matches!(failure.error().kind, ErrorKind::NotHome { .. }) {
            session.set_route(None);
            self.watch_list_changed.notify_one();
        }
    }

    /// Asks a node of another region for the route of a tenant whose home has no lease: another region may be its home by
    /// now. It is not asked for the operation, whose outcome there may stay unknown where the home's refusal is certain.
    async fn ask_elsewhere(&self, session: &TenantSession, route: &Route, deadline: Instant) {
        let map = self.map.load();
        let is_elsewhere = |node: &Arc<Node>| {
            let mut home = map.nodes_of(&route.home_region).iter();
            !node.is_circuit_open() && !home.any(|of| Arc::ptr_eq(of, node))
        };
        let Some(node) = map.known().into_iter().find(is_elsewhere) else {
            return;
        };
        let request = v1::LookupRequest {
            tenant: route.tenant.to_string(),
        };
        let mut directory = DirectoryServiceClient::new(node.channel.clone());
        let until = deadline.min(Instant::now() + LOOKUP_ELSEWHERE_MAX);
        let Ok(Ok(answer)) = tokio::time::timeout_at(until, directory.lookup(request)).await else {
            return node.mark_failed();
        };
        let known = answer.into_inner().route.and_then(Route::read);
        if let Some(known) = known.filter(|known| known.epoch > route.epoch) {
            session.set_route(Some(Arc::new(known)));
        }
    }

    /// Makes a unary call to the nearest node; one that is not `repeatable` is sent once at most.
    pub(crate) async fn unary<Q: Clone, A>(
        &self,
        request: Q,
        deadline: Instant,
        repeatable: bool,
        call: impl AsyncFn(Channel, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<A, Error> {
        let kind = CallKind::Unary { repeatable };
        let (answer, _) = self.attempt(request, deadline, kind, call).await?;
        Ok(answer)
    }

    /// Opens a stream of answers, and returns it with its node.
    pub(crate) async fn open_stream<Q: Clone, A>(
        &self,
        request: Q,
        deadline: Instant,
        call: impl AsyncFn(Channel, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<(A, Arc<Node>), Error> {
        self.attempt(request, deadline, CallKind::Stream, call).await
    }

    /// Calls one node after the other until one answers, and returns the answer with its node.
    async fn attempt<Q: Clone, A>(
        &self,
        request: Q,
        deadline: Instant,
        kind: CallKind,
        call: impl AsyncFn(Channel, Request<Q>) -> Result<Response<A>, Status>,
    ) -> Result<(A, Arc<Node>), Error> {
        let mut attempts = Attempts::default();
        loop {
            let node = attempts.pick(self, NodePreference::Nearest)?;
            let until = attempts.attempt_deadline(deadline);
            let mut message = Request::new(request.clone());
            if matches!(kind, CallKind::Unary { .. }) {
                message.set_timeout(until.saturating_duration_since(Instant::now()));
            }
            let is_sent_once = kind == (CallKind::Unary { repeatable: false });
            let failure = if is_sent_once && !answers(&node, until).await {
                let message = format!("{} does not answer", node.address);
                AttemptFailure::NeverSent(Error::new(ErrorKind::Unavailable, message))
            } else {
                match tokio::time::timeout_at(until, call(node.channel.clone(), message)).await {
                    Ok(Ok(answer)) => {
                        node.mark_alive();
                        return Ok((answer.into_inner(), node));
                    }
                    Ok(Err(status)) => failure::of(&status, &node.address),
                    Err(_) => {
                        let message = format!("{} did not answer in time", node.address);
                        AttemptFailure::Ambiguous(Error::new(ErrorKind::DeadlineExceeded, message))
                    }
                }
            };
            let next = attempts.record_failure(node, &failure);
            if attempts.progress.ambiguous && is_sent_once {
                let message = format!("the change may or may not have happened: {}", failure.error());
                return Err(Error::new(ErrorKind::OutcomeUnknown { key: None }, message));
            }
            let wait = match next {
                RetryAction::Fail(error) => return Err(error),
                RetryAction::Restamp(_) => return Err(failure.error().clone()),
                RetryAction::Retry(wait) => self.jitter(wait.max(self.budget.withdraw())),
                RetryAction::RetrySameNode(wait) => self.jitter_at_least(wait),
            };
            if !self.wait(wait, deadline).await {
                return Err(attempts.into_error(&failure));
            }
        }
    }
}

/// Tells whether a node answers a call that changes nothing: a change that is sent to a frozen node may or may not happen.
async fn answers(node: &Node, until: Instant) -> bool {
    let request = v1::ListRegionsRequest {
        page_size: 1,
        page_token: String::new(),
    };
    let until = until.min(Instant::now() + ANSWER_MAX);
    let mut directory = DirectoryServiceClient::new(node.channel.clone());
    let asked = tokio::time::timeout_at(until, directory.list_regions(request)).await;
    // A refusal is an answer, too.
    asked.is_ok_and(|answer| match answer {
        Ok(_) => true,
        Err(status) => matches!(failure::of(&status, &node.address), AttemptFailure::ErrorResponse(..)),
    })
}

/// Turns a response without effect into an unknown outcome where an earlier attempt may still be under way: a write
/// without effect is not remembered under its key, so that attempt, in a process that was frozen, may yet have one.
fn check_response(
    progress: &Progress,
    response: v1::answer::Response,
    request: &v1::operation::Request,
) -> Result<v1::answer::Response, Error> {
    let failed = matches!(&response, v1::answer::Response::Txn(txn) if !txn.succeeded);
    let is_final = failed && conditions_fail_permanently(request);
    let may_be_under_way = progress.writes && progress.ambiguous && !is_final;
    let no_effect_reason = no_effect_reason(&response).filter(|_| may_be_under_way);
    let Some(no_effect_reason) = no_effect_reason else {
        return Ok(response);
    };
    let message = format!("{no_effect_reason}, and an attempt may be under way");
    Err(final_error(
        progress,
        Error::new(ErrorKind::Unavailable, message),
        request,
    ))
}

/// Returns why a write had no effect, if it had none.
fn no_effect_reason(response: &v1::answer::Response) -> Option<&'static str> {
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

/// Tells whether a write whose conditions do not hold can never happen later: a revision that a key no longer has does
/// not come back. An earlier attempt that had happened would have been answered with its outcome.
fn conditions_fail_permanently(request: &v1::operation::Request) -> bool {
    let happens_once = |condition: &Condition| {
        matches!(
            condition,
            Condition::Compared(Relation::Equal, Operand::Modified(_) | Operand::Created(_))
        )
    };
    let conditions = conditions(request);
    !conditions.is_empty() && conditions.iter().all(happens_once)
}

/// Returns the conditions of a write. This library has built them, so they can be parsed.
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

/// Returns the error of a call that failed for good: a write that may have happened is never reported as failed.
fn final_error(progress: &Progress, error: Error, request: &v1::operation::Request) -> Error {
    // One that another region has not confirmed has happened.
    let is_settled = matches!(
        error.kind,
        ErrorKind::TenantNotFound | ErrorKind::DurabilityUnmet { .. }
    ) || (matches!(error.kind, ErrorKind::ConditionFailed { .. })
        && conditions_fail_permanently(request));
    if !progress.writes || !progress.ambiguous || is_settled {
        return error;
    }
    let key = idempotency_key(request).and_then(|key| id::idempotency_key(key).ok());
    let with = key.map_or_else(String::new, |key| format!("; retry with idempotency key {key}"));
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
    fn attempt_timeout_leaves_time_for_another_node() {
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
                attempt_timeout(failed, seconds(left)),
                seconds(time),
                "{failed} failed, {left} s left"
            );
        }
    }
}
