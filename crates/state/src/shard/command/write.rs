//! `Write`: a caller's write of one key.

use bytes::Bytes;
use stead_types::{ClientId, IdempotencyKey, TenantLimit, TenantNumber, TenantTime};

use super::{Condition, condition, kind, start, tenant};
use crate::{
    codec::{Malformed, Reader, Writer},
    shard::digest,
};

const PUT: u8 = 1;
const DELETE: u8 = 2;
const INCREMENT: u8 = 3;
const APPEND: u8 = 4;
const PUT_EXPIRING: u8 = 5;

/// A caller's write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Tenant of the key.
    pub tenant: TenantNumber,
    /// Idempotency key, which identifies a repeat.
    pub idempotency: Option<IdempotencyKey>,
    /// Hash of the operation, so that the use of an idempotency key for another request is detected.
    pub request: u64,
    /// Limits of the idempotency window.
    pub limits: WindowLimits,
    /// Whether the change notes the operation that made its value: proposed from feature level 4 on.
    pub notes_operation: bool,
    /// The operation.
    pub operation: Operation,
}

/// Limits of a tenant's idempotency windows, as of the node that proposes a write with an idempotency key. Apply
/// keeps more where outcomes are too young to be evicted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowLimits {
    /// Number of clients.
    pub clients: u32,
    /// Number of outcomes of all clients.
    pub outcomes: u32,
}

impl Default for WindowLimits {
    fn default() -> Self {
        Self::of(TenantLimit::default_value)
    }
}

impl WindowLimits {
    /// Returns the window limits of a tenant.
    pub fn of(limit: impl Fn(TenantLimit) -> Option<u64>) -> Self {
        let read = |of| limit(of).and_then(|max| u32::try_from(max).ok()).unwrap_or(u32::MAX);
        Self {
            clients: read(TenantLimit::Clients),
            outcomes: read(TenantLimit::Outcomes),
        }
    }
}

/// Operation on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Operation {
    /// The key.
    pub key: Bytes,
    /// Precondition, if any.
    pub condition: Option<Condition>,
    /// Whether the response includes the version before.
    pub previous: bool,
    /// Effect on the key.
    pub effect: Effect,
}

/// Effect of a write on its key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Sets a value.
    Put {
        /// Bytes of the value.
        value: Bytes,
        /// Time to live in milliseconds of tenant time; `None`: until it is deleted.
        ttl: Option<u64>,
    },
    /// Deletes the key.
    Delete,
    /// Adds to the counter.
    Increment(Increment),
    /// Appends to the value.
    Append {
        /// Bytes to append.
        bytes: Bytes,
        /// Length limit of the value.
        len_max: u32,
    },
}

/// Increment of a counter, which does nothing where a bound would be passed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Increment {
    /// Number to add.
    pub delta: i64,
    /// Lower bound of the counter for a negative delta.
    pub floor: Option<i64>,
    /// Upper bound of the counter for a positive delta.
    pub ceiling: Option<i64>,
    /// Length of the counter's windows in milliseconds of tenant time, not zero: the counter restarts at zero with
    /// each window.
    pub window: Option<u64>,
}

impl Write {
    /// Returns the write of this operation with its hash.
    pub fn new(tenant: TenantNumber, idempotency: Option<IdempotencyKey>, operation: Operation) -> Self {
        Self {
            tenant,
            idempotency,
            request: request_hash(idempotency, |w| operation.encode(w)),
            limits: WindowLimits::default(),
            notes_operation: false,
            operation,
        }
    }

    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::WRITE, self.tenant, 48 + self.operation.len());
        write_idempotency(&mut w, self.idempotency, self.request, self.limits);
        self.operation.encode(&mut w);
        write_note(&mut w, self.notes_operation);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        let tenant = tenant(r)?;
        let (idempotency, request, limits) = read_idempotency(r)?;
        Ok(Self {
            tenant,
            idempotency,
            request,
            limits,
            operation: Operation::decode(r)?,
            notes_operation: read_note(r)?,
        })
    }
}

impl Increment {
    /// Writes the increment.
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.u64(self.delta.cast_unsigned());
        for bound in [self.floor, self.ceiling] {
            w.option(bound, |w, bound| {
                w.u64(bound.cast_unsigned());
            });
        }
        w.varint(self.window.unwrap_or(0));
    }

    /// Reads what [`Increment::encode`] wrote.
    pub(crate) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            delta: r.u64()?.cast_signed(),
            floor: r.option(Reader::u64)?.map(u64::cast_signed),
            ceiling: r.option(Reader::u64)?.map(u64::cast_signed),
            window: Some(r.varint()?).filter(|window| *window > 0),
        })
    }
}

