//! An owner's copy of a tenant while a caller's command is executed: what conditions and effects are evaluated against,
//! and the one way in which changes are made.

use std::collections::BTreeMap;

use bytes::Bytes;
use stead_types::{
    Epoch, IdempotencyKey, Revision, Sequence, TenantNumber, TenantTime,
    planted::{self, Bug},
};

use super::{
    super::{
        Shard,
        answer::{Answer, Evaluated, Made, Refusal, Unfit, Void},
        append::{append, current},
        clients::Check,
        command::{Condition, EXPIRED_MAX, Effect, Increment, Operand, WindowLimits},
        counter::{self, Added},
        read::change_at,
        record::{Record, Role},
        tenant::Tenant,
        window::Remembered,
    },
    Context,
};
use crate::{
    codec::Malformed,
    lineage::Standing,
    rows::{
        Copy, Unreadable,
        chain::Chain,
        change::{Cause, Change, Value},
        current::Current,
        expiry,
    },
};

/// A tenant that this group owns, and the entry's context.
pub(super) struct Owned<'a, 'c> {
    pub(super) context: &'a mut Context<'c>,
    pub(super) tenant: &'a mut Tenant,
    pub(super) copy: Copy,
    epoch: Epoch,
    /// The changes that were made.
    wrote: Option<Wrote>,
}

/// The changes that a command made, from the first to the last, and how many bytes they wrote.
#[derive(Clone, Copy)]
struct Wrote {
    first: Revision,
    last: Revision,
    len: usize,
}

/// What a key is to hold, and what it held.
pub(super) struct Planned {
    pub(super) key: Bytes,
    pub(super) before: Option<Current>,
    /// Its bytes and when it expires; `None` for nothing.
    pub(super) value: Option<(Bytes, Option<TenantTime>)>,
}

/// What is remembered of a command.
#[derive(Clone, Copy, Default)]
pub(super) struct Remember {
    pub(super) idempotency: Option<IdempotencyKey>,
    pub(super) request: u64,
    pub(super) limits: WindowLimits,
}

/// What a write comes to.
pub(super) enum Effected {
    /// The key is to hold this, of which this is said.
    Holds(Option<(Bytes, Option<TenantTime>)>, Option<Made>),
    /// There is nothing to do.
    Unchanged,
    /// It cannot be done.
    Refused(Refusal),
}

/// Whether a condition holds.
pub(super) enum Verdict {
    Holds,
    Fails,
    /// It names a revision that a promotion cut.
    Forked {
        epoch: Epoch,
        kept: Sequence,
    },
}

/// What is known of a command with an idempotency key.
pub(super) enum Known {
    /// It was executed.
    Repeated(Remembered),
    /// It must not be executed.
    Refused(Answer),
}

impl Shard {
    /// Executes a caller's command about a tenant that this group owns.
    pub(super) fn execute(
        &mut self,
        context: &mut Context<'_>,
        number: TenantNumber,
        run: impl FnOnce(&mut Owned<'_, '_>) -> Result<Answer, Unreadable>,
    ) -> Result<Answer, Unreadable> {
        let Some(tenant) = self.tenants.get_mut(&number) else {
            return Ok(Answer::Void(Void::NoRecord));
        };
        let Some(epoch) = tenant.record.owned() else {
            return Ok(Answer::Void(not_owner(&tenant.record)));
        };
        let copy = self.place.copy(number, tenant.record.live.number);
        let due_before = tenant.next_expiry;
        let mut owned = Owned {
            context,
            tenant,
            copy,
            epoch,
            wrote: None,
        };
        let answer = run(&mut owned)?;
        let (wrote, due) = (owned.wrote, owned.tenant.next_expiry);
        if due != due_before {
            self.index_due(number, due_before, due);
        }
        if let Some(wrote) = wrote {
            self.touch(number, wrote.first, wrote.len);
            self.touch(number, wrote.last, 0);
        }
        Ok(answer)
    }
}

impl Owned<'_, '_> {
    fn record(&self) -> &Record {
        &self.tenant.record
    }

