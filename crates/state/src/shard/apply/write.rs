//! Callers' writes.

use bytes::Bytes;
use stead_types::{Epoch, Revision, TenantTime};

use super::{
    super::{
        Shard,
        answer::{Answer, Evaluated, Void, Written},
        append::{append, current},
        clients::Check,
        command::{Condition, Operation, Write},
        read::version_at,
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
    let (key, value, condition, wanted) = match write.operation {
        Operation::Put {
            key,
            value,
            condition,
            previous,
        } => (key, Some(value), condition, previous),
        Operation::Delete {
            key,
            condition,
            previous,
        } => (key, None, condition, previous),
    };
    if let Some(idempotency) = &write.idempotency {
        match tenant.clients.check(&record.live, idempotency, write.request) {
            Check::New => {}
            Check::Repeated(outcome) => return Ok((repeated(context.rows, copy, record, outcome, wanted)?, None)),
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
    if value.is_none() && before.is_none_or(|before| before.live.is_none()) {
        return Ok((Answer::Unchanged(evaluated(record)), None));
    }
    let Some(sequence) = record.live.revision.sequence().next() else {
        return Ok((Answer::Void(Void::Exhausted), None));
    };
    let previous = match before {
        Some(before) if wanted => version_at(context.rows, copy, (before.revision, before.effect))?,
        Some(_) | None => None,
    };
    let revision = Revision::new(epoch, sequence);
    let time = record.live.time.max(TenantTime(context.time));
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
    };
    Ok((Answer::Written(written), Some(len)))
}

fn new_value(before: Option<Current>, revision: Revision, bytes: Bytes) -> Value {
    let live = before.and_then(|before| before.live);
    Value {
        create: live.map_or(revision, |live| live.create),
        version: live.map_or(1, |live| live.version + 1),
        bytes,
    }
}

/// Answers a repeat with the first outcome. The version before is given while history still has it.
fn repeated(
    rows: &dyn Rows,
    copy: Copy,
    record: &Record,
    outcome: Remembered,
    wanted: bool,
) -> Result<Answer, Unreadable> {
    let mut previous = None;
    if wanted && let Some(change) = super::super::read::change_at(rows, copy, (outcome.revision, 0))? {
        previous = match change.previous {
            Some(at) => version_at(rows, copy, at)?,
            None => None,
        };
    }
    Ok(Answer::Written(Written {
        revision: outcome.revision,
        time: record.live.time,
        previous,
        repeated: true,
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
