//! When a call is tried again: the only retrier there is. Servers answer at once, with what they know.
//!
//! # Invariants
//!
//! * **R1** A write is repeated only under the same idempotency key, unless it certainly had no effect.
//! * **R2** Nothing is tried past the deadline.

use std::time::Duration;

use parking_lot::Mutex;
use stead_types::{Error, ErrorKind, TenantTime};
use tokio::time::Instant;

use crate::failure::Failure;

/// First wait where nobody says how long, doubled up to [`WAIT_MAX`].
const WAIT_FIRST: Duration = Duration::from_millis(10);
/// Longest wait between two attempts.
const WAIT_MAX: Duration = Duration::from_millis(500);
/// The longest that a limit of rate is believed: it knows when there is room again, and whoever comes sooner is refused
/// once more.
const RATE_WAIT_MAX: Duration = Duration::from_secs(30);

/// What kind of call it is, and what has become of it so far.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Progress {
    /// It writes, under an idempotency key.
    pub(crate) writes: bool,
    /// Attempts that have failed.
    pub(crate) failed: u32,
    /// One of them may have had its effect.
    pub(crate) ambiguous: bool,
}

/// What to do about a failed attempt.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Next {
    /// Try again after this, elsewhere if there is another node.
    Retry(Duration),
    /// Come back to the same node after this: it named the time, so this is none of the retries that are bounded.
    Return(Duration),
    /// Write again under a stamp of this time: the store refused the old one without executing it.
    Restamp(TenantTime),
    /// Tell the caller.
    Fail(Error),
}

/// Decides; pure.
pub(crate) fn next(progress: Progress, failure: &Failure) -> Next {
    let wait = WAIT_FIRST.saturating_mul(1 << progress.failed.min(10)).min(WAIT_MAX);
    let at_first = |first| if progress.failed == 0 { first } else { wait };
    let (error, retry_after) = match failure {
        // Another node is asked at once; waiting begins when some were asked.
        Failure::NeverSent(_) | Failure::Ambiguous(_) if progress.failed < 2 => return Next::Retry(Duration::ZERO),
        Failure::NeverSent(_) | Failure::Ambiguous(_) => return Next::Retry(wait),
        Failure::Answered(error, retry_after) => (error, *retry_after),
    };
    if let ErrorKind::IdempotencyExpired { now, .. } = error.kind
        && progress.writes
        && !progress.ambiguous
    {
        return Next::Restamp(now);
    }
    // A deadline that a node has seen pass is the attempt's: the call's own is watched by the caller (R2).
    if matches!(error.kind, ErrorKind::NotHome { .. } | ErrorKind::DeadlineExceeded) {
        return Next::Retry(at_first(Duration::ZERO));
    }
    if matches!(error.kind, ErrorKind::OutcomeUnknown { .. }) {
        return Next::Retry(at_first(WAIT_FIRST));
    }
    if let ErrorKind::RateLimited { wait: named, .. } = error.kind {
        // The time is one's own turn, but others may have taken it: who was refused again steps back further.
        return Next::Return(named.max(at_first(Duration::ZERO)).min(RATE_WAIT_MAX));
    }
    if error.is_transient() {
        return Next::Retry(retry_after.unwrap_or(wait).min(WAIT_MAX));
    }
    Next::Fail(error.clone())
}

/// Returns how long to wait before reading again, after others were faster so many times.
pub(crate) fn after_conflict(lost: u32) -> Duration {
    Duration::from_millis(1).saturating_mul(1 << lost.min(6))
}

/// Most retries that a client saves up.
const BUDGET_MAX: f64 = 1_000.0;
/// What each call adds: a tenth of the calls may be retries for ever.
const BUDGET_PER_CALL: f64 = 0.1;
/// What each second adds, so that a client of few calls can retry at all.
const BUDGET_PER_SECOND: f64 = 20.0;

/// Keeps a client's retries to a share of its calls, so that a cluster in trouble is not asked for more than before.
///
/// A call without budget waits the longest wait before it retries; it is not given up before its deadline.
#[derive(Debug)]
pub(crate) struct Budget(Mutex<Savings>);

#[derive(Debug)]
struct Savings {
    retries: f64,
    at: Instant,
}

impl Budget {
    pub(crate) fn new() -> Self {
        Self(Mutex::new(Savings {
            retries: BUDGET_MAX,
            at: Instant::now(),
        }))
    }

