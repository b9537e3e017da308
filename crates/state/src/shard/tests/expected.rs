//! What commands come to, worked out on the plain model: the meaning of the data API a second time.

use stead_types::Revision;

use super::model::{Effect as Made, Held, Model, at, version};
use crate::shard::{
    Answer,
    answer::{Evaluated, Made as Said, RangeDeleted, Refusal, StepResult, TxnDone, Unfit, Written},
    command::{Branches, Condition, Effect, Increment, Operand, Operation, Relation, Step},
};

/// What a write comes to.
enum Effected {
    Holds(Option<(Vec<u8>, Option<u64>)>, Option<Said>),
    Unchanged,
    Refused(Refusal),
}

impl Model {
    fn evaluated(&self) -> Evaluated {
        Evaluated {
            revision: self.revision(),
            index: self.index(),
            time: self.time(),
        }
    }

    /// Removes those of these keys that are past their end.
    fn remove_past_end(&mut self, time: u64, is_named: impl Fn(&Vec<u8>) -> bool) {
        let is_past = |held: &Held| held.expires.is_some_and(|expires| expires <= time);
        self.remove(time, |key, held| is_named(key) && is_past(held));
    }

    /// A write that is sent for the first time.
    pub(super) fn write(&mut self, time: u64, operation: &Operation) -> Answer {
        self.remove_past_end(time, |key| *key == operation.key);
        let held = self.now().remove(operation.key.as_ref());
        if !operation
            .condition
            .as_ref()
            .is_none_or(|condition| holds(held.as_ref(), condition))
        {
            let current = held.map_or(Revision::ZERO, |held| held.revision);
            let at = self.evaluated();
            return Answer::ConditionFailed { current, at };
        }
        match self.effected(held.as_ref(), &operation.effect, time) {
            Effected::Unchanged => Answer::Unchanged(self.evaluated()),
            Effected::Refused(Refusal::Unfit(why)) => Answer::Unfit {
                why,
                at: self.evaluated(),
            },
            Effected::Refused(Refusal::BoundReached(number)) => Answer::BoundReached {
                number,
                at: self.evaluated(),
            },
            Effected::Holds(value, made) => Answer::Written(Written {
                revision: self.change(vec![(operation.key.to_vec(), value)], time),
                time: self.time(),
                index: self.index(),
                previous: held.filter(|_| operation.previous).map(version),
                repeated: false,
                made,
            }),
        }
    }

    /// A transaction that is sent for the first time.
    pub(super) fn txn(&mut self, time: u64, branches: &Branches) -> Answer {
        self.remove_past_end(time, |key| branches.keys().any(|named| named == key));
        let now = self.now();
        let held = branches
            .compares
            .iter()
            .all(|compare| holds(now.get(compare.key.as_ref()), &compare.condition));
        let (mut results, mut effects): (Vec<StepResult>, Vec<Made>) = (Vec::new(), Vec::new());
        for (step, what) in branches.branch(held).iter().enumerate() {
            match what {
                Step::Get(key) => results.push(StepResult::Got(now.get(key.as_ref()).cloned().map(version))),
                Step::Write(operation) => {
                    let before = now.get(operation.key.as_ref());
                    let (changed, made) = match self.effected(before, &operation.effect, time) {
                        Effected::Unchanged => (false, None),
                        Effected::Refused(why) => {
                            let at = self.evaluated();
                            return Answer::TxnRefused { held, step, why, at };
                        }
                        Effected::Holds(value, made) => {
                            effects.push((operation.key.to_vec(), value));
                            (true, made)
                        }
                    };
                    results.push(StepResult::Wrote {
                        changed,
                        previous: before.filter(|_| operation.previous && changed).cloned().map(version),
                        made,
                    });
                }
            }
        }
        let changed = !effects.is_empty();
        if changed {
            self.change(effects, time);
        }
        Answer::Txn(TxnDone {
            at: self.evaluated(),
            changed,
            held,
            results: Some(results),
            repeated: false,
        })
    }

