//! Callers' transactions: one branch, whole, as one change.

use stead_types::{
    Revision,
    limits::{ANSWER_LEN_MAX, CHANGE_LEN_MAX},
    planted::{self, Bug},
};

use super::{
    super::{
        Shard,
        answer::{Answer, Evaluated, Made, Refusal, StepResult, TxnDone, Unfit, Version},
        command::{Branches, Compare, Operation, Step, Txn},
        read::{change_at, previous_version, version_at},
        window::Remembered,
    },
    Context,
    owned::{Effected, Known, Owned, Planned, Remember, Verdict, exhausted},
    write::made_by,
};
use crate::{
    codec::Malformed,
    rows::{
        Unreadable,
        change::{Cause, Change},
        current::Current,
    },
};

impl Shard {
    pub(super) fn txn(&mut self, context: &mut Context<'_>, txn: Txn) -> Result<Answer, Unreadable> {
        self.execute(context, txn.tenant, |owned| execute(owned, txn))
    }
}

fn execute(owned: &mut Owned<'_, '_>, txn: Txn) -> Result<Answer, Unreadable> {
    match owned.known(txn.idempotency.as_ref(), txn.request) {
        Some(Known::Repeated(outcome)) => return repeated(owned, outcome, &txn.branches),
        Some(Known::Refused(answer)) => return Ok(answer),
        None => {}
    }
    if !owned.remove_past_end(txn.branches.keys())? {
        return Ok(exhausted());
    }
    let Branches {
        compares,
        then,
        otherwise,
    } = txn.branches;
    let held = match all_hold(owned, &compares)? {
        Ok(held) => held,
        Err(forked) => return Ok(forked),
    };
    let mut evaluation = match evaluate(owned, if held { then } else { otherwise })? {
        Ok(evaluation) => evaluation,
        Err((step, why)) => {
            let at = owned.evaluated();
            return Ok(Answer::TxnRefused { held, step, why, at });
        }
    };
    if evaluation.len > ANSWER_LEN_MAX {
        let (len, at) = (evaluation.len, owned.evaluated());
        return Ok(Answer::TxnTooLarge { len, at });
    }
    let results = read_results(owned, evaluation.results)?;
    if planted::is(Bug::TxnTorn) {
        evaluation.planned.truncate(1);
    }
    let changed = !evaluation.planned.is_empty();
    let branch = if held { 0 } else { Remembered::OTHERWISE };
    let remember = Remember {
        idempotency: txn.idempotency,
        request: txn.request | branch,
        limits: txn.limits,
    };
    let at = if changed {
        match owned.commit(remember, Cause::Write, evaluation.planned.into_iter()) {
            Some(at) => at,
            None => return Ok(exhausted()),
        }
    } else {
        owned.evaluated()
    };
    Ok(Answer::Txn(TxnDone {
        at,
        changed,
        held,
        results: Some(results),
        repeated: false,
    }))
}

/// Tells whether all conditions hold, or answers that one of them names a revision that was cut.
fn all_hold(owned: &Owned<'_, '_>, compares: &[Compare]) -> Result<Result<bool, Answer>, Unreadable> {
    let mut held = true;
    for Compare { key, condition } in compares {
        match owned.verdict(owned.current(key)?, condition)? {
            Verdict::Holds => {}
            Verdict::Fails => held = planted::is(Bug::ConditionsIgnored),
            Verdict::Forked { epoch, kept } => {
                let at = owned.evaluated();
                return Ok(Err(Answer::Forked { epoch, kept, at }));
            }
        }
    }
    Ok(Ok(held))
}

/// What a branch comes to, before anything is changed.
#[derive(Default)]
struct Evaluation {
    planned: Vec<Planned>,
    results: Vec<ToRead>,
    /// Bytes of the results.
    len: u64,
    /// Bytes of the keys that are written and of what they are to hold.
    written: usize,
}

/// A result of which the values are still to be read.
struct ToRead {
    result: StepResult,
    /// The version that belongs into it.
    version: Option<Current>,
}

