//! Retry policy of calls, the only retries there are: servers respond at once, with what they know.
//!
//! # Invariants
//!
//! * **R1** A write is repeated only under the same idempotency key, unless it certainly had no effect.
//! * **R2** Nothing is tried past the deadline.

use std::time::Duration;

use parking_lot::Mutex;
use stead_types::{Error, ErrorKind, TenantTime};
use tokio::time::Instant;

use crate::failure::AttemptFailure;

/// First wait without a named retry delay, doubled up to [`WAIT_MAX`].
const WAIT_FIRST: Duration = Duration::from_millis(10);
/// Longest wait between two attempts.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// Longest retry delay that is accepted from a rate limit: the limit knows when there is room again, and a caller that
/// comes sooner is refused once more.
const RATE_WAIT_MAX: Duration = Duration::from_secs(30);

/// Time by which a stamp is earlier than it need be.
const FIRST_SENT_SLACK: Duration = Duration::from_secs(1);

/// Kind of a call, and its attempts so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// Whether it writes, under an idempotency key.
    pub(crate) writes: bool,
    /// Number of failed attempts.
    pub(crate) failed: u32,
    /// Whether one of them may have had an effect.
    pub(crate) ambiguous: bool,
}

/// Action after a failed attempt.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum RetryAction {
    /// Try again after this wait, at another node if there is one.
    Retry(Duration),
    /// Try again at the same node after this wait: the node named it, so it does not count against the retry budget.
    RetrySameNode(Duration),
    /// Write again with a stamp of this time: the store refused the old one without executing the write.
    Restamp(TenantTime),
    /// Return the error to the caller.
    Fail(Error),
}

/// Returns the action after a failure; pure.
pub(crate) fn decide(progress: Progress, failure: &AttemptFailure) -> RetryAction {
    let wait = WAIT_FIRST.saturating_mul(1 << progress.failed.min(10)).min(WAIT_MAX);
    let at_first = |first| if progress.failed == 0 { first } else { wait };
    let (error, retry_after) = match failure {
        // Another node is asked at once; the backoff begins when two have failed.
        AttemptFailure::NeverSent(_) | AttemptFailure::Ambiguous(_) if progress.failed < 2 => {
            return RetryAction::Retry(Duration::ZERO);
        }
        AttemptFailure::NeverSent(_) | AttemptFailure::Ambiguous(_) => return RetryAction::Retry(wait),
        AttemptFailure::ErrorResponse(error, retry_after) => (error, *retry_after),
    };
    if let ErrorKind::IdempotencyExpired { now, .. } = error.kind
        && progress.writes
        && !progress.ambiguous
    {
        return RetryAction::Restamp(now);
    }
    // A deadline that a node has seen pass is the attempt's: the call's own is checked by the caller (R2).
    if matches!(error.kind, ErrorKind::NotHome { .. } | ErrorKind::DeadlineExceeded) {
        return RetryAction::Retry(at_first(Duration::ZERO));
    }
    if matches!(error.kind, ErrorKind::OutcomeUnknown { .. }) {
        return RetryAction::Retry(at_first(WAIT_FIRST));
    }
    // It is committed: the same write under its key waits on for another region.
    if matches!(error.kind, ErrorKind::DurabilityUnmet { .. }) && progress.writes {
        return RetryAction::RetrySameNode(at_first(Duration::ZERO));
    }
    if let ErrorKind::RateLimited { wait: named, .. } = error.kind {
        // The named time is for this caller, but others may have used it up: a caller that is refused again backs off
        // further.
        return RetryAction::RetrySameNode(named.max(at_first(Duration::ZERO)).min(RATE_WAIT_MAX));
    }
    if error.is_transient() {
        return RetryAction::Retry(retry_after.unwrap_or(wait).min(WAIT_MAX));
    }
    RetryAction::Fail(error.clone())
}

/// Returns a time that a tenant had not passed when a write was sent first, from its time now and the time since then.
/// A tenant's time goes on at 0.8 to 1.25 of the rate of any clock.
pub(crate) fn first_sent(now: TenantTime, since: Duration) -> TenantTime {
    let passed = since.saturating_mul(5) / 4 + FIRST_SENT_SLACK;
    TenantTime(
        now.0
            .saturating_sub(u64::try_from(passed.as_millis()).unwrap_or(u64::MAX)),
    )
}

/// Returns the backoff before a read-modify-write is tried again, after this many conflicts.
pub(crate) fn after_conflict(lost: u32) -> Duration {
    Duration::from_millis(1).saturating_mul(1 << lost.min(6))
}

/// Most retries that a client saves up.
const BUDGET_MAX: f64 = 1_000.0;
/// Tokens that each call adds: a tenth of the calls may be retries for ever.
const BUDGET_PER_CALL: f64 = 0.1;
/// Tokens that each second adds, so that a client of few calls can retry at all.
const BUDGET_PER_SECOND: f64 = 20.0;

/// Retry budget: limits a client's retries to a share of its calls, so that a cluster in trouble gets no more load than
/// before.
///
/// A call without budget waits [`WAIT_MAX`] before it retries; it is not given up before its deadline.
#[derive(Debug)]
pub(crate) struct RetryBudget(Mutex<TokenBucket>);

#[derive(Debug)]
struct TokenBucket {
    tokens: f64,
    refilled_at: Instant,
}

