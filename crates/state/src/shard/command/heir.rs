//! `Heir` and `CancelHeir`: a follower is ready to take over by a move, or the move is over.

use bytes::Bytes;
use stead_types::{DirectoryVersion, Epoch, GroupId, TenantNumber};

use super::{epoch, group, kind, operation, start, tenant, version, write_epoch, write_group, write_version};
use crate::{
    codec::{Malformed, Reader},
    shard::record::OperationId,
};

/// Makes this follower the heir of a move.
///
/// Guard: follower; the move's target is this group; the record's epoch is the recorded one and the highest promised,
/// and the move's is above it; attached, not suspect, no seed under way, complete idempotency windows; no older view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heir {
    /// The tenant.
    pub tenant: TenantNumber,
    /// Directory version of the view that shows the move.
    pub version: DirectoryVersion,
    /// Number of the move.
    pub operation: OperationId,
    /// Target of the move.
    pub to: GroupId,
    /// The recorded epoch.
    pub recorded_epoch: Epoch,
    /// Epoch that the target would own.
    pub epoch: Epoch,
}

/// Makes the heir of a move a follower again.
///
/// Guard: heir of this move; the view knows the move, so its number is not above the last one; no older view. The
/// proposer saw in the view that the move is over: a view that does not know it yet must not end it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CancelHeir {
    /// The tenant.
    pub tenant: TenantNumber,
    /// Directory version of the view that shows the move to be over.
    pub version: DirectoryVersion,
    /// Number of the move that is over.
    pub operation: OperationId,
    /// Highest number of an operation of the tenant in that view.
    pub last_operation: OperationId,
}

impl Heir {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::HEIR, self.tenant, 32);
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

impl CancelHeir {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::CANCEL_HEIR, self.tenant, 32);
        write_version(&mut w, self.version);
        w.varint(self.operation.0).varint(self.last_operation.0);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            version: version(r)?,
            operation: operation(r)?,
            last_operation: operation(r)?,
        })
    }
}
