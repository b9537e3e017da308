//! Execution of callers' commands on an owned tenant: evaluates conditions and effects, and is the one way in which
//! changes are made.

use std::collections::BTreeMap;

use bytes::Bytes;
use stead_types::{
    Epoch, IdempotencyKey, Revision, TenantNumber, TenantTime,
    planted::{self, Bug},
};

use super::{
    super::{
        Shard,
        append::{append, current},
        apply_result::{ApplyResult, EvaluationPoint, GuardFailure, ValueError, WriteFailure, WriteOutput},
        client_windows::IdempotencyCheck,
        command::{Condition, EXPIRED_MAX, Effect, Increment, Operand, WindowLimits},
        counter::{self, IncrementOutcome},
        idempotency_window::IdempotencyRecord,
        ownership::check_owner,
        read::change_at,
        record::TenantRecord,
        tenant::LoadedTenant,
    },
    EntryContext,
};
use crate::{
    codec::Malformed,
    lineage::LostRevisions,
    rows::{
        CopyPrefix, Unreadable,
        chain::VersionChain,
        change::{Cause, Change, NotedOperation, ReplayOrigin, Value},
        current::CurrentVersion,
        expiry,
    },
};

/// An owned tenant, and the context of the entry.
pub(super) struct OwnedTenant<'a, 'c> {
    pub(super) context: &'a mut EntryContext<'c>,
    pub(super) tenant: &'a mut LoadedTenant,
    pub(super) copy: CopyPrefix,
    epoch: Epoch,
    /// Changes made so far.
    span: Option<ChangeSpan>,
}

/// Span of the changes that a command made, and the bytes that they wrote.
#[derive(Clone, Copy)]
struct ChangeSpan {
    first: Revision,
    last: Revision,
    len: usize,
}

/// Planned change of one key: its current version and its new value.
pub(super) struct PlannedChange {
    pub(super) key: Bytes,
    pub(super) before: Option<CurrentVersion>,
    /// Operation that the change notes.
    pub(super) operation: Option<NotedOperation>,
    /// Whether it is a replay over what others have changed.
    pub(super) over_others: bool,
    /// New bytes and expiry; `None` for a delete.
    pub(super) value: Option<(Bytes, Option<TenantTime>)>,
}

/// Idempotency data of a command.
#[derive(Clone, Copy, Default)]
pub(super) struct IdempotencyRequest {
    pub(super) idempotency: Option<IdempotencyKey>,
    pub(super) request: u64,
    pub(super) limits: WindowLimits,
    /// Change of a fork that the command writes again.
    pub(super) origin: Option<ReplayOrigin>,
}

/// Result of evaluating an effect.
pub(super) enum EffectResult {
    /// The new value of the key, and the output for the response.
    Value(Option<(Bytes, Option<TenantTime>)>, Option<WriteOutput>),
    /// There is nothing to change.
    Unchanged,
    /// The effect cannot be applied.
    Failed(WriteFailure),
}

/// Result of evaluating a condition.
pub(super) enum ConditionResult {
    Holds,
    Fails,
    /// It names a revision that a promotion cut.
    Forked(LostRevisions),
}

/// Earlier outcome of a command with an idempotency key.
pub(super) enum PriorOutcome {
    /// The command was executed before.
    Repeated(IdempotencyRecord),
    /// The command must not be executed.
    Rejected(ApplyResult),
}

