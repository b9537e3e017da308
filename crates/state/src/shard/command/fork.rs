//! `ContinueRewind` and `DiscardFork`: what becomes of what a promotion cut.

use bytes::Bytes;
use stead_types::TenantNumber;

use super::{kind, start, tenant};
use crate::codec::{Malformed, Reader};

/// Goes on with the rewind of a tenant's live copy by a bounded step. Without one under way it changes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContinueRewind {
    /// The tenant.
    pub tenant: TenantNumber,
}

/// Drops a fork, because an operator has said so. Guard: the group holds a fork of that number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DiscardFork {
    /// The tenant.
    pub tenant: TenantNumber,
    /// Number of the fork.
    pub fork: u32,
}

impl ContinueRewind {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        start(kind::CONTINUE_REWIND, self.tenant, 0).finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self { tenant: tenant(r)? })
    }
}

impl DiscardFork {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::DISCARD_FORK, self.tenant, 5);
        w.varint(u64::from(self.fork));
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            fork: r.varint_u32()?,
        })
    }
}