impl RetryBudget {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(TokenBucket {
            tokens: BUDGET_MAX,
            refilled_at: Instant::now(),
        }))
    }

    /// Takes a token for a retry and returns the least wait before it.
    pub(crate) fn withdraw(&self) -> Duration {
        let mut bucket = self.0.lock();
        let now = Instant::now();
        let earned = (now - bucket.refilled_at).as_secs_f64() * BUDGET_PER_SECOND;
        bucket.tokens = (bucket.tokens + earned).min(BUDGET_MAX);
        bucket.refilled_at = now;
        if bucket.tokens < 1.0 {
            return WAIT_MAX;
        }
        bucket.tokens -= 1.0;
        Duration::ZERO
    }

    /// Adds the share of an answered call.
    pub(crate) fn deposit(&self) {
        let mut bucket = self.0.lock();
        bucket.tokens = (bucket.tokens + BUDGET_PER_CALL).min(BUDGET_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(kind: ErrorKind) -> AttemptFailure {
        AttemptFailure::ErrorResponse(Error::new(kind, ""), None)
    }

    const WRITE: Progress = Progress {
        writes: true,
        failed: 0,
        ambiguous: false,
    };

    #[test]
    fn unanswered_attempt_is_retried_at_once_then_with_backoff() {
        let lost = || Error::new(ErrorKind::Unavailable, "");
        for failure in [AttemptFailure::NeverSent(lost()), AttemptFailure::Ambiguous(lost())] {
            assert_eq!(decide(WRITE, &failure), RetryAction::Retry(Duration::ZERO));
            let waits = [2, 3, 30].map(|failed| decide(Progress { failed, ..WRITE }, &failure));
            assert_eq!(
                waits,
                [40, 80, 500].map(|millis| RetryAction::Retry(Duration::from_millis(millis)))
            );
        }
    }

    #[test]
    fn deadline_at_node_is_retried_elsewhere() {
        let late = answered(ErrorKind::DeadlineExceeded);
        assert_eq!(decide(WRITE, &late), RetryAction::Retry(Duration::ZERO));
        let again = Progress { failed: 1, ..WRITE };
        assert_eq!(decide(again, &late), RetryAction::Retry(Duration::from_millis(20)));
    }

    #[test]
    fn permanent_error_is_not_retried() {
        let final_ones = [
            ErrorKind::ConditionFailed {
                current: stead_types::Revision::ZERO,
            },
            ErrorKind::TenantNotFound,
            ErrorKind::Invalid { field: "key".into() },
            ErrorKind::QuotaExceeded { limit: "bytes".into() },
        ];
        for kind in final_ones {
            assert!(matches!(decide(WRITE, &answered(kind)), RetryAction::Fail(_)));
        }
    }

    #[test]
    fn unconfirmed_write_waits_on_at_same_node() {
        let revision = stead_types::Revision::from_u64(7);
        let unmet = || answered(ErrorKind::DurabilityUnmet { revision });
        assert_eq!(decide(WRITE, &unmet()), RetryAction::RetrySameNode(Duration::ZERO));
        let without_key = Progress::default();
        assert!(matches!(decide(without_key, &unmet()), RetryAction::Fail(_)));
    }

    #[test]
    fn server_retry_delay_is_honoured_up_to_maximum() {
        let asks = |millis| {
            AttemptFailure::ErrorResponse(Error::new(ErrorKind::NoLeader, ""), Some(Duration::from_millis(millis)))
        };
        assert_eq!(
            decide(WRITE, &asks(100)),
            RetryAction::Retry(Duration::from_millis(100))
        );
        assert_eq!(decide(WRITE, &asks(60_000)), RetryAction::Retry(WAIT_MAX));
    }

    #[test]
    fn rate_limit_delay_is_honoured_and_backed_off() {
        let asks = |wait| {
            let limit = "bytes_per_second".to_owned();
            answered(ErrorKind::RateLimited { limit, wait })
        };
        let seconds = Duration::from_secs;
        assert_eq!(decide(WRITE, &asks(seconds(3))), RetryAction::RetrySameNode(seconds(3)));
        assert_eq!(
            decide(WRITE, &asks(seconds(300))),
            RetryAction::RetrySameNode(RATE_WAIT_MAX)
        );
        let again = Progress { failed: 3, ..WRITE };
        assert_eq!(
            decide(again, &asks(Duration::ZERO)),
            RetryAction::RetrySameNode(Duration::from_millis(80))
        );
    }

    #[test]
    fn late_stamp_is_before_first_attempt_at_any_rate_of_tenant_time() {
        for (passed, rate) in [(0, 1.0), (10, 1.25), (10, 0.8), (3_600, 1.25)] {
            let since = Duration::from_secs(passed);
            let first = 5_000_000;
            let now = TenantTime(first + (since.as_millis() as f64 * rate) as u64);
            assert!(first_sent(now, since).0 < first, "{passed} s at {rate}");
        }
        assert_eq!(first_sent(TenantTime(10_000), Duration::ZERO), TenantTime(9_000));
        assert_eq!(first_sent(TenantTime(500), Duration::from_secs(1)), TenantTime(0));
    }

    #[test]
    fn r1_ambiguous_write_is_never_restamped() {
        let expired = answered(ErrorKind::IdempotencyExpired {
            edge: TenantTime(5),
            now: TenantTime(9),
        });
        assert_eq!(decide(WRITE, &expired), RetryAction::Restamp(TenantTime(9)));
        assert!(matches!(
            decide(
                Progress {
                    ambiguous: true,
                    ..WRITE
                },
                &expired
            ),
            RetryAction::Fail(_)
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn retry_budget_limits_retries_to_share_of_calls() {
        let budget = RetryBudget::new();
        let free = std::iter::repeat_with(|| budget.withdraw())
            .take_while(|wait| wait.is_zero())
            .count();
        assert_eq!(free, 1_000);
        assert_eq!(budget.withdraw(), WAIT_MAX);
        for _ in 0..10 {
            budget.deposit();
        }
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(budget.withdraw(), Duration::ZERO);
    }
}