impl Shard {
    /// Executes a caller's command on a tenant that this group owns.
    pub(super) fn execute(
        &mut self,
        context: &mut EntryContext<'_>,
        number: TenantNumber,
        run: impl FnOnce(&mut OwnedTenant<'_, '_>) -> Result<ApplyResult, Unreadable>,
    ) -> Result<ApplyResult, Unreadable> {
        let Some(tenant) = self.tenants.get_mut(&number) else {
            return Ok(ApplyResult::GuardFailed(GuardFailure::NoRecord));
        };
        let epoch = match check_owner(&tenant.record) {
            Ok(epoch) => epoch,
            Err(failure) => return Ok(ApplyResult::GuardFailed(failure)),
        };
        let copy = self.prefix.copy(number, tenant.record.live.number);
        let due_before = tenant.next_expiry;
        let mut owned = OwnedTenant {
            context,
            tenant,
            copy,
            epoch,
            span: None,
        };
        let result = run(&mut owned)?;
        let (span, due) = (owned.span, owned.tenant.next_expiry);
        if due != due_before {
            self.index_due(number, due_before, due);
        }
        if let Some(span) = span {
            self.touch(number, span.first, span.len);
            self.touch(number, span.last, 0);
        }
        Ok(result)
    }
}

impl OwnedTenant<'_, '_> {
    fn record(&self) -> &TenantRecord {
        &self.tenant.record
    }

    /// Returns the current tenant time.
    pub(super) fn now(&self) -> TenantTime {
        self.record().live.time_at(self.context.time)
    }

    /// Returns the state that a command without effect is evaluated against.
    pub(super) fn evaluation_point(&self) -> EvaluationPoint {
        self.record().live.evaluation_point()
    }

    /// Looks up a command by its idempotency key; `None` if it is to be executed.
    pub(super) fn prior_outcome(&self, idempotency: Option<&IdempotencyKey>, request: u64) -> Option<PriorOutcome> {
        let live = &self.record().live;
        match self.tenant.clients.check(live, idempotency?, request) {
            IdempotencyCheck::New => None,
            IdempotencyCheck::Repeated(outcome) => Some(PriorOutcome::Repeated(outcome)),
            IdempotencyCheck::Reused => Some(PriorOutcome::Rejected(ApplyResult::KeyReused(live.evaluation_point()))),
            IdempotencyCheck::Expired { edge } => {
                let at = live.evaluation_point();
                Some(PriorOutcome::Rejected(ApplyResult::Expired { edge, at }))
            }
        }
    }

