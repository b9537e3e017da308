//! Expected results of commands on the plain model: a second implementation of the data API.

use stead_types::Revision;

use super::model::{Held, KeyEffect, Model, at, version};
use crate::shard::{
    ApplyResult,
    apply_result::{
        DeleteRangeResult, EvaluationPoint, StepResult, TxnResult, ValueError, WriteFailure, WriteOutput, WriteResult,
    },
    command::{Branches, Condition, Effect, Increment, Operand, Operation, Relation, Step},
};

/// Expected effect of a write.
enum ExpectedEffect {
    Value(Option<(Vec<u8>, Option<u64>)>, Option<WriteOutput>),
    Unchanged,
    Failed(WriteFailure),
}

impl Model {
    fn evaluation_point(&self) -> EvaluationPoint {
        EvaluationPoint {
            revision: self.revision(),
            index: self.index(),
            time: self.time(),
        }
    }

    /// Removes those of these keys that have expired.
    fn remove_expired_keys(&mut self, time: u64, is_named: impl Fn(&Vec<u8>) -> bool) {
        let is_past = |held: &Held| held.expires.is_some_and(|expires| expires <= time);
        self.remove(time, |key, held| is_named(key) && is_past(held));
    }

    /// A write that is sent for the first time.
    pub(super) fn write(&mut self, time: u64, operation: &Operation) -> ApplyResult {
        self.remove_expired_keys(time, |key| *key == operation.key);
        let held = self.now().remove(operation.key.as_ref());
        if !operation
            .condition
            .as_ref()
            .is_none_or(|condition| holds(held.as_ref(), condition))
        {
            let current = held.map_or(Revision::ZERO, |held| held.revision);
            let at = self.evaluation_point();
            return ApplyResult::ConditionFailed { current, at };
        }
        match self.evaluate_effect(held.as_ref(), &operation.effect, time) {
            ExpectedEffect::Unchanged => ApplyResult::Unchanged(self.evaluation_point()),
            ExpectedEffect::Failed(WriteFailure::Value(error)) => ApplyResult::ValueError {
                error,
                at: self.evaluation_point(),
            },
            ExpectedEffect::Failed(WriteFailure::BoundReached(number)) => ApplyResult::BoundReached {
                number,
                at: self.evaluation_point(),
            },
            ExpectedEffect::Value(value, output) => ApplyResult::Write(WriteResult {
                revision: self.change(vec![(operation.key.to_vec(), value)], time),
                time: self.time(),
                index: self.index(),
                previous: held.filter(|_| operation.previous).map(version),
                repeated: false,
                output,
            }),
        }
    }

    /// A transaction that is sent for the first time.
    pub(super) fn txn(&mut self, time: u64, branches: &Branches) -> ApplyResult {
        self.remove_expired_keys(time, |key| branches.keys().any(|named| named == key));
        let now = self.now();
        let held = branches
            .compares
            .iter()
            .all(|compare| holds(now.get(compare.key.as_ref()), &compare.condition));
        let (mut results, mut effects): (Vec<StepResult>, Vec<KeyEffect>) = (Vec::new(), Vec::new());
        for (step, what) in branches.branch(held).iter().enumerate() {
            match what {
                Step::Get(key) => results.push(StepResult::Get(now.get(key.as_ref()).cloned().map(version))),
                Step::Write(operation) => {
                    let before = now.get(operation.key.as_ref());
                    let (changed, output) = match self.evaluate_effect(before, &operation.effect, time) {
                        ExpectedEffect::Unchanged => (false, None),
                        ExpectedEffect::Failed(failure) => {
                            let at = self.evaluation_point();
                            return ApplyResult::TxnFailed {
                                succeeded: held,
                                step,
                                failure,
                                at,
                            };
                        }
                        ExpectedEffect::Value(value, output) => {
                            effects.push((operation.key.to_vec(), value));
                            (true, output)
                        }
                    };
                    results.push(StepResult::Write {
                        changed,
                        previous: before.filter(|_| operation.previous && changed).cloned().map(version),
                        output,
                    });
                }
            }
        }
        let changed = !effects.is_empty();
        if changed {
            self.change(effects, time);
        }
        ApplyResult::Txn(TxnResult {
            at: self.evaluation_point(),
            changed,
            succeeded: held,
            results: Some(results),
            repeated: false,
        })
    }

    /// A range that is removed for the first time; it is small.
    pub(super) fn delete_range(&mut self, time: u64, (start, end): (&[u8], &[u8])) -> ApplyResult {
        let gone = |key: &Vec<u8>| start <= key.as_slice() && key.as_slice() < end;
        self.remove_expired_keys(time, gone);
        let keys = self.remove(time, |key, _| gone(key));
        ApplyResult::DeleteRange(DeleteRangeResult {
            at: self.evaluation_point(),
            keys,
            next: None,
            repeated: false,
        })
    }

