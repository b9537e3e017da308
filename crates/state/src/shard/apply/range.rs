//! Applies commands on many keys: range deletions of callers, and expiry.

use stead_types::{
    TenantTime,
    planted::{self, Bug},
};

use super::{
    super::{
        Shard,
        apply_result::{ApplyResult, DeleteRangeResult, WriteResult},
        command::{DeleteRange, EXPIRED_MAX, Expire, RANGE_KEYS_MAX},
    },
    EntryContext,
    owned::{IdempotencyRequest, OwnedTenant, PlannedChange, PriorOutcome, sequences_exhausted},
};
use crate::{
    codec::Malformed,
    rows::{Order, Unreadable, change::Cause, current, expiry, kind},
};

/// Most rows that a command looks at, tombstones included: those of all replicas are swept with the same entry.
pub(in crate::shard) const ROWS_MAX: usize = 8 * RANGE_KEYS_MAX;

impl Shard {
    pub(super) fn delete_range(
        &mut self,
        context: &mut EntryContext<'_>,
        range: DeleteRange,
    ) -> Result<ApplyResult, Unreadable> {
        self.execute(context, range.tenant, |owned| delete(owned, range))
    }

    pub(super) fn expire(&mut self, context: &mut EntryContext<'_>, expire: Expire) -> Result<ApplyResult, Unreadable> {
        self.execute(context, expire.tenant, remove_expired)
    }
}

fn delete(owned: &mut OwnedTenant<'_, '_>, range: DeleteRange) -> Result<ApplyResult, Unreadable> {
    match owned.prior_outcome(range.idempotency.as_ref(), range.request) {
        Some(PriorOutcome::Rejected(result)) => return Ok(result),
        Some(PriorOutcome::Repeated(outcome)) => {
            let mut at = owned.evaluation_point();
            at.revision = outcome.revision;
            return Ok(ApplyResult::DeleteRange(DeleteRangeResult {
                at,
                keys: 0,
                next: Some(range.start),
                repeated: true,
            }));
        }
        None => {}
    }
    let DeletionPlan { past, planned, next } = plan(owned, &range)?;
    if !owned.expire(past)? {
        return Ok(sequences_exhausted());
    }
    let keys = planned.len() as u64;
    let at = if planned.is_empty() {
        owned.evaluation_point()
    } else {
        let remember = IdempotencyRequest {
            idempotency: range.idempotency,
            request: range.request,
            limits: range.limits,
            origin: None,
        };
        match owned.commit(remember, Cause::Write, planned.into_iter()) {
            Some(at) => at,
            None => return Ok(sequences_exhausted()),
        }
    };
    Ok(ApplyResult::DeleteRange(DeleteRangeResult {
        at,
        keys,
        next,
        repeated: false,
    }))
}

/// First keys of a range to delete.
#[derive(Default)]
struct DeletionPlan {
    /// Expired keys, which are removed but not counted as deleted.
    past: Vec<PlannedChange>,
    planned: Vec<PlannedChange>,
    /// First key of the rest of the range.
    next: Option<bytes::Bytes>,
}

/// Finds the first keys of a range to delete, and where the rest begins.
fn plan(owned: &OwnedTenant<'_, '_>, range: &DeleteRange) -> Result<DeletionPlan, Unreadable> {
    let (copy, time) = (owned.copy, owned.now());
    let start = current::key(copy, &range.start);
    let end = match &range.end {
        Some(end) => current::key(copy, end),
        None => copy.range(kind::CURRENT).end,
    };
    let (mut plan, mut seen) = (DeletionPlan::default(), 0);
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
        let is_past = now.has_expired(time);
        let is_meant = range.as_of.is_none_or(|as_of| now.revision <= as_of);
        if now.live.is_some() && (is_past || is_meant) {
            let list = if is_past { &mut plan.past } else { &mut plan.planned };
            list.push(PlannedChange {
                key,
                before: Some(now),
                operation: None,
                over_others: false,
                value: None,
            });
        }
    }
    Ok(plan)
}

fn remove_expired(owned: &mut OwnedTenant<'_, '_>) -> Result<ApplyResult, Unreadable> {
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
        planned.push(PlannedChange {
            key,
            before,
            operation: None,
            over_others: false,
            value: None,
        });
    }
    let mut result = ApplyResult::Unchanged(owned.evaluation_point());
    if !planned.is_empty() && !planted::is(Bug::NeverExpired) {
        let Some(at) = owned.commit(IdempotencyRequest::default(), Cause::Expiry, planned.into_iter()) else {
            return Ok(sequences_exhausted());
        };
        result = ApplyResult::Write(WriteResult {
            revision: at.revision,
            time: at.time,
            index: at.index,
            previous: None,
            repeated: false,
            output: None,
        });
    }
    owned.tenant.next_expiry = expiry::next(owned.context.rows, copy)?;
    Ok(result)
}