    /// Removes those of these keys that have expired, as changes of their own: commands that name a key find it
    /// deleted from then on. Returns false if the tenant has used up its sequences.
    pub(super) fn remove_expired_keys<'k>(
        &mut self,
        keys: impl Iterator<Item = &'k Bytes>,
    ) -> Result<bool, Unreadable> {
        let now = self.now();
        if self.tenant.next_expiry.is_none_or(|next| now < next) {
            return Ok(true);
        }
        let mut past = BTreeMap::new();
        for key in keys {
            if let Some(before) = self.current(key)?.filter(|before| before.has_expired(now)) {
                past.insert(key.clone(), before);
            }
        }
        let gone = |(key, before)| PlannedChange {
            key,
            before: Some(before),
            operation: None,
            over_others: false,
            value: None,
        };
        self.expire(past.into_iter().map(gone).collect())
    }

    /// Makes the changes that remove expired keys. Returns false if the tenant has used up its sequences.
    pub(super) fn expire(&mut self, mut past: Vec<PlannedChange>) -> Result<bool, Unreadable> {
        if past.is_empty() {
            return Ok(true);
        }
        while !past.is_empty() {
            let rest = past.split_off(past.len().min(EXPIRED_MAX));
            let step = std::mem::replace(&mut past, rest);
            if self
                .commit(IdempotencyRequest::default(), Cause::Expiry, step.into_iter())
                .is_none()
            {
                return Ok(false);
            }
        }
        self.tenant.next_expiry = expiry::next(self.context.rows, self.copy)?;
        Ok(true)
    }

    /// Reads the current version of a key.
    pub(super) fn current(&self, key: &[u8]) -> Result<Option<CurrentVersion>, Unreadable> {
        current(self.context.rows, self.copy, key)
    }

    /// Evaluates a condition on a key.
    pub(super) fn evaluate_condition(
        &self,
        before: Option<CurrentVersion>,
        condition: &Condition,
    ) -> Result<ConditionResult, Unreadable> {
        let live = before.and_then(|before| Some((before.revision, before.live?)));
        let (relation, operand) = match condition {
            Condition::Absent if live.is_none() => return Ok(ConditionResult::Holds),
            Condition::Exists if live.is_some() => return Ok(ConditionResult::Holds),
            Condition::Absent | Condition::Exists => return Ok(ConditionResult::Fails),
            Condition::Compared(relation, operand) => (*relation, operand),
        };
        let ordering = match (live, operand) {
            (None, _) => None,
            (Some((revision, _)), Operand::Modified(wanted)) => Some(revision.cmp(wanted)),
            (Some((_, live)), Operand::Created(wanted)) => Some(live.create.cmp(wanted)),
            (Some((_, live)), Operand::Version(wanted)) => Some(live.version.cmp(wanted)),
            (Some(_), Operand::Value(wanted)) => {
                let value = self.value(before)?;
                value.map(|(value, _)| value.as_ref().cmp(wanted.as_ref()))
            }
        };
        // A revision equal to the key's own is on the lineage.
        if let (Operand::Modified(wanted) | Operand::Created(wanted), true) =
            (operand, ordering.is_none_or(std::cmp::Ordering::is_ne))
            && let Some(lost) = self.record().lineage.lost(*wanted)
        {
            return Ok(ConditionResult::Forked(lost));
        }
        Ok(match ordering {
            Some(ordering) if relation.matches(ordering) => ConditionResult::Holds,
            Some(_) | None => ConditionResult::Fails,
        })
    }

    /// Reads the bytes of a live key, and the time at which they were written.
    fn value(&self, before: Option<CurrentVersion>) -> Result<Option<(Bytes, TenantTime)>, Unreadable> {
        let Some(before) = before.filter(|before| before.live.is_some()) else {
            return Ok(None);
        };
        let change = change_at(self.context.rows, self.copy, (before.revision, before.effect))?;
        let held = change.and_then(|change| Some((change.value?.bytes, change.time)));
        Ok(Some(held.ok_or(Malformed {
            what: "current version",
        })?))
    }

    /// Evaluates the effect of a write on a key.
    pub(super) fn evaluate_effect(
        &self,
        before: Option<CurrentVersion>,
        effect: Effect,
    ) -> Result<EffectResult, Unreadable> {
        let live = before.and_then(|before| before.live);
        // Increments and appends keep the key's expiry.
        let expires = live.and_then(|live| live.expires);
        Ok(match effect {
            Effect::Put { value, ttl } => {
                let ttl = ttl.map(|ttl| {
                    if planted::is(Bug::ExpiredTooEarly) {
                        ttl / 2
                    } else {
                        ttl
                    }
                });
                let expires = ttl.map(|ttl| TenantTime(self.now().0.saturating_add(ttl)));
                EffectResult::Value(Some((value, expires)), None)
            }
            Effect::Delete if live.is_none() => EffectResult::Unchanged,
            Effect::Delete => EffectResult::Value(None, None),
            Effect::Increment(increment) => match self.evaluate_increment(before, increment)? {
                Ok(number) => {
                    let bytes = counter::write(number).into();
                    EffectResult::Value(Some((bytes, expires)), Some(WriteOutput::Number(number)))
                }
                Err(refusal) => EffectResult::Failed(refusal),
            },
            Effect::Append { bytes, len_max } => {
                let held = self.value(before)?.map_or_else(Bytes::new, |(held, _)| held);
                let len = held.len() + bytes.len();
                if len > len_max as usize {
                    let len = held.len() as u64;
                    EffectResult::Failed(WriteFailure::Value(ValueError::TooLong { len }))
                } else {
                    let bytes = [held, bytes].concat().into();
                    EffectResult::Value(Some((bytes, expires)), Some(WriteOutput::Length(len as u64)))
                }
            }
        })
    }

    fn evaluate_increment(
        &self,
        before: Option<CurrentVersion>,
        increment: Increment,
    ) -> Result<Result<i64, WriteFailure>, Unreadable> {
        let held = self.value(before)?;
        let held = held.as_ref().map(|(value, since)| (value.as_ref(), *since));
        Ok(match counter::add(held, increment, self.now()) {
            Ok(IncrementOutcome::Value(number)) => Ok(number),
            Ok(IncrementOutcome::BoundReached(number)) => Err(WriteFailure::BoundReached(number)),
            Err(unfit) => Err(WriteFailure::Value(unfit)),
        })
    }

    /// Makes one change of these keys, and records the command in the idempotency window. `None`: the tenant has used
    /// up its sequences.
    pub(super) fn commit(
        &mut self,
        IdempotencyRequest {
            idempotency,
            request,
            limits,
            origin,
        }: IdempotencyRequest,
        cause: Cause,
        planned: impl ExactSizeIterator<Item = PlannedChange>,
    ) -> Option<EvaluationPoint> {
        let sequence = self.record().live.revision.sequence().next()?;
        let revision = Revision::new(self.epoch, sequence);
        let time = self.tenant.record.live.move_time(self.context.time);
        let mut outcome = idempotency.map(|key| self.tenant.clients.plan_outcome(&key, request, time, limits));
        let LoadedTenant {
            record,
            clients,
            next_expiry,
            dirty,
            ..
        } = &mut *self.tenant;
        record.live.revision = revision;
        record.live.index = self.context.index;
        self.context.effects += planned.len();
        let (mut len, last) = (0, planned.len() - 1);
        for (effect, planned) in planned.enumerate() {
            let value = planned
                .value
                .map(|(bytes, expires)| value_after(planned.before, revision, bytes, expires));
            let change = Change {
                revision,
                effect: u16::try_from(effect).expect("a change has at most 512 effects"),
                more: effect < last,
                cause,
                time,
                previous: None,
                chain: VersionChain::default(),
                outcome: outcome.take(),
                operation: planned.operation,
                origin: origin.map(|origin| ReplayOrigin {
                    over_others: planned.over_others,
                    ..origin
                }),
                key: planned.key,
                value,
            };
            len += change.len();
            let expires = change.value.as_ref().and_then(|value| value.expires);
            *next_expiry = [*next_expiry, expires].into_iter().flatten().min();
            clients.apply_outcome(&mut record.live, &change, |_| true);
            append(self.context.rows, self.copy, &mut record.live, planned.before, change);
        }
        *dirty = true;
        let first = self.span.map_or(revision, |span| span.first);
        self.span = Some(ChangeSpan {
            first,
            last: revision,
            len: len + self.span.map_or(0, |span| span.len),
        });
        Some(self.evaluation_point())
    }
}

/// Returns what a change notes of the operation that makes it, where it can be done again upon another value.
pub(super) fn noted(effect: &Effect) -> Option<NotedOperation> {
    match effect {
        Effect::Increment(increment) => Some(NotedOperation::Increment(*increment)),
        Effect::Append { bytes, len_max } => Some(NotedOperation::Append {
            len: u32::try_from(bytes.len()).unwrap_or(u32::MAX),
            len_max: *len_max,
        }),
        Effect::Put { .. } | Effect::Delete => None,
    }
}

fn value_after(before: Option<CurrentVersion>, revision: Revision, bytes: Bytes, expires: Option<TenantTime>) -> Value {
    let live = before.and_then(|before| before.live);
    Value {
        create: live.map_or(revision, |live| live.create),
        version: live.map_or(1, |live| live.version + 1),
        expires,
        bytes,
    }
}

/// Returns the result of a command for which no sequence is left.
pub(super) fn sequences_exhausted() -> ApplyResult {
    ApplyResult::GuardFailed(GuardFailure::SequencesExhausted)
}
