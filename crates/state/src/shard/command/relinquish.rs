//! `Relinquish` and `Refuse`: the owner's log decides a move, one way or the other.

use bytes::Bytes;
use stead_types::{DirectoryVersion, Epoch, GroupId, TenantNumber};

use super::{epoch, group, kind, operation, start, tenant, version, write_epoch, write_group, write_version};
use crate::{
    codec::{Malformed, Reader},
    shard::record::OperationId,
};

/// Hands the tenant over to the heir of a move: from here on the baton exists.
///
/// Guard: owner; its epoch is the recorded one; the move was not refused; another group is the target; the move's
/// epoch is above every promise; no older view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Relinquish {
    /// The tenant.
    pub tenant: TenantNumber,
    /// Directory version of the view that shows the move.
    pub version: DirectoryVersion,
    /// Number of the move.
    pub operation: OperationId,
    /// The heir.
    pub to: GroupId,
    /// The recorded epoch.
    pub recorded_epoch: Epoch,
    /// Epoch handed over.
    pub epoch: Epoch,
}

/// Refuses a move that the directory aborts, and every earlier one. Guard: owner; no older view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Refuse {
    /// The tenant.
    pub tenant: TenantNumber,
    /// Directory version of the view that shows the move being aborted.
    pub version: DirectoryVersion,
    /// Number of the move.
    pub operation: OperationId,
}

impl Relinquish {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::RELINQUISH, self.tenant, 32);
        write_version(&mut w, self.version);
        w.varint(self.operation.0);
        write_group(&mut w, self.to);
        write_epoch(&mut w, self.recorded_epoch);
        write_epoch(&mut w, self.epoch);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            version: version(r)?,
            operation: operation(r)?,
            to: group(r)?,
            recorded_epoch: epoch(r)?,
            epoch: epoch(r)?,
        })
    }
}

impl Refuse {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::REFUSE, self.tenant, 24);
        write_version(&mut w, self.version);
        w.varint(self.operation.0);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            version: version(r)?,
            operation: operation(r)?,
        })
    }
}
