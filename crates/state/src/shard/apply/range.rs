//! Many keys at once: a caller's range, and keys whose time is over.

use stead_types::{
    TenantTime,
    planted::{self, Bug},
};

use super::{
    super::{
        Shard,
        answer::{Answer, RangeDeleted, Written},
        command::{DeleteRange, EXPIRED_MAX, Expire, RANGE_KEYS_MAX},
    },
    Context,
    owned::{Known, Owned, Planned, Remember, exhausted},
};
use crate::{
    codec::Malformed,
    rows::{Order, Unreadable, change::Cause, current, expiry, kind},
};

/// Most rows that a command looks at, tombstones too: those of all replicas go with the same entry.
pub(in crate::shard) const ROWS_MAX: usize = 8 * RANGE_KEYS_MAX;

impl Shard {
    pub(super) fn delete_range(&mut self, context: &mut Context<'_>, range: DeleteRange) -> Result<Answer, Unreadable> {
        self.execute(context, range.tenant, |owned| delete(owned, range))
    }

    pub(super) fn expire(&mut self, context: &mut Context<'_>, expire: Expire) -> Result<Answer, Unreadable> {
        self.execute(context, expire.tenant, remove_expired)
    }
}

fn delete(owned: &mut Owned<'_, '_>, range: DeleteRange) -> Result<Answer, Unreadable> {
    match owned.known(range.idempotency.as_ref(), range.request) {
        Some(Known::Refused(answer)) => return Ok(answer),
        Some(Known::Repeated(outcome)) => {
            let mut at = owned.evaluated();
            at.revision = outcome.revision;
            return Ok(Answer::RangeDeleted(RangeDeleted {
                at,
                keys: 0,
                next: Some(range.start),
                repeated: true,
            }));
        }
        None => {}
    }
    let Plan { past, planned, next } = plan(owned, &range)?;
    if !owned.expire(past)? {
        return Ok(exhausted());
    }
    let keys = planned.len() as u64;
    let at = if planned.is_empty() {
        owned.evaluated()
    } else {
        let remember = Remember {
            idempotency: range.idempotency,
            request: range.request,
            limits: range.limits,
        };
        match owned.commit(remember, Cause::Write, planned.into_iter()) {
            Some(at) => at,
            None => return Ok(exhausted()),
        }
    };
    Ok(Answer::RangeDeleted(RangeDeleted {
        at,
        keys,
        next,
        repeated: false,
    }))
}

/// The first keys of a range that are to go.
#[derive(Default)]
struct Plan {
    /// Past their end: gone already, and none of those that are removed.
    past: Vec<Planned>,
    planned: Vec<Planned>,
    /// Where the rest begins.
    next: Option<bytes::Bytes>,
}

/// Finds the first keys of a range that are to go, and where the rest begins.
fn plan(owned: &Owned<'_, '_>, range: &DeleteRange) -> Result<Plan, Unreadable> {
    let (copy, time) = (owned.copy, owned.now());
    let start = current::key(copy, &range.start);
    let end = match &range.end {
        Some(end) => current::key(copy, end),
        None => copy.range(kind::CURRENT).end,
    };
    let (mut plan, mut seen) = (Plan::default(), 0);
    if start >= end {
        return Ok(plan);
    }
    for row in owned.context.rows.range(&start..&end, Order::Ascending) {
        let (row, value) = row?;
        let now = current::decode(value)?;
        let key = current::parse_key(&row);
        if plan.past.len() + plan.planned.len() == RANGE_KEYS_MAX || seen == ROWS_MAX {
            plan.next = Some(key);
            return Ok(plan);
        }
        seen += 1;
        let is_past = now.is_past_end(time);
        let is_meant = range.as_of.is_none_or(|as_of| now.revision <= as_of);
        if now.live.is_some() && (is_past || is_meant) {
            let list = if is_past { &mut plan.past } else { &mut plan.planned };
            list.push(Planned {
                key,
                before: Some(now),
                value: None,
            });
        }
    }
    Ok(plan)
}

fn remove_expired(owned: &mut Owned<'_, '_>) -> Result<Answer, Unreadable> {
    let copy = owned.copy;
    let start = copy.range(kind::EXPIRY).start;
    let end = expiry::key(copy, TenantTime(owned.now().0.saturating_add(1)), &[]);
    let mut planned = Vec::new();
    for row in owned
        .context
        .rows
        .range(&start..&end, Order::Ascending)
        .take(EXPIRED_MAX)
    {
        let (row, _) = row?;
        let (time, key) = expiry::parse_key(row)?;
        let before = owned.current(&key)?;
        if before.and_then(|before| before.live?.expires) != Some(time) {
            let what = "expiry of a key";
            return Err(Malformed { what }.into());
        }
        planned.push(Planned {
            key,
            before,
            value: None,
        });
    }
    let mut answer = Answer::Unchanged(owned.evaluated());
    if !planned.is_empty() && !planted::is(Bug::NeverExpired) {
        let Some(at) = owned.commit(Remember::default(), Cause::Expiry, planned.into_iter()) else {
            return Ok(exhausted());
        };
        answer = Answer::Written(Written {
            revision: at.revision,
            time: at.time,
            index: at.index,
            previous: None,
            repeated: false,
            made: None,
        });
    }
    owned.tenant.next_expiry = expiry::next(owned.context.rows, copy)?;
    Ok(answer)
}
