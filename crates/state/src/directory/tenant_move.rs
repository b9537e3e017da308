//! Moves of a tenant that are in flight.

use stead_types::{DirectoryVersion, Epoch, GroupId, NodeId, RegionName, TenantName};

use super::{
    command::{decode_version, encode_version},
    text,
};
use crate::{
    codec::{Malformed, Reader, Writer},
    lineage::decode_epoch,
    shard::record::OperationId,
};

/// Move of a tenant to another home, until its outcome is known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct TenantMove {
    /// Number of the move among the tenant's operations.
    pub operation: OperationId,
    /// Group that is to be the home.
    pub to: GroupId,
    /// Epoch in which it is to be the home.
    pub epoch: Epoch,
    /// Whether the move is to be given up.
    pub state: MoveState,
    /// Part of the source afterwards.
    pub source: SourceAfterMove,
    /// Whether the target became a member by this move only.
    pub joined: bool,
    /// Whether the target has reported that it is the heir.
    pub heir_ready: bool,
    /// Logged time of its beginning, in milliseconds since 1970.
    pub started: u64,
}

/// State of a move in flight.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum MoveState {
    /// The home may hand the tenant over.
    Moving,
    /// The home must refuse to hand the tenant over; it may have done so already.
    Aborting,
}

/// Part that the source of a move has afterwards.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SourceAfterMove {
    /// It follows.
    Follow,
    /// It leaves the replica set.
    Leave,
    /// It follows if the tenant's policy names its region, else it leaves.
    Policy,
}

/// Request to move a tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MoveRequest {
    /// Name of the tenant.
    pub name: TenantName,
    /// Version of the record that the request applies to only.
    pub etag: Option<DirectoryVersion>,
    /// Where its home is to be.
    pub to: MoveTarget,
    /// Part of the source afterwards.
    pub source: SourceAfterMove,
    /// Nodes that the directory's leader has not heard of for a lease ttl. The leader knows them from renewals of
    /// leases; a move of or to a group that has lost its majority is refused.
    pub unreachable: Vec<NodeId>,
}

/// Target of a move.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MoveTarget {
    /// A group of this region, which the directory chooses.
    Region(RegionName),
    /// This group.
    Group(GroupId),
    /// Another group of the home's region, which the directory chooses.
    OtherGroup,
}

impl MoveRequest {
    pub(super) fn encode(&self, w: &mut Writer) {
        text::write(w, self.name.as_str());
        w.option(self.etag, encode_version);
        match &self.to {
            MoveTarget::Region(region) => text::write(w.u8(0), region.as_str()),
            MoveTarget::Group(group) => drop(w.u8(1).varint(u64::from(group.get()))),
            MoveTarget::OtherGroup => drop(w.u8(2)),
        }
        self.source.encode(w);
        w.list(self.unreachable.iter(), |w, node| {
            w.varint(node.get());
        });
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            name: text::parse(r)?,
            etag: r.option(decode_version)?,
            to: match r.u8()? {
                0 => MoveTarget::Region(text::parse(r)?),
                1 => MoveTarget::Group(text::group(r)?),
                2 => MoveTarget::OtherGroup,
                3.. => return Err(r.malformed()),
            },
            source: SourceAfterMove::decode(r)?,
            unreachable: r.list(text::node)?,
        })
    }
}

impl TenantMove {
    /// Returns the move that stands for one which a recovered directory may have forgotten: its number is zero.
    pub(super) fn forgotten(to: GroupId, epoch: Epoch, time: u64) -> Self {
        Self {
            operation: OperationId(0),
            to,
            epoch,
            state: MoveState::Moving,
            source: SourceAfterMove::Policy,
            joined: false,
            heir_ready: false,
            started: time,
        }
    }

    /// Tells whether it stands for one that a recovered directory may have forgotten.
    pub(super) fn is_forgotten(&self) -> bool {
        self.operation == OperationId(0)
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.varint(self.operation.0).varint(u64::from(self.to.get()));
        w.varint(u64::from(self.epoch.get()));
        w.u8(match self.state {
            MoveState::Moving => 0,
            MoveState::Aborting => 1,
        });
        self.source.encode(w);
        w.bool(self.joined).bool(self.heir_ready).varint(self.started);
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            operation: OperationId(r.varint()?),
            to: text::group(r)?,
            epoch: decode_epoch(r)?,
            state: match r.u8()? {
                0 => MoveState::Moving,
                1 => MoveState::Aborting,
                2.. => return Err(r.malformed()),
            },
            source: SourceAfterMove::decode(r)?,
            joined: r.bool()?,
            heir_ready: r.bool()?,
            started: r.varint()?,
        })
    }
}

impl SourceAfterMove {
    pub(super) fn encode(self, w: &mut Writer) {
        w.u8(match self {
            Self::Follow => 0,
            Self::Leave => 1,
            Self::Policy => 2,
        });
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        match r.u8()? {
            0 => Ok(Self::Follow),
            1 => Ok(Self::Leave),
            2 => Ok(Self::Policy),
            3.. => Err(r.malformed()),
        }
    }
}
