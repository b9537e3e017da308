//! `Uncount` and `Count`: whose acknowledgements the owner counts while members leave and return.

use bytes::Bytes;
use stead_types::{DirectoryVersion, GroupId, TenantNumber};

use super::{group, kind, start, tenant, version, write_group, write_version};
use crate::codec::{Malformed, Reader};

/// Stops counting the acknowledgements of a member that leaves the replica set. Guard: owner; no older view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Uncount {
    /// The tenant.
    pub tenant: TenantNumber,
    /// Directory version of the view that shows the member leaving.
    pub version: DirectoryVersion,
    /// The member.
    pub group: GroupId,
}

/// Counts the acknowledgements of a member again. Guard: owner; no older view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// The tenant.
    pub tenant: TenantNumber,
    /// Directory version of the view that shows the member again, after it has reported that it has rejoined.
    pub version: DirectoryVersion,
    /// The member.
    pub group: GroupId,
}

impl Uncount {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::UNCOUNT, self.tenant, 20);
        write_version(&mut w, self.version);
        write_group(&mut w, self.group);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            version: version(r)?,
            group: group(r)?,
        })
    }
}

impl Count {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::COUNT, self.tenant, 20);
        write_version(&mut w, self.version);
        write_group(&mut w, self.group);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            version: version(r)?,
            group: group(r)?,
        })
    }
}
