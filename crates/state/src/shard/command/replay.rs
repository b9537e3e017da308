//! `Replay`: a change that a promotion cut is written again at the tenant's home, once.

use bytes::Bytes;
use stead_types::{ClientId, GroupId, Revision, Sequence, TenantNumber, TenantTime};

use super::{Increment, WindowLimits, kind, start, tenant};
use crate::{
    codec::{Malformed, Reader, Writer},
    lineage::Lineage,
    rows::change::{EFFECTS_MAX, NotedOperation, ReplayOrigin},
};

const EXPIRY: u8 = 1;
const INCREMENT: u8 = 1;
const APPEND: u8 = 2;

/// Writes a change of a fork again, unless it was before. Proposed from feature level 4 on.
///
/// Guard: owner. What becomes of the change is decided against the owner's keys, windows and lineage alone
/// ([`crate::shard::replay::decide`]); it is written if its class is among those that the command allows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Replay {
    /// The tenant.
    pub tenant: TenantNumber,
    /// The change that was cut, by which it is remembered, and the fork that it was read from.
    pub origin: ReplayOrigin,
    /// Fork point: the fork's lineage and the tenant's share the changes up to it at most.
    pub point: Sequence,
    /// Lineage that the fork belongs to.
    pub lineage: Lineage,
    /// Tenant time of the change.
    pub time: TenantTime,
    /// Whether the change removed expired keys.
    pub is_expiry: bool,
    /// Idempotency key of the write, without its stamp, and the hash of the request.
    pub write: Option<ReplayedWrite>,
    /// Limits of the idempotency windows.
    pub limits: WindowLimits,
    /// Classes that are written.
    pub allowed: ReplayClasses,
    /// Effects of the change, in their order.
    pub effects: Vec<ReplayEffect>,
}

/// Write with an idempotency key that a promotion cut.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReplayedWrite {
    /// Client that wrote.
    pub client: ClientId,
    /// Sequence of the write.
    pub sequence: u64,
    /// Hash of the request.
    pub request: u64,
}

/// Classes of changes of a fork that a replay writes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ReplayClasses {
    /// Changes of keys that nobody has changed since.
    pub clean: bool,
    /// Increments and appends upon what others have written since.
    pub commutative: bool,
    /// Commutative changes that their clients may have sent again: the windows no longer reach back as far.
    pub uncertain: bool,
    /// Changes that replace what others have written since.
    pub conflict: bool,
    /// Changes whose time is over.
    pub expired: bool,
}

/// Effect of a change that was cut, on one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ReplayEffect {
    /// The key.
    pub key: Bytes,
    /// Value and expiry that the change gave it; `None` for a delete. Of an operation that was noted only the bytes that it
    /// needs: those that an append added, none of an increment.
    pub value: Option<(Bytes, Option<TenantTime>)>,
    /// Whether the key certainly did not exist at the fork point.
    pub was_absent: bool,
    /// Operation that made the value, where the change notes it.
    pub operation: Option<NotedOperation>,
}

impl ReplayClasses {
    const CLEAN: u8 = 1;
    const COMMUTATIVE: u8 = 1 << 1;
    const UNCERTAIN: u8 = 1 << 2;
    const CONFLICT: u8 = 1 << 3;
    const EXPIRED: u8 = 1 << 4;

    fn bits(self) -> u8 {
        let bit = |on: bool, bit: u8| if on { bit } else { 0 };
        bit(self.clean, Self::CLEAN)
            | bit(self.commutative, Self::COMMUTATIVE)
            | bit(self.uncertain, Self::UNCERTAIN)
            | bit(self.conflict, Self::CONFLICT)
            | bit(self.expired, Self::EXPIRED)
    }

    fn of_bits(bits: u8) -> Option<Self> {
        let classes = Self {
            clean: bits & Self::CLEAN != 0,
            commutative: bits & Self::COMMUTATIVE != 0,
            uncertain: bits & Self::UNCERTAIN != 0,
            conflict: bits & Self::CONFLICT != 0,
            expired: bits & Self::EXPIRED != 0,
        };
        (classes.bits() == bits).then_some(classes)
    }
}

impl ReplayEffect {
    fn len(&self) -> usize {
        self.key.len() + self.value.as_ref().map_or(0, |(bytes, _)| bytes.len()) + 64
    }

    fn encode(&self, w: &mut Writer) {
        w.bytes(&self.key);
        w.option(self.value.as_ref(), |w, (bytes, expires)| {
            w.bytes(bytes).option(*expires, |w, expires| {
                w.varint(expires.0);
            });
        });
        w.bool(self.was_absent);
        w.option(self.operation, |w, operation| match operation {
            NotedOperation::Increment(increment) => increment.encode(w.u8(INCREMENT)),
            NotedOperation::Append { len, len_max } => {
                w.u8(APPEND).varint(u64::from(len)).varint(u64::from(len_max));
            }
        });
    }

    fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            key: r.bytes()?,
            value: r.option(|r| Ok((r.bytes()?, r.option(|r| Ok(TenantTime(r.varint()?)))?)))?,
            was_absent: r.bool()?,
            operation: r.option(|r| {
                Ok(match r.u8()? {
                    INCREMENT => NotedOperation::Increment(Increment::decode(r)?),
                    APPEND => NotedOperation::Append {
                        len: r.varint_u32()?,
                        len_max: r.varint_u32()?,
                    },
                    0 | 3.. => return Err(r.malformed()),
                })
            })?,
        })
    }
}

impl Replay {
    /// Returns the approximate encoded length.
    pub fn len(&self) -> usize {
        self.effects.iter().map(ReplayEffect::len).sum::<usize>() + 128
    }

    /// Returns false: a replay is never empty.
    pub fn is_empty(&self) -> bool {
        false
    }

    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::REPLAY, self.tenant, self.len());
        w.u64(self.origin.revision.to_u64())
            .varint(u64::from(self.origin.group.get()));
        w.varint(u64::from(self.origin.fork)).varint(self.point.get());
        self.lineage.encode(&mut w);
        w.varint(self.time.0).u8(if self.is_expiry { EXPIRY } else { 0 });
        w.option(self.write, |w, write| {
            w.u128(write.client.0).varint(write.sequence).u64(write.request);
        });
        w.varint(u64::from(self.limits.clients))
            .varint(u64::from(self.limits.outcomes));
        w.u8(self.allowed.bits());
        w.list(self.effects.iter(), |w, effect| effect.encode(w));
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        let replay = Self {
            tenant: tenant(r)?,
            origin: ReplayOrigin {
                revision: Revision::from_u64(r.u64()?),
                group: GroupId::new(r.varint_u32()?),
                fork: r.varint_u32()?,
                over_others: false,
            },
            point: super::sequence(r)?,
            lineage: Lineage::decode(r)?,
            time: TenantTime(r.varint()?),
            is_expiry: match r.u8()? {
                0 => false,
                EXPIRY => true,
                2.. => return Err(r.malformed()),
            },
            write: r.option(|r| {
                Ok(ReplayedWrite {
                    client: ClientId(r.u128()?),
                    sequence: r.varint()?,
                    request: r.u64()?,
                })
            })?,
            limits: WindowLimits {
                clients: r.varint_u32()?,
                outcomes: r.varint_u32()?,
            },
            allowed: {
                let bits = r.u8()?;
                ReplayClasses::of_bits(bits).ok_or_else(|| r.malformed())?
            },
            effects: r.list(ReplayEffect::decode)?,
        };
        if replay.effects.is_empty() || replay.effects.len() > EFFECTS_MAX {
            return Err(r.malformed());
        }
        Ok(replay)
    }
}
