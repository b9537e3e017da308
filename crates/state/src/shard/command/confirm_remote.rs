//! `ConfirmRemote`: up to where another region has a tenant's changes, so that a new leader of the home goes on from there.

use bytes::Bytes;
use stead_types::{Epoch, TenantNumber};

use super::{epoch, kind, start, tenant, write_epoch};
use crate::codec::{Malformed, Reader};

/// Raises the remote watermark of a tenant. Guard: owner in that epoch; above the one before, and not above the last change.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ConfirmRemote {
    /// The tenant.
    pub tenant: TenantNumber,
    /// The epoch in which followers have acknowledged.
    pub epoch: Epoch,
    /// Log index up to which a counted follower in another region has applied the tenant's changes.
    pub index: u64,
}

impl ConfirmRemote {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::CONFIRM_REMOTE, self.tenant, 16);
        write_epoch(&mut w, self.epoch);
        w.varint(self.index);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            epoch: epoch(r)?,
            index: r.varint()?,
        })
    }
}