    /// Pays for a retry and returns how long it must wait at least.
    pub(crate) fn pay(&self) -> Duration {
        let mut savings = self.0.lock();
        let now = Instant::now();
        let earned = (now - savings.at).as_secs_f64() * BUDGET_PER_SECOND;
        savings.retries = (savings.retries + earned).min(BUDGET_MAX);
        savings.at = now;
        if savings.retries < 1.0 {
            return WAIT_MAX;
        }
        savings.retries -= 1.0;
        Duration::ZERO
    }

    /// Counts an answered call that had to be retried or not.
    pub(crate) fn earn(&self) {
        let mut savings = self.0.lock();
        savings.retries = (savings.retries + BUDGET_PER_CALL).min(BUDGET_MAX);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answered(kind: ErrorKind) -> Failure {
        Failure::Answered(Error::new(kind, ""), None)
    }

    const WRITE: Progress = Progress {
        writes: true,
        failed: 0,
        ambiguous: false,
    };

    #[test]
    fn what_was_not_answered_is_tried_elsewhere_at_once_and_later_with_waits() {
        let lost = || Error::new(ErrorKind::Unavailable, "");
        for failure in [Failure::NeverSent(lost()), Failure::Ambiguous(lost())] {
            assert_eq!(next(WRITE, &failure), Next::Retry(Duration::ZERO));
            let waits = [2, 3, 30].map(|failed| next(Progress { failed, ..WRITE }, &failure));
            assert_eq!(
                waits,
                [40, 80, 500].map(|millis| Next::Retry(Duration::from_millis(millis)))
            );
        }
    }

    #[test]
    fn a_node_whose_time_was_over_is_left_for_another_one() {
        let late = answered(ErrorKind::DeadlineExceeded);
        assert_eq!(next(WRITE, &late), Next::Retry(Duration::ZERO));
        let again = Progress { failed: 1, ..WRITE };
        assert_eq!(next(again, &late), Next::Retry(Duration::from_millis(20)));
    }

    #[test]
    fn a_refusal_that_repeating_cannot_change_is_final() {
        let final_ones = [
            ErrorKind::ConditionFailed {
                current: stead_types::Revision::ZERO,
            },
            ErrorKind::TenantNotFound,
            ErrorKind::Invalid { field: "key".into() },
            ErrorKind::QuotaExceeded { limit: "bytes".into() },
        ];
        for kind in final_ones {
            assert!(matches!(next(WRITE, &answered(kind)), Next::Fail(_)));
        }
    }

    #[test]
    fn a_server_that_names_a_wait_is_believed_within_bounds() {
        let asks = |millis| Failure::Answered(Error::new(ErrorKind::NoLeader, ""), Some(Duration::from_millis(millis)));
        assert_eq!(next(WRITE, &asks(100)), Next::Retry(Duration::from_millis(100)));
        assert_eq!(next(WRITE, &asks(60_000)), Next::Retry(WAIT_MAX));
    }

    #[test]
    fn a_limit_of_rate_is_believed_for_longer_and_asked_again() {
        let asks = |wait| {
            let limit = "bytes_per_second".to_owned();
            answered(ErrorKind::RateLimited { limit, wait })
        };
        let seconds = Duration::from_secs;
        assert_eq!(next(WRITE, &asks(seconds(3))), Next::Return(seconds(3)));
        assert_eq!(next(WRITE, &asks(seconds(300))), Next::Return(RATE_WAIT_MAX));
        let again = Progress { failed: 3, ..WRITE };
        assert_eq!(
            next(again, &asks(Duration::ZERO)),
            Next::Return(Duration::from_millis(80))
        );
    }

    #[test]
    fn r1_a_write_that_may_have_happened_is_never_stamped_anew() {
        let expired = answered(ErrorKind::IdempotencyExpired {
            edge: TenantTime(5),
            now: TenantTime(9),
        });
        assert_eq!(next(WRITE, &expired), Next::Restamp(TenantTime(9)));
        assert!(matches!(
            next(
                Progress {
                    ambiguous: true,
                    ..WRITE
                },
                &expired
            ),
            Next::Fail(_)
        ));
    }

    #[tokio::test(start_paused = true)]
    async fn retries_are_a_share_of_the_calls() {
        let budget = Budget::new();
        let free = std::iter::repeat_with(|| budget.pay())
            .take_while(|wait| wait.is_zero())
            .count();
        assert_eq!(free, 1_000);
        assert_eq!(budget.pay(), WAIT_MAX);
        for _ in 0..10 {
            budget.earn();
        }
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(budget.pay(), Duration::ZERO);
    }
}
