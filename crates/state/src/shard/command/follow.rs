//! `Follow`: makes this group a follower of the home that the directory records.

use bytes::Bytes;
use stead_types::{DirectoryVersion, Epoch, GroupId, TenantNumber};

use super::{epoch, group, kind, start, tenant, version, write_epoch, write_group, write_version};
use crate::{
    codec::{Malformed, Reader},
    lineage::Lineage,
};

/// Follows another home. Guard: the epoch is above the record's and not below what it has promised.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Follow {
    /// The tenant.
    pub tenant: TenantNumber,
    /// Directory version of the view that it was derived from.
    pub version: DirectoryVersion,
    /// The recorded home.
    pub home: GroupId,
    /// The recorded epoch.
    pub epoch: Epoch,
    /// The recorded lineage, up to that epoch.
    pub lineage: Lineage,
}

impl Follow {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::FOLLOW, self.tenant, 48);
        write_version(&mut w, self.version);
        write_group(&mut w, self.home);
        write_epoch(&mut w, self.epoch);
        self.lineage.encode(&mut w);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            version: version(r)?,
            home: group(r)?,
            epoch: epoch(r)?,
            lineage: Lineage::decode(r)?,
        })
    }
}