    /// Removes expired keys.
    pub(super) fn expire(&mut self, time: u64) -> ApplyResult {
        let before = self.revision();
        self.remove(time, |_, held| held.expires.is_some_and(|expires| expires <= time));
        if self.revision() == before {
            return ApplyResult::Unchanged(self.evaluation_point());
        }
        ApplyResult::Write(WriteResult {
            revision: self.revision(),
            time: self.time(),
            index: self.index(),
            previous: None,
            repeated: false,
            output: None,
        })
    }

    /// Removes keys in one change, and returns how many there were.
    fn remove(&mut self, time: u64, goes: impl Fn(&Vec<u8>, &Held) -> bool) -> u64 {
        let gone = self.now().into_iter().filter(|(key, held)| goes(key, held));
        let gone: Vec<KeyEffect> = gone.map(|(key, _)| (key, None)).collect();
        let count = gone.len() as u64;
        if count > 0 {
            self.change(gone, time);
        }
        count
    }

    fn evaluate_effect(&self, held: Option<&Held>, effect: &Effect, time: u64) -> ExpectedEffect {
        let before = held.map(|held| held.value.clone());
        let expires = held.and_then(|held| held.expires);
        match effect {
            Effect::Put { value, ttl } => {
                ExpectedEffect::Value(Some((value.to_vec(), ttl.map(|ttl| time + ttl))), None)
            }
            Effect::Delete if held.is_none() => ExpectedEffect::Unchanged,
            Effect::Delete => ExpectedEffect::Value(None, None),
            Effect::Append { bytes, len_max } => {
                let mut value = before.unwrap_or_default();
                let len = value.len() as u64;
                value.extend_from_slice(bytes);
                if value.len() > *len_max as usize {
                    return ExpectedEffect::Failed(WriteFailure::Value(ValueError::TooLong { len }));
                }
                let len = value.len() as u64;
                ExpectedEffect::Value(Some((value, expires)), Some(WriteOutput::Length(len)))
            }
            Effect::Increment(by) => match self.sum(held, by, time) {
                Ok(sum) => {
                    let value = sum.to_string().into_bytes();
                    ExpectedEffect::Value(Some((value, expires)), Some(WriteOutput::Number(sum)))
                }
                Err(refusal) => ExpectedEffect::Failed(refusal),
            },
        }
    }

    fn sum(&self, held: Option<&Held>, by: &Increment, time: u64) -> Result<i64, WriteFailure> {
        let number = match held {
            None => Some(0),
            Some(held) => String::from_utf8(held.value.clone())
                .ok()
                .and_then(|text| text.parse().ok()),
        };
        let number = number.ok_or(WriteFailure::Value(ValueError::NotANumber))?;
        let since = held.map_or(0, |held| self.time_of(held.revision));
        let is_over = by.window.is_some_and(|window| since / window != time / window);
        let number: i64 = if is_over { 0 } else { number };
        let sum = i128::from(number) + i128::from(by.delta);
        let is_beyond = (by.delta > 0 && by.ceiling.is_some_and(|ceiling| i128::from(ceiling) < sum))
            || (by.delta < 0 && by.floor.is_some_and(|floor| sum < i128::from(floor)));
        if is_beyond {
            return Err(WriteFailure::BoundReached(number));
        }
        i64::try_from(sum).map_err(|_| WriteFailure::Value(ValueError::Overflow { number }))
    }
}

fn holds(held: Option<&Held>, condition: &Condition) -> bool {
    let (relation, operand) = match condition {
        Condition::Absent => return held.is_none(),
        Condition::Exists => return held.is_some(),
        Condition::Compared(relation, operand) => (relation, operand),
    };
    let Some(held) = held else { return false };
    let (equal, less) = match operand {
        Operand::Modified(wanted) => (held.revision == *wanted, held.revision < *wanted),
        Operand::Created(wanted) => (held.create == *wanted, held.create < *wanted),
        Operand::Version(wanted) => (held.version == *wanted, held.version < *wanted),
        Operand::Value(wanted) => (held.value == *wanted, held.value.as_slice() < wanted.as_ref()),
    };
    match relation {
        Relation::Equal => equal,
        Relation::NotEqual => !equal,
        Relation::Less => less,
        Relation::Greater => !equal && !less,
    }
}

/// Returns the revision of a key, or the one it had `back` changes ago.
pub(super) fn revision_ago(model: &Model, key: u8, back: usize) -> Revision {
    let ago = model.changes.len().saturating_sub(back);
    let held = model.as_of(at(ago)).remove(&vec![key]);
    held.map_or(Revision::ZERO, |held| held.revision)
}
