//! Promotion of a tenant that is in flight, as every node's view shows it.
//!
//! ```text
//!  Fenced -> Freezing -> Activating -> (gone, by the chosen group's report)
//!               | ^          ^
//!               v |          |
//!             Pulling -------+
//! ```

use stead_types::{DirectoryVersion, Epoch, GroupId, Revision, TenantTime};

use super::{
    TenantMove,
    command::{decode_version, encode_version},
    text,
};
use crate::{
    codec::{Malformed, Reader, Writer},
    lineage::decode_epoch,
    shard::record::OperationId,
};

/// Promotion of a tenant, until the chosen group has reported that it has activated it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TenantPromotion {
    /// Number of the promotion among the tenant's operations.
    pub operation: OperationId,
    /// Number in the cluster of the operation that it belongs to.
    pub of: u64,
    /// Epoch in which the chosen group will be the home; the tenant is fenced below it.
    pub epoch: Epoch,
    /// Directory version of the fence: a wait that began before it does not count.
    pub fence: DirectoryVersion,
    /// How far it is.
    pub phase: PromotionPhase,
    /// Members whose freeze reports the directory has. Such a group reports again only after a pull.
    pub reported: Box<[GroupId]>,
    /// Moves that this promotion and those before it have replaced: their targets may own an epoch below `epoch`, and
    /// stay members until the promotion is over.
    pub replaced: Box<[TenantMove]>,
    /// Logged time of its beginning, in milliseconds since 1970.
    pub started: u64,
}

/// Phase of a tenant's promotion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PromotionPhase {
    /// The tenant is fenced below the epoch, and leases that do not know it may run. Only a group whose own record says
    /// `Owner` or `Relinquished` freezes: its `Freeze` entry is its fence.
    Fenced,
    /// Nobody can serve below the epoch: the lease wait is over, or every group that could own has frozen. Every member
    /// freezes.
    Freezing,
    /// The chosen group takes over what another frozen group has more, and reports again.
    Pulling {
        /// The group with the longest history.
        from: GroupId,
        /// The chosen group.
        to: GroupId,
    },
    /// Home, epoch and lineage are the new ones; the chosen group has not reported yet that it has committed
    /// `Activate`.
    Activating {
        /// Last change that is taken over.
        kept: Revision,
        /// Highest tenant time that a frozen group has reported.
        time: TenantTime,
    },
}

impl TenantPromotion {
    /// Tells whether the directory has the freeze report of a group.
    pub fn has_reported(&self, group: GroupId) -> bool {
        self.reported.contains(&group)
    }

    /// Returns the groups that may own the tenant without the directory's knowledge, because it was recovered from a lost
    /// majority.
    pub(super) fn forgotten_owners(&self) -> impl Iterator<Item = GroupId> + '_ {
        let forgotten = self.replaced.iter().filter(|replaced| replaced.is_forgotten());
        forgotten.map(|replaced| replaced.to)
    }

    pub(super) fn encode(&self, w: &mut Writer) {
        w.varint(self.operation.0).varint(self.of);
        w.varint(u64::from(self.epoch.get()));
        encode_version(w, self.fence);
        self.phase.encode(w);
        w.list(self.reported.iter(), |w, group| {
            w.varint(u64::from(group.get()));
        });
        w.list(self.replaced.iter(), |w, replaced| replaced.encode(w));
        w.varint(self.started);
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            operation: OperationId(r.varint()?),
            of: r.varint()?,
            epoch: decode_epoch(r)?,
            fence: decode_version(r)?,
            phase: PromotionPhase::decode(r)?,
            reported: r.list(text::group)?.into(),
            replaced: r.list(TenantMove::decode)?.into(),
            started: r.varint()?,
        })
    }
}

impl PromotionPhase {
    fn encode(self, w: &mut Writer) {
        match self {
            Self::Fenced => drop(w.u8(0)),
            Self::Freezing => drop(w.u8(1)),
            Self::Pulling { from, to } => {
                w.u8(2).varint(u64::from(from.get())).varint(u64::from(to.get()));
            }
            Self::Activating { kept, time } => drop(w.u8(3).varint(kept.to_u64()).varint(time.0)),
        }
    }

    fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(match r.u8()? {
            0 => Self::Fenced,
            1 => Self::Freezing,
            2 => Self::Pulling {
                from: text::group(r)?,
                to: text::group(r)?,
            },
            3 => Self::Activating {
                kept: Revision::from_u64(r.varint()?),
                time: TenantTime(r.varint()?),
            },
            4.. => return Err(r.malformed()),
        })
    }
}
