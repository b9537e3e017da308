//! Tests of the steps of a range deletion.

use stead_state::shard::apply_result::EvaluationPoint;
use stead_types::{Revision, TenantTime};

use super::*;

#[test]
fn deletion_step_without_owner_did_nothing() {
    let step = |keys| DeleteRangeResult {
        at: EvaluationPoint {
            revision: Revision::ZERO,
            index: 0,
            time: TenantTime(0),
        },
        keys,
        next: None,
        repeated: false,
    };
    let result = |keys| ApplyResult::DeleteRange(step(keys));
    let failed = |failure| deletion_step(ApplyResult::GuardFailed(failure), Some(Ok(())));
    let not_owner = || Some(Err(NotServing::NotOwner { to: None }));
    assert_eq!(deletion_step(result(3), Some(Ok(()))), DeletionStep::Applied(step(3)));
    assert_eq!(failed(GuardFailure::NotOwner { to: None }), DeletionStep::NotOwner);
    assert_eq!(failed(GuardFailure::NoRecord), DeletionStep::NotOwner);
    assert_eq!(failed(GuardFailure::SequencesExhausted), DeletionStep::Unknown);
    assert_eq!(deletion_step(result(0), not_owner()), DeletionStep::NotOwner);
    assert_eq!(
        deletion_step(result(3), not_owner()),
        DeletionStep::Unknown,
        "it removed keys"
    );
    assert_eq!(
        deletion_step(result(0), Some(Err(NotServing::NoLease))),
        DeletionStep::Unknown
    );
}
