//! Applies transactions: one branch, whole, as one change.

use stead_types::{
    Revision,
    limits::{CHANGE_LEN_MAX, RESPONSE_LEN_MAX},
    planted::{self, Bug},
};

use super::{
    super::{
        Shard,
        apply_result::{
            ApplyResult, EvaluationPoint, StepResult, TxnResult, ValueError, Version, WriteFailure, WriteOutput,
        },
        command::{Branches, Comparison, Operation, Step, Txn},
        idempotency_window::IdempotencyRecord,
        read::{change_at, previous_version, version_at},
    },
    EntryContext,
    owned::{
        ConditionResult, EffectResult, IdempotencyRequest, OwnedTenant, PlannedChange, PriorOutcome, noted,
        sequences_exhausted,
    },
    write::output_of,
};
use crate::{
    codec::Malformed,
    rows::{
        Unreadable,
        change::{Cause, Change},
        current::CurrentVersion,
    },
};

impl Shard {
    pub(super) fn txn(&mut self, context: &mut EntryContext<'_>, txn: Txn) -> Result<ApplyResult, Unreadable> {
        self.execute(context, txn.tenant, |owned| execute(owned, txn))
    }
}

fn execute(owned: &mut OwnedTenant<'_, '_>, txn: Txn) -> Result<ApplyResult, Unreadable> {
    match owned.prior_outcome(txn.idempotency.as_ref(), txn.request) {
        Some(PriorOutcome::Repeated(outcome)) => return repeated(owned, outcome, &txn.branches),
        Some(PriorOutcome::Rejected(result)) => return Ok(result),
        None => {}
    }
    if !owned.remove_expired_keys(txn.branches.keys())? {
        return Ok(sequences_exhausted());
    }
    let Branches {
        compares,
        then,
        otherwise,
    } = txn.branches;
    let succeeded = match evaluate_conditions(owned, &compares)? {
        Ok(succeeded) => succeeded,
        Err(forked) => return Ok(forked),
    };
    let steps = if succeeded { then } else { otherwise };
    let mut evaluation = match evaluate(owned, steps, txn.notes_operations)? {
        Ok(evaluation) => evaluation,
        Err((step, failure)) => {
            let at = owned.evaluation_point();
            return Ok(ApplyResult::TxnFailed {
                succeeded,
                step,
                failure,
                at,
            });
        }
    };
    if evaluation.len > RESPONSE_LEN_MAX {
        let (len, at) = (evaluation.len, owned.evaluation_point());
        return Ok(ApplyResult::TxnTooLarge { len, at });
    }
    let results = read_results(owned, evaluation.results)?;
    if planted::is(Bug::TxnTorn) {
        evaluation.planned.truncate(1);
    }
    let changed = !evaluation.planned.is_empty();
    let branch = if succeeded { 0 } else { IdempotencyRecord::ELSE_BRANCH };
    let remember = IdempotencyRequest {
        idempotency: txn.idempotency,
        request: txn.request | branch,
        limits: txn.limits,
        origin: None,
    };
    let at = if changed {
        match owned.commit(remember, Cause::Write, evaluation.planned.into_iter()) {
            Some(at) => at,
            None => return Ok(sequences_exhausted()),
        }
    } else {
        owned.evaluation_point()
    };
    Ok(ApplyResult::Txn(TxnResult {
        at,
        changed,
        succeeded,
        results: Some(results),
        repeated: false,
    }))
}

/// Tells whether all conditions hold; an error is the result for a condition that names a revision that was cut.
fn evaluate_conditions(
    owned: &OwnedTenant<'_, '_>,
    compares: &[Comparison],
) -> Result<Result<bool, ApplyResult>, Unreadable> {
    let mut succeeded = true;
    for Comparison { key, condition } in compares {
        match owned.evaluate_condition(owned.current(key)?, condition)? {
            ConditionResult::Holds => {}
            ConditionResult::Fails => succeeded = planted::is(Bug::ConditionsIgnored),
            ConditionResult::Forked(lost) => {
                let at = owned.evaluation_point();
                return Ok(Err(ApplyResult::Forked { lost, at }));
            }
        }
    }
    Ok(Ok(succeeded))
}

/// Evaluation of a branch, before anything is changed.
#[derive(Default)]
struct Evaluation {
    planned: Vec<PlannedChange>,
    results: Vec<PendingResult>,
    /// Bytes of the results.
    len: u64,
    /// Bytes of the keys that are written and of their new values.
    written: usize,
}

/// Result whose version is still to be read.
struct PendingResult {
    result: StepResult,
    /// Version to read into it.
    version: Option<CurrentVersion>,
}

