//! Step of a range deletion: what its result and the serving check behind it say, and until when steps may begin.

use stead_state::{
    serving::NotServing,
    shard::apply_result::{ApplyResult, DeleteRangeResult, GuardFailure},
};
use tokio::time::Instant;

use crate::router::serving::changed_at;

/// Share of its deadline that a delete of a large range may work; the rest is for its response.
const RANGE_TIME_SHARE: f64 = 0.75;

/// Outcome of one step of a range deletion.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum DeletionStep {
    /// It was applied.
    Applied(DeleteRangeResult),
    /// It did nothing, because this group does not own the tenant any more.
    NotOwner,
    /// It is not known to be applied.
    Unknown,
}

/// Returns the outcome of a step by the serving check that followed it.
pub(super) fn deletion_step(result: ApplyResult, serving: Option<Result<(), NotServing>>) -> DeletionStep {
    match (result, serving) {
        (ApplyResult::DeleteRange(step), Some(Ok(()))) => DeletionStep::Applied(step),
        (ApplyResult::GuardFailed(GuardFailure::NotOwner { .. } | GuardFailure::NoRecord), _) => DeletionStep::NotOwner,
        (result @ ApplyResult::DeleteRange(_), Some(Err(NotServing::NotOwner { .. })))
            if changed_at(&result).is_none() =>
        {
            DeletionStep::NotOwner
        }
        (_, _) => DeletionStep::Unknown,
    }
}

/// Returns the time by which a deletion must stop, so that its response comes before its deadline.
pub(super) fn deletion_deadline(deadline: Instant, now: Instant) -> Instant {
    now + deadline.saturating_duration_since(now).mul_f64(RANGE_TIME_SHARE)
}

#[cfg(test)]
#[path = "deletion_step_test.rs"]
mod deletion_step_test;
