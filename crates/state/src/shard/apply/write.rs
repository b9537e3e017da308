//! Callers' writes of one key.

use stead_types::Revision;

use super::{
    super::{
        Shard,
        answer::{Answer, Made, Refusal, Written},
        command::{Effect, Operation, Write},
        counter,
        read::{change_at, version_at},
        window::Remembered,
    },
    Context,
    owned::{Effected, Known, Owned, Planned, Remember, Verdict, exhausted},
};
use crate::rows::{
    Unreadable,
    change::{Cause, Value},
};

impl Shard {
    pub(super) fn write(&mut self, context: &mut Context<'_>, write: Write) -> Result<Answer, Unreadable> {
        self.execute(context, write.tenant, |owned| execute(owned, write))
    }
}

fn execute(owned: &mut Owned<'_, '_>, write: Write) -> Result<Answer, Unreadable> {
    let Operation {
        key,
        condition,
        previous: wanted,
        effect,
    } = write.operation;
    match owned.known(write.idempotency.as_ref(), write.request) {
        Some(Known::Repeated(outcome)) => return repeated(owned, outcome, (&effect, wanted)),
        Some(Known::Refused(answer)) => return Ok(answer),
        None => {}
    }
    if !owned.remove_past_end(std::iter::once(&key))? {
        return Ok(exhausted());
    }
    let before = owned.current(&key)?;
    if let Some(condition) = &condition {
        match owned.verdict(before, condition)? {
            Verdict::Holds => {}
            Verdict::Forked { epoch, kept } => {
                let at = owned.evaluated();
                return Ok(Answer::Forked { epoch, kept, at });
            }
            Verdict::Fails => {
                let live = before.filter(|before| before.live.is_some());
                let current = live.map_or(Revision::ZERO, |live| live.revision);
                let at = owned.evaluated();
                return Ok(Answer::ConditionFailed { current, at });
            }
        }
    }
    let (value, made) = match owned.effected(before, effect)? {
        Effected::Holds(value, made) => (value, made),
        Effected::Unchanged => return Ok(Answer::Unchanged(owned.evaluated())),
        Effected::Refused(Refusal::BoundReached(number)) => {
            let at = owned.evaluated();
            return Ok(Answer::BoundReached { number, at });
        }
        Effected::Refused(Refusal::Unfit(why)) => {
            let at = owned.evaluated();
            return Ok(Answer::Unfit { why, at });
        }
    };
    let previous = match before {
        Some(before) if wanted => version_at(owned.context.rows, owned.copy, (before.revision, before.effect))?,
        Some(_) | None => None,
    };
    let planned = Planned { key, before, value };
    let remember = Remember {
        idempotency: write.idempotency,
        request: write.request,
        limits: write.limits,
    };
    let Some(at) = owned.commit(remember, Cause::Write, std::iter::once(planned)) else {
        return Ok(exhausted());
    };
    Ok(Answer::Written(Written {
        revision: at.revision,
        time: at.time,
        index: at.index,
        previous,
        repeated: false,
        made,
    }))
}

/// Returns what is said of a value that such a write made.
pub(super) fn made_by(effect: &Effect, value: &Value) -> Option<Made> {
    match effect {
        Effect::Put { .. } | Effect::Delete => None,
        Effect::Increment(_) => counter::read(&value.bytes).map(Made::Number),
        Effect::Append { .. } => Some(Made::Length(value.bytes.len() as u64)),
    }
}

/// Answers a repeat with the first outcome. What was made and the version before are given while history still has them.
fn repeated(
    owned: &Owned<'_, '_>,
    outcome: Remembered,
    (effect, wanted): (&Effect, bool),
) -> Result<Answer, Unreadable> {
    let (rows, copy) = (&*owned.context.rows, owned.copy);
    // Where a replica stands with removing what is below the floor is its own affair.
    let is_kept = outcome.revision > owned.tenant.record.live.floor;
    let change = change_at(rows, copy, (outcome.revision, 0))?.filter(|_| is_kept);
    let previous = match change.as_ref().and_then(|change| change.previous) {
        Some(at) if wanted => version_at(rows, copy, at)?,
        Some(_) | None => None,
    };
    let value = change.as_ref().and_then(|change| change.value.as_ref());
    Ok(Answer::Written(Written {
        revision: outcome.revision,
        time: owned.evaluated().time,
        index: owned.evaluated().index,
        previous,
        repeated: true,
        made: value.and_then(|value| made_by(effect, value)),
    }))
}