fn evaluate(owned: &Owned<'_, '_>, steps: Vec<Step>) -> Result<Result<Evaluation, (usize, Refusal)>, Unreadable> {
    let mut evaluation = Evaluation::default();
    for (number, step) in steps.into_iter().enumerate() {
        match step {
            Step::Get(key) => {
                let version = owned.current(&key)?;
                evaluation.add(StepResult::Got(None), key.len(), version);
            }
            Step::Write(Operation {
                key, previous, effect, ..
            }) => {
                let before = owned.current(&key)?;
                let (value, made) = match owned.effected(before, effect)? {
                    Effected::Refused(why) => return Ok(Err((number, why))),
                    Effected::Unchanged => {
                        evaluation.add(wrote(false, None), 0, None);
                        continue;
                    }
                    Effected::Holds(value, made) => (value, made),
                };
                if let Some(why) = evaluation.writes(key.len(), value.as_ref().map_or(0, |(value, _)| value.len())) {
                    return Ok(Err((number, why)));
                }
                evaluation.add(wrote(true, made), key.len(), before.filter(|_| previous));
                evaluation.planned.push(Planned { key, before, value });
            }
        }
    }
    Ok(Ok(evaluation))
}

fn wrote(changed: bool, made: Option<Made>) -> StepResult {
    StepResult::Wrote {
        changed,
        previous: None,
        made,
    }
}

impl Evaluation {
    /// Counts what a step writes; refuses it if that is more than one change can have.
    fn writes(&mut self, key_len: usize, value_len: usize) -> Option<Refusal> {
        self.written += key_len + value_len;
        let len = self.written as u64;
        (self.written > CHANGE_LEN_MAX).then_some(Refusal::Unfit(Unfit::ChangeTooLong { len }))
    }

    fn add(&mut self, result: StepResult, key_len: usize, version: Option<Current>) {
        let live = version.and_then(|version| version.live);
        self.len += live.map_or(0, |live| key_len as u64 + u64::from(live.len));
        self.results.push(ToRead { result, version });
    }
}

fn read_results(owned: &Owned<'_, '_>, results: Vec<ToRead>) -> Result<Vec<StepResult>, Unreadable> {
    let read = |ToRead { result, version }| {
        let live = version.filter(|version: &Current| version.live.is_some());
        let read = |version: Current| version_at(owned.context.rows, owned.copy, (version.revision, version.effect));
        let version = live.map(read).transpose()?.flatten();
        Ok(with_version(result, version))
    };
    results.into_iter().map(read).collect()
}

fn with_version(result: StepResult, version: Option<Version>) -> StepResult {
    match result {
        StepResult::Got(_) => StepResult::Got(version),
        StepResult::Wrote { changed, made, .. } => StepResult::Wrote {
            changed,
            previous: version,
            made,
        },
    }
}

/// Answers a repeat with the first outcome; its results are given while history still has them all.
fn repeated(owned: &Owned<'_, '_>, outcome: Remembered, branches: &Branches) -> Result<Answer, Unreadable> {
    let revision = outcome.revision;
    let (rows, copy) = (&*owned.context.rows, owned.copy);
    let first = change_at(rows, copy, (revision, 0))?;
    let held = outcome.held();
    let is_kept = revision > owned.tenant.record.live.floor;
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
            Some(branches.branch(held).iter().map(again).collect::<Result<_, _>>()?)
        }
    };
    let at = Evaluated {
        revision,
        ..owned.evaluated()
    };
    Ok(Answer::Txn(TxnDone {
        at,
        changed: true,
        held,
        results,
        repeated: true,
    }))
}

fn result_again(owned: &Owned<'_, '_>, step: &Step, changes: &[Change]) -> Result<StepResult, Unreadable> {
    let (rows, copy) = (&*owned.context.rows, owned.copy);
    let revision = changes.first().map_or(Revision::ZERO, |first| first.revision);
    Ok(match step {
        Step::Get(key) => StepResult::Got(previous_version(rows, copy, key, revision)?),
        Step::Write(operation) => match changes.iter().find(|change| change.key == operation.key) {
            None => wrote(false, None),
            Some(change) => {
                let previous = match change.previous {
                    Some(at) if operation.previous => version_at(rows, copy, at)?,
                    Some(_) | None => None,
                };
                let value = change.value.as_ref();
                StepResult::Wrote {
                    changed: true,
                    previous,
                    made: value.and_then(|value| made_by(&operation.effect, value)),
                }
            }
        },
    })
}
