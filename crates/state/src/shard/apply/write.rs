//! Callers' writes.

use bytes::Bytes;
use stead_types::{Epoch, Revision, TenantTime};

use super::{
    super::{
        Shard,
        answer::{Answer, Evaluated, Made, Unfit, Void, Written},
        append::{append, current},
        clients::Check,
        command::{Condition, Effect, Operation, Write},
        counter::{self, Added},
        read::{change_at, version_at},
        record::{Record, Role},
        tenant::Tenant,
        window::Remembered,
    },
    Context,
};
use crate::{
    lineage::Standing,
    rows::{
        Copy, Rows, Unreadable,
        change::{Change, Value},
        current::Current,
    },
};

impl Shard {
    pub(super) fn write(&mut self, context: &mut Context<'_>, write: Write) -> Result<Answer, Unreadable> {
        let number = write.tenant;
        let place = self.place;
        let Some(tenant) = self.tenants.get_mut(&number) else {
            return Ok(Answer::Void(Void::NoRecord));
        };
        let Some(epoch) = tenant.record.owned() else {
            return Ok(Answer::Void(not_owner(&tenant.record)));
        };
        let copy = place.copy(number, tenant.record.live.number);
        let (answer, len) = execute(context, tenant, copy, epoch, write)?;
        if let (Answer::Written(written), Some(len)) = (&answer, len) {
            self.touch(number, written.revision.sequence(), len);
        }
        Ok(answer)
    }
}

/// Executes an owner's write. Returns, where it had an effect, how many bytes it wrote.
fn execute(
    context: &mut Context<'_>,
    tenant: &mut Tenant,
    copy: Copy,
    epoch: Epoch,
    write: Write,
) -> Result<(Answer, Option<usize>), Unreadable> {
    let record = &mut tenant.record;
    let Operation {
        key,
        condition,
        previous: wanted,
        effect,
    } = write.operation;
    if let Some(idempotency) = &write.idempotency {
        match tenant.clients.check(&record.live, idempotency, write.request) {
            Check::New => {}
            Check::Repeated(outcome) => {
                return Ok((repeated(context.rows, copy, record, outcome, (&effect, wanted))?, None));
            }
            Check::Reused => return Ok((Answer::KeyReused, None)),
            Check::Expired { edge } => {
                let now = record.live.time;
                return Ok((Answer::Expired { edge, now }, None));
            }
        }
    }
    let before = current(context.rows, copy, &key)?;
    if let Some(failed) = condition.and_then(|condition| fails(record, before, condition)) {
        return Ok((failed, None));
    }
    let time = record.live.time.max(TenantTime(context.time));
    let (value, made) = match outcome_of(context.rows, copy, record, (before, effect, time))? {
        Ok(made) => made,
        Err(without_effect) => return Ok((without_effect, None)),
    };
    let Some(sequence) = record.live.revision.sequence().next() else {
        return Ok((Answer::Void(Void::Exhausted), None));
    };
    let previous = match before {
        Some(before) if wanted => version_at(context.rows, copy, (before.revision, before.effect))?,
        Some(_) | None => None,
    };
    let revision = Revision::new(epoch, sequence);
    let change = Change {
        revision,
        effect: 0,
        more: false,
        time,
        previous: None,
        outcome: write
            .idempotency
            .map(|key| tenant.clients.outcome(&key, write.request, time)),
        key,
        value: value.map(|bytes| new_value(before, revision, bytes)),
    };
    let len = change.len();
    record.live.revision = revision;
    record.live.time = time;
    tenant.clients.remember(&mut record.live, &change, |_| true);
    append(context.rows, copy, &mut record.live, before, change);
    tenant.dirty = true;
    let written = Written {
        revision,
        time,
        previous,
        repeated: false,
        made,
    };
    Ok((Answer::Written(written), Some(len)))
}

/// What a key holds after a write, and what is said of that.
type Holds = (Option<Bytes>, Option<Made>);

