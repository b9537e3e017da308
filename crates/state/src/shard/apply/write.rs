//! Applies writes of one key.

use stead_types::Revision;

use super::{
    super::{
        Shard,
        apply_result::{ApplyResult, WriteFailure, WriteOutput, WriteResult},
        command::{Effect, Operation, Write},
        counter,
        idempotency_window::IdempotencyRecord,
        read::{change_at, version_at},
    },
    EntryContext,
    owned::{
        ConditionResult, EffectResult, IdempotencyRequest, OwnedTenant, PlannedChange, PriorOutcome, noted,
        sequences_exhausted,
    },
};
use crate::rows::{
    Unreadable,
    change::{Cause, Value},
};

impl Shard {
    pub(super) fn write(&mut self, context: &mut EntryContext<'_>, write: Write) -> Result<ApplyResult, Unreadable> {
        self.execute(context, write.tenant, |owned| execute(owned, write))
    }
}

fn execute(owned: &mut OwnedTenant<'_, '_>, write: Write) -> Result<ApplyResult, Unreadable> {
    let Operation {
        key,
        condition,
        previous: wanted,
        effect,
    } = write.operation;
    match owned.prior_outcome(write.idempotency.as_ref(), write.request) {
        Some(PriorOutcome::Repeated(outcome)) => return repeated(owned, outcome, &effect, wanted),
        Some(PriorOutcome::Rejected(result)) => return Ok(result),
        None => {}
    }
    if !owned.remove_expired_keys(std::iter::once(&key))? {
        return Ok(sequences_exhausted());
    }
    let before = owned.current(&key)?;
    if let Some(condition) = &condition {
        match owned.evaluate_condition(before, condition)? {
            ConditionResult::Holds => {}
            ConditionResult::Forked(lost) => {
                let at = owned.evaluation_point();
                return Ok(ApplyResult::Forked { lost, at });
            }
            ConditionResult::Fails => {
                let live = before.filter(|before| before.live.is_some());
                let current = live.map_or(Revision::ZERO, |live| live.revision);
                let at = owned.evaluation_point();
                return Ok(ApplyResult::ConditionFailed { current, at });
            }
        }
    }
    let operation = noted(&effect).filter(|_| write.notes_operation);
    let (value, output) = match owned.evaluate_effect(before, effect)? {
        EffectResult::Value(value, output) => (value, output),
        EffectResult::Unchanged => return Ok(ApplyResult::Unchanged(owned.evaluation_point())),
        EffectResult::Failed(failure) => return Ok(failed(owned, failure)),
    };
    let previous = match before {
        Some(before) if wanted => version_at(owned.context.rows, owned.copy, (before.revision, before.effect))?,
        Some(_) | None => None,
    };
    let planned = PlannedChange {
        key,
        before,
        operation,
        over_others: false,
        value,
    };
    let remember = IdempotencyRequest {
        idempotency: write.idempotency,
        request: write.request,
        limits: write.limits,
        origin: None,
    };
    let Some(at) = owned.commit(remember, Cause::Write, std::iter::once(planned)) else {
        return Ok(sequences_exhausted());
    };
    Ok(ApplyResult::Write(WriteResult {
        revision: at.revision,
        time: at.time,
        index: at.index,
        previous,
        repeated: false,
        output,
    }))
}

/// Returns the result of an effect that cannot be applied.
fn failed(owned: &OwnedTenant<'_, '_>, failure: WriteFailure) -> ApplyResult {
    let at = owned.evaluation_point();
    match failure {
        WriteFailure::BoundReached(number) => ApplyResult::BoundReached { number, at },
        WriteFailure::Value(error) => ApplyResult::ValueError { error, at },
    }
}

/// Returns the output of an effect that has made this value.
pub(super) fn output_of(effect: &Effect, value: &Value) -> Option<WriteOutput> {
    match effect {
        Effect::Put { .. } | Effect::Delete => None,
        Effect::Increment(_) => counter::read(&value.bytes).map(WriteOutput::Number),
        Effect::Append { .. } => Some(WriteOutput::Length(value.bytes.len() as u64)),
    }
}

/// Returns the result of a repeat: the first outcome, with output and previous version while history has them.
fn repeated(
    owned: &OwnedTenant<'_, '_>,
    outcome: IdempotencyRecord,
    effect: &Effect,
    wanted: bool,
) -> Result<ApplyResult, Unreadable> {
    let (rows, copy) = (&*owned.context.rows, owned.copy);
    // How far a replica has removed versions below the retention floor is local, so only the floor decides.
    let is_kept = outcome.revision > owned.tenant.record.live.retention_floor;
    let change = change_at(rows, copy, (outcome.revision, 0))?.filter(|_| is_kept);
    let previous = match change.as_ref().and_then(|change| change.previous) {
        Some(at) if wanted => version_at(rows, copy, at)?,
        Some(_) | None => None,
    };
    let value = change.as_ref().and_then(|change| change.value.as_ref());
    Ok(ApplyResult::Write(WriteResult {
        revision: outcome.revision,
        time: owned.evaluation_point().time,
        index: owned.evaluation_point().index,
        previous,
        repeated: true,
        output: value.and_then(|value| output_of(effect, value)),
    }))
}