fn evaluate(
    owned: &OwnedTenant<'_, '_>,
    steps: Vec<Step>,
    notes_operations: bool,
) -> Result<Result<Evaluation, (usize, WriteFailure)>, Unreadable> {
    let mut evaluation = Evaluation::default();
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Get(key) => {
                let version = owned.current(&key)?;
                evaluation.add(StepResult::Get(None), key.len(), version);
            }
            Step::Write(Operation {
                key, previous, effect, ..
            }) => {
                let before = owned.current(&key)?;
                let operation = noted(&effect).filter(|_| notes_operations);
                let (value, output) = match owned.evaluate_effect(before, effect)? {
                    EffectResult::Failed(failure) => return Ok(Err((number, failure))),
                    EffectResult::Unchanged => {
                        evaluation.add(write_result(false, None), 0, None);
                        continue;
                    }
                    EffectResult::Value(value, output) => (value, output),
                };
                if let Some(failure) = evaluation.writes(key.len(), value.as_ref().map_or(0, |(value, _)| value.len()))
                {
                    return Ok(Err((number, failure)));
                }
                evaluation.add(write_result(true, output), key.len(), before.filter(|_| previous));
                evaluation.planned.push(PlannedChange {
                    key,
                    before,
                    operation,
                    over_others: false,
                    value,
                });
            }
        }
    }
    Ok(Ok(evaluation))
}

fn write_result(changed: bool, output: Option<WriteOutput>) -> StepResult {
    StepResult::Write {
        changed,
        previous: None,
        output,
    }
}

impl Evaluation {
    /// Counts what a step writes; fails if that is more than one change can have.
    fn writes(&mut self, key_len: usize, value_len: usize) -> Option<WriteFailure> {
        self.written += key_len + value_len;
        let len = self.written as u64;
        (self.written > CHANGE_LEN_MAX).then_some(WriteFailure::Value(ValueError::ChangeTooLong { len }))
    }

    fn add(&mut self, result: StepResult, key_len: usize, version: Option<CurrentVersion>) {
        let live = version.and_then(|version| version.live);
        self.len += live.map_or(0, |live| key_len as u64 + u64::from(live.len));
        self.results.push(PendingResult { result, version });
    }
}

fn read_results(owned: &OwnedTenant<'_, '_>, results: Vec<PendingResult>) -> Result<Vec<StepResult>, Unreadable> {
    let read = |PendingResult { result, version }| {
        let live = version.filter(|version: &CurrentVersion| version.live.is_some());
        let read =
            |version: CurrentVersion| version_at(owned.context.rows, owned.copy, (version.revision, version.effect));
        let version = live.map(read).transpose()?.flatten();
        Ok(with_version(result, version))
    };
    results.into_iter().map(read).collect()
}

fn with_version(result: StepResult, version: Option<Version>) -> StepResult {
    match result {
        StepResult::Get(_) => StepResult::Get(version),
        StepResult::Write { changed, output, .. } => StepResult::Write {
            changed,
            previous: version,
            output,
        },
    }
}

/// Returns the result of a repeat: the first outcome, with step results while history has them all.
fn repeated(
    owned: &OwnedTenant<'_, '_>,
    outcome: IdempotencyRecord,
    branches: &Branches,
) -> Result<ApplyResult, Unreadable> {
    let revision = outcome.revision;
    let (rows, copy) = (&*owned.context.rows, owned.copy);
    let first = change_at(rows, copy, (revision, 0))?;
    let succeeded = outcome.succeeded();
    let is_kept = revision > owned.tenant.record.live.retention_floor;
    let results = match first.filter(|_| is_kept) {
        None => None,
        Some(first) => {
            let mut changes = vec![first];
            while changes.last().is_some_and(|last| last.more) {
                let next = u16::try_from(changes.len()).unwrap_or(u16::MAX);
                let effect = change_at(rows, copy, (revision, next))?;
                changes.push(effect.ok_or(Malformed {
                    what: "effects of a change",
                })?);
            }
            let again = |step| result_again(owned, step, &changes);
            Some(branches.branch(succeeded).iter().map(again).collect::<Result<_, _>>()?)
        }
    };
    let at = EvaluationPoint {
        revision,
        ..owned.evaluation_point()
    };
    Ok(ApplyResult::Txn(TxnResult {
        at,
        changed: true,
        succeeded,
        results,
        repeated: true,
    }))
}

fn result_again(owned: &OwnedTenant<'_, '_>, step: &Step, changes: &[Change]) -> Result<StepResult, Unreadable> {
    let (rows, copy) = (&*owned.context.rows, owned.copy);
    let revision = changes.first().map_or(Revision::ZERO, |first| first.revision);
    Ok(match step {
        Step::Get(key) => StepResult::Get(previous_version(rows, copy, key, revision)?),
        Step::Write(operation) => match changes.iter().find(|change| change.key == operation.key) {
            None => write_result(false, None),
            Some(change) => {
                let previous = match change.previous {
                    Some(at) if operation.previous => version_at(rows, copy, at)?,
                    Some(_) | None => None,
                };
                let value = change.value.as_ref();
                StepResult::Write {
                    changed: true,
                    previous,
                    output: value.and_then(|value| output_of(&operation.effect, value)),
                }
            }
        },
    })
}
