//! `Write`: what a caller wants changed in one tenant.

use bytes::Bytes;
use stead_types::{ClientId, IdempotencyKey, Revision, TenantNumber, TenantTime};

use super::{kind, start, tenant};
use crate::{
    codec::{Malformed, Reader, Writer},
    shard::digest,
};

const PUT: u8 = 1;
const DELETE: u8 = 2;

/// A caller's write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Write {
    /// Of which tenant.
    pub tenant: TenantNumber,
    /// By which a repeat is known.
    pub idempotency: Option<IdempotencyKey>,
    /// Hash of the operation, so that a key used for another one is noticed.
    pub request: u64,
    /// What to do.
    pub operation: Operation,
}

/// What a write does.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Operation {
    /// Sets a key.
    Put {
        /// The key.
        key: Bytes,
        /// What it shall hold.
        value: Bytes,
        /// Only if this holds.
        condition: Option<Condition>,
        /// Whether the version before is wanted in the answer.
        previous: bool,
    },
    /// Removes a key.
    Delete {
        /// The key.
        key: Bytes,
        /// Only if this holds.
        condition: Option<Condition>,
        /// Whether the version before is wanted in the answer.
        previous: bool,
    },
}

/// What must hold of a key.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Condition {
    /// It does not exist.
    Absent,
    /// It exists.
    Exists,
    /// Its last change is this one.
    Revision(Revision),
}

impl Write {
    /// Returns the write of this operation, its hash included.
    pub fn new(tenant: TenantNumber, idempotency: Option<IdempotencyKey>, operation: Operation) -> Self {
        let request = match idempotency {
            Some(_) => {
                let mut w = Writer::with_capacity(operation.len());
                operation.encode(&mut w);
                digest::of_request(&w.finish())
            }
            None => 0,
        };
        Self {
            tenant,
            idempotency,
            request,
            operation,
        }
    }

    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::WRITE, self.tenant, 48 + self.operation.len());
        w.option(self.idempotency, |w, key| {
            w.u128(key.client.0)
                .varint(key.sequence)
                .varint(key.first_sent.0)
                .u64(self.request);
        });
        self.operation.encode(&mut w);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        let tenant = tenant(r)?;
        let idempotency = r.option(|r| {
            let key = IdempotencyKey {
                client: ClientId(r.u128()?),
                sequence: r.varint()?,
                first_sent: TenantTime(r.varint()?),
            };
            Ok((key, r.u64()?))
        })?;
        Ok(Self {
            tenant,
            idempotency: idempotency.map(|(key, _)| key),
            request: idempotency.map_or(0, |(_, request)| request),
            operation: Operation::decode(r)?,
        })
    }
}

impl Operation {
    /// Returns about how many bytes it takes.
    pub fn len(&self) -> usize {
        match self {
            Self::Put { key, value, .. } => key.len() + value.len() + 24,
            Self::Delete { key, .. } => key.len() + 24,
        }
    }

    /// Tells whether it takes no bytes: never.
    pub fn is_empty(&self) -> bool {
        false
    }

    fn encode(&self, w: &mut Writer) {
        match self {
            Self::Put {
                key,
                value,
                condition,
                previous,
            } => {
                w.u8(PUT).bytes(key).bytes(value);
                write_condition(w, *condition, *previous);
            }
            Self::Delete {
                key,
                condition,
                previous,
            } => {
                w.u8(DELETE).bytes(key);
                write_condition(w, *condition, *previous);
            }
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        match r.u8()? {
            PUT => {
                let (key, value) = (r.bytes()?, r.bytes()?);
                let (condition, previous) = condition(r)?;
                Ok(Self::Put {
                    key,
                    value,
                    condition,
                    previous,
                })
            }
            DELETE => {
                let key = r.bytes()?;
                let (condition, previous) = condition(r)?;
                Ok(Self::Delete {
                    key,
                    condition,
                    previous,
                })
            }
            0 | 3.. => Err(r.malformed()),
        }
    }
}

fn write_condition(w: &mut Writer, condition: Option<Condition>, previous: bool) {
    match condition {
        None => w.u8(0),
        Some(Condition::Absent) => w.u8(1),
        Some(Condition::Exists) => w.u8(2),
        Some(Condition::Revision(revision)) => w.u8(3).u64(revision.to_u64()),
    };
    w.bool(previous);
}

fn condition(r: &mut Reader) -> Result<(Option<Condition>, bool), Malformed> {
    let condition = match r.u8()? {
        0 => None,
        1 => Some(Condition::Absent),
        2 => Some(Condition::Exists),
        3 => Some(Condition::Revision(Revision::from_u64(r.u64()?))),
        4.. => return Err(r.malformed()),
    };
    Ok((condition, r.bool()?))
}