    /// A range that is removed for the first time; it is small.
    pub(super) fn delete_range(&mut self, time: u64, (start, end): (&[u8], &[u8])) -> Answer {
        let gone = |key: &Vec<u8>| start <= key.as_slice() && key.as_slice() < end;
        self.remove_past_end(time, gone);
        let keys = self.remove(time, |key, _| gone(key));
        Answer::RangeDeleted(RangeDeleted {
            at: self.evaluated(),
            keys,
            next: None,
            repeated: false,
        })
    }

    /// Keys whose time is over.
    pub(super) fn expire(&mut self, time: u64) -> Answer {
        let before = self.revision();
        self.remove(time, |_, held| held.expires.is_some_and(|expires| expires <= time));
        if self.revision() == before {
            return Answer::Unchanged(self.evaluated());
        }
        Answer::Written(Written {
            revision: self.revision(),
            time: self.time(),
            index: self.index(),
            previous: None,
            repeated: false,
            made: None,
        })
    }

    /// Removes keys in one change, and returns how many there were.
    fn remove(&mut self, time: u64, goes: impl Fn(&Vec<u8>, &Held) -> bool) -> u64 {
        let gone = self.now().into_iter().filter(|(key, held)| goes(key, held));
        let gone: Vec<Made> = gone.map(|(key, _)| (key, None)).collect();
        let count = gone.len() as u64;
        if count > 0 {
            self.change(gone, time);
        }
        count
    }

    fn effected(&self, held: Option<&Held>, effect: &Effect, time: u64) -> Effected {
        let before = held.map(|held| held.value.clone());
        let expires = held.and_then(|held| held.expires);
        match effect {
            Effect::Put { value, ttl } => Effected::Holds(Some((value.to_vec(), ttl.map(|ttl| time + ttl))), None),
            Effect::Delete if held.is_none() => Effected::Unchanged,
            Effect::Delete => Effected::Holds(None, None),
            Effect::Append { bytes, len_max } => {
                let mut value = before.unwrap_or_default();
                let len = value.len() as u64;
                value.extend_from_slice(bytes);
                if value.len() > *len_max as usize {
                    return Effected::Refused(Refusal::Unfit(Unfit::TooLong { len }));
                }
                let len = value.len() as u64;
                Effected::Holds(Some((value, expires)), Some(Said::Length(len)))
            }
            Effect::Increment(by) => match self.sum(held, by, time) {
                Ok(sum) => {
                    let value = sum.to_string().into_bytes();
                    Effected::Holds(Some((value, expires)), Some(Said::Number(sum)))
                }
                Err(refusal) => Effected::Refused(refusal),
            },
        }
    }

    fn sum(&self, held: Option<&Held>, by: &Increment, time: u64) -> Result<i64, Refusal> {
        let number = match held {
            None => Some(0),
            Some(held) => String::from_utf8(held.value.clone())
                .ok()
                .and_then(|text| text.parse().ok()),
        };
        let number = number.ok_or(Refusal::Unfit(Unfit::NotANumber))?;
        let since = held.map_or(0, |held| self.time_of(held.revision));
        let is_over = by.window.is_some_and(|window| since / window != time / window);
        let number: i64 = if is_over { 0 } else { number };
        let sum = i128::from(number) + i128::from(by.delta);
        let is_beyond = (by.delta > 0 && by.ceiling.is_some_and(|ceiling| i128::from(ceiling) < sum))
            || (by.delta < 0 && by.floor.is_some_and(|floor| sum < i128::from(floor)));
        if is_beyond {
            return Err(Refusal::BoundReached(number));
        }
        i64::try_from(sum).map_err(|_| Refusal::Unfit(Unfit::Overflow { number }))
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

/// Returns the revision that a key has, or had so many changes ago.
pub(super) fn revision_ago(model: &Model, key: u8, back: usize) -> Revision {
    let ago = model.changes.len().saturating_sub(back);
    let held = model.as_of(at(ago)).remove(&vec![key]);
    held.map_or(Revision::ZERO, |held| held.revision)
}