    /// The tenant's time now.
    pub(super) fn now(&self) -> TenantTime {
        self.record().live.time_at(self.context.time)
    }

    /// Where a command without effect is evaluated.
    pub(super) fn evaluated(&self) -> Evaluated {
        self.record().live.evaluated()
    }

    /// Looks a command up by its idempotency key; `None` if it is to be executed.
    pub(super) fn known(&self, idempotency: Option<&IdempotencyKey>, request: u64) -> Option<Known> {
        let live = &self.record().live;
        match self.tenant.clients.check(live, idempotency?, request) {
            Check::New => None,
            Check::Repeated(outcome) => Some(Known::Repeated(outcome)),
            Check::Reused => Some(Known::Refused(Answer::KeyReused(live.evaluated()))),
            Check::Expired { edge } => {
                let at = live.evaluated();
                Some(Known::Refused(Answer::Expired { edge, at }))
            }
        }
    }

    /// Removes those of these keys that are past their end, as changes of their own: whoever names a key finds it gone from
    /// then on. Returns false if the tenant has used up its sequences.
    pub(super) fn remove_past_end<'k>(&mut self, keys: impl Iterator<Item = &'k Bytes>) -> Result<bool, Unreadable> {
        let now = self.now();
        if self.tenant.next_expiry.is_none_or(|next| now < next) {
            return Ok(true);
        }
        let mut past = BTreeMap::new();
        for key in keys {
            if let Some(before) = self.current(key)?.filter(|before| before.is_past_end(now)) {
                past.insert(key.clone(), before);
            }
        }
        let gone = |(key, before)| Planned {
            key,
            before: Some(before),
            value: None,
        };
        self.expire(past.into_iter().map(gone).collect())
    }

    /// Makes the changes that say that keys are past their end. Returns false if the tenant has used up its sequences.
    pub(super) fn expire(&mut self, mut past: Vec<Planned>) -> Result<bool, Unreadable> {
        if past.is_empty() {
            return Ok(true);
        }
        while !past.is_empty() {
            let rest = past.split_off(past.len().min(EXPIRED_MAX));
            let step = std::mem::replace(&mut past, rest);
            if self
                .commit(Remember::default(), Cause::Expiry, step.into_iter())
                .is_none()
            {
                return Ok(false);
            }
        }
        self.tenant.next_expiry = expiry::next(self.context.rows, self.copy)?;
        Ok(true)
    }

    /// Reads what is current at a key.
    pub(super) fn current(&self, key: &[u8]) -> Result<Option<Current>, Unreadable> {
        current(self.context.rows, self.copy, key)
    }

    /// Evaluates a condition on a key.
    pub(super) fn verdict(&self, before: Option<Current>, condition: &Condition) -> Result<Verdict, Unreadable> {
        let live = before.and_then(|before| Some((before.revision, before.live?)));
        let (relation, operand) = match condition {
            Condition::Absent if live.is_none() => return Ok(Verdict::Holds),
            Condition::Exists if live.is_some() => return Ok(Verdict::Holds),
            Condition::Absent | Condition::Exists => return Ok(Verdict::Fails),
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
        // What equals the key's own revision is on its lineage.
        if let (Operand::Modified(wanted) | Operand::Created(wanted), true) =
            (operand, ordering.is_none_or(std::cmp::Ordering::is_ne))
            && let Standing::Cut { kept } = self.record().lineage.standing(*wanted)
        {
            let epoch = wanted.epoch();
            return Ok(Verdict::Forked { epoch, kept });
        }
        Ok(match ordering {
            Some(ordering) if relation.admits(ordering) => Verdict::Holds,
            Some(_) | None => Verdict::Fails,
        })
    }

    /// Reads the bytes of a live key, and when they were written.
    fn value(&self, before: Option<Current>) -> Result<Option<(Bytes, TenantTime)>, Unreadable> {
        let Some(before) = before.filter(|before| before.live.is_some()) else {
            return Ok(None);
        };
        let change = change_at(self.context.rows, self.copy, (before.revision, before.effect))?;
        let held = change.and_then(|change| Some((change.value?.bytes, change.time)));
        Ok(Some(held.ok_or(Malformed {
            what: "current version",
        })?))
    }

    /// Works out what a write makes of a key.
    pub(super) fn effected(&self, before: Option<Current>, effect: Effect) -> Result<Effected, Unreadable> {
        let live = before.and_then(|before| before.live);
        // What changes a value leaves the key's time as it is.
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
                Effected::Holds(Some((value, expires)), None)
            }
            Effect::Delete if live.is_none() => Effected::Unchanged,
            Effect::Delete => Effected::Holds(None, None),
            Effect::Increment(increment) => match self.incremented(before, increment)? {
                Ok(number) => {
                    let bytes = counter::write(number).into();
                    Effected::Holds(Some((bytes, expires)), Some(Made::Number(number)))
                }
                Err(refusal) => Effected::Refused(refusal),
            },
            Effect::Append { bytes, len_max } => {
                let held = self.value(before)?.map_or_else(Bytes::new, |(held, _)| held);
                let len = held.len() + bytes.len();
                if len > len_max as usize {
                    let len = held.len() as u64;
                    Effected::Refused(Refusal::Unfit(Unfit::TooLong { len }))
                } else {
                    let bytes = [held, bytes].concat().into();
                    Effected::Holds(Some((bytes, expires)), Some(Made::Length(len as u64)))
                }
            }
        })
    }

    fn incremented(&self, before: Option<Current>, increment: Increment) -> Result<Result<i64, Refusal>, Unreadable> {
        let held = self.value(before)?;
        let held = held.as_ref().map(|(value, since)| (value.as_ref(), *since));
        Ok(match counter::add(held, increment, self.now()) {
            Ok(Added::To(number)) => Ok(number),
            Ok(Added::BoundReached(number)) => Err(Refusal::BoundReached(number)),
            Err(unfit) => Err(Refusal::Unfit(unfit)),
        })
    }

    /// Makes one change of these keys, and remembers the command. `None`: the tenant has used up its sequences.
    pub(super) fn commit(
        &mut self,
        Remember {
            idempotency,
            request,
            limits,
        }: Remember,
        cause: Cause,
        planned: impl ExactSizeIterator<Item = Planned>,
    ) -> Option<Evaluated> {
        let sequence = self.record().live.revision.sequence().next()?;
        let revision = Revision::new(self.epoch, sequence);
        let time = self.tenant.record.live.move_time(self.context.time);
        let mut outcome = idempotency.map(|key| self.tenant.clients.outcome(&key, request, (time, limits)));
        let Tenant {
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
                chain: Chain::default(),
                outcome: outcome.take(),
                key: planned.key,
                value,
            };
            len += change.len();
            let expires = change.value.as_ref().and_then(|value| value.expires);
            *next_expiry = [*next_expiry, expires].into_iter().flatten().min();
            clients.remember(&mut record.live, &change, |_| true);
            append(self.context.rows, self.copy, &mut record.live, planned.before, change);
        }
        *dirty = true;
        let first = self.wrote.map_or(revision, |wrote| wrote.first);
        self.wrote = Some(Wrote {
            first,
            last: revision,
            len: len + self.wrote.map_or(0, |wrote| wrote.len),
        });
        Some(self.evaluated())
    }
}

fn value_after(before: Option<Current>, revision: Revision, bytes: Bytes, expires: Option<TenantTime>) -> Value {
    let live = before.and_then(|before| before.live);
    Value {
        create: live.map_or(revision, |live| live.create),
        version: live.map_or(1, |live| live.version + 1),
        expires,
        bytes,
    }
}

/// The answer to a command that cannot have a revision any more.
pub(super) fn exhausted() -> Answer {
    Answer::Void(Void::Exhausted)
}

fn not_owner(record: &Record) -> Void {
    let to = match record.role {
        Role::Relinquished { to, .. } => Some(to),
        Role::Owner | Role::Follower { .. } | Role::Heir { .. } | Role::Frozen { .. } | Role::Erased => None,
    };
    Void::NotOwner { to }
}