/// Returns what a key holds after a write, or the answer of a write without effect.
fn outcome_of(
    rows: &dyn Rows,
    copy: Copy,
    record: &Record,
    (before, effect, time): (Option<Current>, Effect, TenantTime),
) -> Result<Result<Holds, Answer>, Unreadable> {
    let live = before.filter(|before| before.live.is_some());
    let change = |live: Current| change_at(rows, copy, (live.revision, live.effect));
    Ok(match effect {
        Effect::Put(value) => Ok((Some(value), None)),
        Effect::Delete if live.is_none() => Err(Answer::Unchanged(evaluated(record))),
        Effect::Delete => Ok((None, None)),
        Effect::Increment(increment) => {
            let held = live.map(change).transpose()?.flatten();
            let held = held
                .as_ref()
                .and_then(|change| Some((change.value.as_ref()?, change.time)));
            let held = held.map(|(value, time)| (&*value.bytes, time));
            match counter::add(held, increment, time) {
                Ok(Added::To(number)) => Ok((Some(counter::write(number).into()), Some(Made::Number(number)))),
                Ok(Added::BoundReached(number)) => Err(Answer::BoundReached {
                    number,
                    at: evaluated(record),
                }),
                Err(unfit) => Err(Answer::Unfit(unfit)),
            }
        }
        Effect::Append { bytes, len_max } => {
            let held = live.map(change).transpose()?.flatten();
            let held = held
                .and_then(|change| change.value)
                .map_or_else(Bytes::new, |value| value.bytes);
            let len = held.len() + bytes.len();
            if len > len_max as usize {
                let len = held.len() as u64;
                Err(Answer::Unfit(Unfit::TooLong { len }))
            } else {
                let value = [held, bytes].concat().into();
                Ok((Some(value), Some(Made::Length(len as u64))))
            }
        }
    })
}

/// Returns what is said of a value that such a write made.
fn made_by(effect: &Effect, value: &Value) -> Option<Made> {
    match effect {
        Effect::Put(_) | Effect::Delete => None,
        Effect::Increment(_) => counter::read(&value.bytes).map(Made::Number),
        Effect::Append { .. } => Some(Made::Length(value.bytes.len() as u64)),
    }
}

fn new_value(before: Option<Current>, revision: Revision, bytes: Bytes) -> Value {
    let live = before.and_then(|before| before.live);
    Value {
        create: live.map_or(revision, |live| live.create),
        version: live.map_or(1, |live| live.version + 1),
        bytes,
    }
}

/// Answers a repeat with the first outcome. What was made and the version before are given while history still has them.
fn repeated(
    rows: &dyn Rows,
    copy: Copy,
    record: &Record,
    outcome: Remembered,
    (effect, wanted): (&Effect, bool),
) -> Result<Answer, Unreadable> {
    let change = change_at(rows, copy, (outcome.revision, 0))?;
    let previous = match change.as_ref().and_then(|change| change.previous) {
        Some(at) if wanted => version_at(rows, copy, at)?,
        Some(_) | None => None,
    };
    let value = change.as_ref().and_then(|change| change.value.as_ref());
    Ok(Answer::Written(Written {
        revision: outcome.revision,
        time: record.live.time,
        previous,
        repeated: true,
        made: value.and_then(|value| made_by(effect, value)),
    }))
}

/// Returns the answer of a condition that does not hold.
fn fails(record: &Record, before: Option<Current>, condition: Condition) -> Option<Answer> {
    let live = before.filter(|before| before.live.is_some());
    let current = live.map_or(Revision::ZERO, |live| live.revision);
    let holds = match condition {
        Condition::Absent => live.is_none(),
        Condition::Exists => live.is_some(),
        Condition::Revision(wanted) => live.is_some() && wanted == current,
    };
    if holds {
        return None;
    }
    if let Condition::Revision(wanted) = condition
        && let Standing::Cut { kept } = record.lineage.standing(wanted)
    {
        return Some(Answer::Forked {
            epoch: wanted.epoch(),
            kept,
        });
    }
    let at = evaluated(record);
    Some(Answer::ConditionFailed { current, at })
}

fn evaluated(record: &Record) -> Evaluated {
    Evaluated {
        revision: record.live.revision,
        time: record.live.time,
    }
}

fn not_owner(record: &Record) -> Void {
    let to = match record.role {
        Role::Relinquished { to, .. } => Some(to),
        Role::Owner | Role::Follower { .. } | Role::Heir { .. } | Role::Frozen { .. } | Role::Erased => None,
    };
    Void::NotOwner { to }
}
