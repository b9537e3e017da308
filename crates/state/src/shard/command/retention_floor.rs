//! `RetentionFloor`: raises the retention floors of a home's tenants.

use bytes::Bytes;
use stead_types::{Revision, TenantNumber};

use super::{kind, revision, tenant};
use crate::codec::{Malformed, Reader, Writer};

/// Retention floor of a home: of every owned tenant, versions older than the one as of `index` may be removed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RetentionFloor {
    /// Log index up to which every attached member has acknowledged, or that the retention cap has reached.
    pub index: u64,
    /// Tenants with a retention floor of their own, because a member of theirs is not attached; `index` does not move
    /// these.
    pub tenants: Vec<(TenantNumber, Revision)>,
}

impl RetentionFloor {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(12 + self.tenants.len() * 16);
        w.u8(kind::RETENTION_FLOOR).varint(self.index);
        w.list(self.tenants.iter(), |w, (tenant, floor)| {
            w.varint(tenant.get()).varint(floor.to_u64());
        });
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            index: r.varint()?,
            tenants: r.list(|r| Ok((tenant(r)?, revision(r)?)))?,
        })
    }
}