impl Effect {
    /// Returns the effect of a put that does not expire.
    pub fn put(value: impl Into<Bytes>) -> Self {
        Self::Put {
            value: value.into(),
            ttl: None,
        }
    }
}

impl Operation {
    /// Returns an operation without condition.
    pub fn new(key: impl Into<Bytes>, effect: Effect) -> Self {
        Self {
            key: key.into(),
            condition: None,
            previous: false,
            effect,
        }
    }

    /// Returns the approximate encoded length.
    pub fn len(&self) -> usize {
        let len = match &self.effect {
            Effect::Put { value: bytes, .. } | Effect::Append { bytes, .. } => bytes.len(),
            Effect::Delete => 0,
            Effect::Increment(_) => 40,
        };
        self.key.len() + len + 24 + self.condition.as_ref().map_or(0, condition::len)
    }

    /// Returns false: an operation is never empty.
    pub fn is_empty(&self) -> bool {
        false
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        match &self.effect {
            Effect::Put { value, ttl: None } => {
                w.u8(PUT).bytes(&self.key).bytes(value);
            }
            Effect::Put { value, ttl: Some(ttl) } => {
                w.u8(PUT_EXPIRING).bytes(&self.key).bytes(value).varint(*ttl);
            }
            Effect::Delete => {
                w.u8(DELETE).bytes(&self.key);
            }
            Effect::Increment(increment) => increment.encode(w.u8(INCREMENT).bytes(&self.key)),
            Effect::Append { bytes, len_max } => {
                w.u8(APPEND).bytes(&self.key).bytes(bytes).varint(u64::from(*len_max));
            }
        }
        condition::encode(self.condition.as_ref(), w);
        w.bool(self.previous);
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        let kind = r.u8()?;
        let key = r.bytes()?;
        let effect = match kind {
            PUT | PUT_EXPIRING => Effect::Put {
                value: r.bytes()?,
                ttl: (kind == PUT_EXPIRING).then(|| r.varint()).transpose()?,
            },
            DELETE => Effect::Delete,
            INCREMENT => Effect::Increment(Increment::decode(r)?),
            APPEND => Effect::Append {
                bytes: r.bytes()?,
                len_max: r.varint_u32()?,
            },
            0 | 6.. => return Err(r.malformed()),
        };
        Ok(Self {
            key,
            condition: condition::decode(r)?,
            previous: r.bool()?,
            effect,
        })
    }
}

/// Writes the wish that operations be noted, at the end of a command: it is not part of the request, whose hash it would
/// change. Without it nothing is written, as by earlier versions.
pub(super) fn write_note(w: &mut Writer, notes_operation: bool) {
    if notes_operation {
        w.bool(true);
    }
}

pub(super) fn read_note(r: &mut Reader) -> Result<bool, Malformed> {
    if r.is_empty() { Ok(false) } else { r.bool() }
}

/// Returns the hash of a request, by which the use of an idempotency key for another request is detected; 0 without a
/// key.
pub(super) fn request_hash(idempotency: Option<IdempotencyKey>, encode: impl FnOnce(&mut Writer)) -> u64 {
    idempotency.map_or(0, |_| {
        let mut w = Writer::default();
        encode(&mut w);
        digest::of_request(&w.finish())
    })
}

pub(super) fn write_idempotency(
    w: &mut Writer,
    idempotency: Option<IdempotencyKey>,
    request: u64,
    limits: WindowLimits,
) {
    w.option(idempotency, |w, key| {
        w.u128(key.client.0)
            .varint(key.sequence)
            .varint(key.first_sent.0)
            .u64(request)
            .varint(u64::from(limits.clients))
            .varint(u64::from(limits.outcomes));
    });
}

pub(super) fn read_idempotency(r: &mut Reader) -> Result<(Option<IdempotencyKey>, u64, WindowLimits), Malformed> {
    let read = r.option(|r| {
        let key = IdempotencyKey {
            client: ClientId(r.u128()?),
            sequence: r.varint()?,
            first_sent: TenantTime(r.varint()?),
        };
        let request = r.u64()?;
        let limits = WindowLimits {
            clients: r.varint_u32()?,
            outcomes: r.varint_u32()?,
        };
        Ok((Some(key), request, limits))
    })?;
    Ok(read.unwrap_or_default())
}
