//! Applies `Replay`: writes a change of a fork again, with the record of it in the same change.

use stead_types::{IdempotencyKey, limits::CHANGE_LEN_MAX};

use super::{
    super::{
        Shard,
        apply_result::{ApplyResult, ReplayOutcome, ReplayResult, ValueError, WriteFailure},
        command::{Effect, Replay, ReplayEffect},
        read::{ForkClass, TenantReader},
        replay::{REPLAYS_MAX, ReplayDecision, ReplayKey, decide},
    },
    EntryContext,
    owned::{EffectResult, IdempotencyRequest, OwnedTenant, PlannedChange, sequences_exhausted},
};
use crate::rows::{
    Unreadable,
    change::{Cause, NotedOperation},
};

impl Shard {
    pub(super) fn replay(&mut self, context: &mut EntryContext<'_>, replay: Replay) -> Result<ApplyResult, Unreadable> {
        self.execute(context, replay.tenant, |owned| execute(owned, replay))
    }
}

fn execute(owned: &mut OwnedTenant<'_, '_>, replay: Replay) -> Result<ApplyResult, Unreadable> {
    // What was found is answered without a change, however often the replay is repeated.
    let mut decision = decide(&owned.reader(), &replay, owned.now())?;
    if decision.found.is_none() && replay.allowed.has(decision.class) {
        if !owned.remove_expired_keys(replay.effects.iter().map(|effect| &effect.key))? {
            return Ok(sequences_exhausted());
        }
        decision = decide(&owned.reader(), &replay, owned.now())?;
    }
    let touched = decision.touched(&replay);
    let class = decision.class;
    let result = |owned: &OwnedTenant<'_, '_>, outcome| {
        Ok(ApplyResult::Replay(ReplayResult {
            at: owned.evaluation_point(),
            class,
            outcome,
            touched,
        }))
    };
    if let Some(revision) = decision.found {
        return result(owned, ReplayOutcome::Found(revision));
    }
    if !replay.allowed.has(class) {
        return result(owned, ReplayOutcome::Left);
    }
    if owned.replays() >= REPLAYS_MAX {
        return result(owned, ReplayOutcome::NoRoom);
    }
    let planned = match plan(owned, &replay, &decision)? {
        Ok(planned) => planned,
        Err(failure) => return result(owned, ReplayOutcome::Failed(failure)),
    };
    if planned.is_empty() {
        return result(owned, ReplayOutcome::Nothing);
    }
    let remember = remember(owned, &replay);
    match owned.commit(remember, Cause::Write, planned.into_iter()) {
        Some(at) => result(owned, ReplayOutcome::Written(at.revision)),
        None => Ok(sequences_exhausted()),
    }
}

/// Returns what the change records: the change of the fork, and the outcome under the client's own idempotency key, so
/// that a client that sends the write again later is answered with the replay.
fn remember(owned: &OwnedTenant<'_, '_>, replay: &Replay) -> IdempotencyRequest {
    let window = |client| owned.tenant.clients.windows().get(&client);
    let write = replay.write;
    let write = write.filter(|write| window(write.client).is_none_or(|window| window.find(write.sequence).is_none()));
    IdempotencyRequest {
        idempotency: write.map(|write| IdempotencyKey {
            client: write.client,
            sequence: write.sequence,
            first_sent: replay.time,
        }),
        request: write.map_or(0, |write| write.request),
        limits: replay.limits,
        origin: Some(replay.origin),
    }
}

/// Plans the change: operations that were noted are done again, other keys get the value that was cut.
fn plan(
    owned: &OwnedTenant<'_, '_>,
    replay: &Replay,
    decision: &ReplayDecision,
) -> Result<Result<Vec<PlannedChange>, WriteFailure>, Unreadable> {
    let (mut planned, mut len) = (Vec::new(), 0);
    for (effect, key) in replay.effects.iter().zip(&decision.keys) {
        let change = match plan_key(owned, effect, key, decision.class)? {
            Ok(Some(change)) => change,
            Ok(None) => continue,
            Err(failure) => return Ok(Err(failure)),
        };
        len += change.key.len() + change.value.as_ref().map_or(0, |(bytes, _)| bytes.len());
        if len > CHANGE_LEN_MAX {
            let len = len as u64;
            return Ok(Err(WriteFailure::Value(ValueError::ChangeTooLong { len })));
        }
        planned.push(change);
    }
    Ok(Ok(planned))
}

fn plan_key(
    owned: &OwnedTenant<'_, '_>,
    effect: &ReplayEffect,
    key: &ReplayKey,
    class: ForkClass,
) -> Result<Result<Option<PlannedChange>, WriteFailure>, Unreadable> {
    let before = key.current;
    let again = match effect.operation {
        Some(NotedOperation::Increment(increment)) => Some(Effect::Increment(increment)),
        Some(NotedOperation::Append { len_max, .. }) => {
            let bytes = effect
                .value
                .as_ref()
                .map(|(bytes, _)| bytes.clone())
                .unwrap_or_default();
            Some(Effect::Append { bytes, len_max })
        }
        None => None,
    };
    let value = match (again, &effect.value) {
        (Some(again), _) => match owned.evaluate_effect(before, again)? {
            EffectResult::Value(value, _) => value,
            EffectResult::Unchanged => return Ok(Ok(None)),
            EffectResult::Failed(failure) => return Ok(Err(failure)),
        },
        // A value whose time is over is written without it, where an operator wants it all the same.
        (None, Some((bytes, expires))) => Some((bytes.clone(), expires.filter(|_| class != ForkClass::Expired))),
        (None, None) if before.is_none_or(|before| before.live.is_none()) => return Ok(Ok(None)),
        (None, None) => None,
    };
    Ok(Ok(Some(PlannedChange {
        key: effect.key.clone(),
        before,
        operation: effect.operation,
        over_others: key.is_touched,
        value,
    })))
}

impl OwnedTenant<'_, '_> {
    fn reader(&self) -> TenantReader<'_> {
        TenantReader {
            rows: &*self.context.rows,
            copy: self.copy,
            record: &self.tenant.record,
            clients: &self.tenant.clients,
            next_expiry: self.tenant.next_expiry,
        }
    }

    fn replays(&self) -> usize {
        let replays = self.tenant.clients.replays();
        replays.map_or(0, super::super::idempotency_window::IdempotencyWindow::len)
    }
}
