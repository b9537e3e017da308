//! `Attach` and `Detach`: whether the stream's offset speaks for a tenant.

use bytes::Bytes;
use stead_types::{Epoch, GroupId, Incarnation, Revision, TenantNumber};

use super::{epoch, group, kind, revision, start, tenant, write_epoch, write_group};
use crate::{
    codec::{Malformed, Reader},
    lineage::Lineage,
};

/// A tenant joins its home's stream: from here on every batch has its records, in order.
///
/// Guard: follower of that home at the session's epoch, with the position reached and a history that is the home's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// The tenant.
    pub tenant: TenantNumber,
    /// The home group.
    pub home: GroupId,
    /// The home group's incarnation.
    pub incarnation: Incarnation,
    /// The session's epoch.
    pub epoch: Epoch,
    /// The tenant's last change that the home sent before the attach.
    pub position: Revision,
    /// The home's lineage.
    pub lineage: Lineage,
}

impl Attach {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::ATTACH, self.tenant, 48);
        write_group(&mut w, self.home);
        w.varint(u64::from(self.incarnation.0));
        write_epoch(&mut w, self.epoch);
        w.varint(self.position.to_u64());
        self.lineage.encode(&mut w);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            home: group(r)?,
            incarnation: Incarnation(r.varint_u32()?),
            epoch: epoch(r)?,
            position: revision(r)?,
            lineage: Lineage::decode(r)?,
        })
    }
}

/// A tenant leaves its home's stream. Guard: it is attached there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detach {
    /// The tenant.
    pub tenant: TenantNumber,
    /// The home group.
    pub home: GroupId,
}

impl Detach {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::DETACH, self.tenant, 5);
        write_group(&mut w, self.home);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            home: group(r)?,
        })
    }
}
