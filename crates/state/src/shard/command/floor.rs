//! `Floor`: what a home's followers no longer need.

use bytes::Bytes;
use stead_types::{Revision, TenantNumber};

use super::{kind, revision, tenant};
use crate::codec::{Malformed, Reader, Writer};

/// What may be forgotten: of every owned tenant, what is older than its version as of `index`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Floor {
    /// The group's Raft index up to which every attached member has acknowledged, or that the cap has reached.
    pub index: u64,
    /// Tenants with a floor of their own, because a member of theirs is not attached; `index` does not move these.
    pub tenants: Vec<(TenantNumber, Revision)>,
}

impl Floor {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(12 + self.tenants.len() * 16);
        w.u8(kind::FLOOR).varint(self.index);
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
