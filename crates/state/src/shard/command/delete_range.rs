//! `DeleteRange`: deletes the keys of a range, a bounded number with each command.

use bytes::Bytes;
use stead_types::{IdempotencyKey, Revision, TenantNumber};

use super::{
    WindowLimits, kind, start, tenant,
    write::{read_idempotency, request_hash, write_idempotency},
};
use crate::codec::{Malformed, Reader, Writer};

/// Most keys that one command deletes: as many effects as one change can have.
pub const RANGE_KEYS_MAX: usize = 512;

/// Approximate bytes of rows that a short command writes when it deletes this many keys: its weight where commands
/// are weighed by their bytes.
pub const REMOVAL_WORK: usize = RANGE_KEYS_MAX * 64;

/// Deletes the first keys of a range. The commands of a large range carry its idempotency key until one has deleted
/// something; those after that one name its revision and skip what was changed after it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeleteRange {
    /// Tenant of the range.
    pub tenant: TenantNumber,
    /// Idempotency key, which identifies a repeat.
    pub idempotency: Option<IdempotencyKey>,
    /// Hash of the range, so that the use of an idempotency key for another request is detected.
    pub request: u64,
    /// Limits of the idempotency window.
    pub limits: WindowLimits,
    /// First key.
    pub start: Bytes,
    /// First key after the range; `None` for the end of the tenant.
    pub end: Option<Bytes>,
    /// Revision after which changed keys are skipped.
    pub as_of: Option<Revision>,
}

impl DeleteRange {
    /// Returns the first command of a range, its hash included.
    pub fn new(tenant: TenantNumber, idempotency: Option<IdempotencyKey>, start: Bytes, end: Option<Bytes>) -> Self {
        Self {
            tenant,
            idempotency,
            request: request_hash(idempotency, |w| write_range(w, &start, end.as_ref())),
            limits: WindowLimits::default(),
            start,
            end,
            as_of: None,
        }
    }

    /// Returns the command that continues from a key, in a range whose first keys were deleted by the change
    /// `removed`. As long as none are, the idempotency key of the whole range stays with it: a change without the key
    /// would not be known to a repeat, which would delete what others have written meanwhile.
    pub(crate) fn from(&self, start: Bytes, removed: Option<Revision>) -> Self {
        let (idempotency, request, limits) = match removed {
            None => (self.idempotency, self.request, self.limits),
            Some(_) => (None, 0, WindowLimits::default()),
        };
        Self {
            tenant: self.tenant,
            idempotency,
            request,
            limits,
            start,
            end: self.end.clone(),
            as_of: removed,
        }
    }

    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let end_len = self.end.as_ref().map_or(0, Bytes::len);
        let mut w = start(kind::DELETE_RANGE, self.tenant, 64 + self.start.len() + end_len);
        write_idempotency(&mut w, self.idempotency, self.request, self.limits);
        write_range(&mut w, &self.start, self.end.as_ref());
        w.option(self.as_of, |w, as_of| {
            w.u64(as_of.to_u64());
        });
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
            start: r.bytes()?,
            end: r.option(Reader::bytes)?,
            as_of: r.option(|r| Ok(Revision::from_u64(r.u64()?)))?,
        })
    }
}

fn write_range(w: &mut Writer, start: &[u8], end: Option<&Bytes>) {
    w.bytes(start).option(end, |w, end| {
        w.bytes(end);
    });
}
