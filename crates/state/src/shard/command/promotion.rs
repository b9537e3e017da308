//! `Freeze`, `Pull` and `Activate`: the entries of a promotion. They have no kind byte, so no log holds them yet; the
//! transitions of [`crate::shard::ownership`] decide over them.

use stead_types::{DirectoryVersion, Epoch, GroupId, Revision, TenantNumber, TenantTime};

use crate::{
    lineage::Lineage,
    shard::record::{LeaseLossPolicy, OperationId},
};

/// Freezes a member for a promotion. Guard: a lower epoch was promised, in any role; no older view.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Freeze {
    /// The tenant.
    pub tenant: TenantNumber,
    /// Directory version of the view that shows the promotion.
    pub version: DirectoryVersion,
    /// Number of the promotion.
    pub operation: OperationId,
    /// Epoch that it promotes to.
    pub epoch: Epoch,
    /// The recorded lineage, up to the recorded epoch: what is off it is cut.
    pub lineage: Lineage,
}

/// Takes changes over from another frozen member, as the directory ordered.
///
/// Guard: frozen for this promotion; no older view; the changes begin after the copy's last one, and the source's
/// history extends this group's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Pull {
    /// The tenant.
    pub tenant: TenantNumber,
    /// Directory version of the view that shows the order.
    pub version: DirectoryVersion,
    /// Number of the promotion.
    pub operation: OperationId,
    /// Epoch that both groups are frozen for.
    pub epoch: Epoch,
    /// The frozen group that the changes come from.
    pub from: GroupId,
    /// Last change before the first of these changes.
    pub after: Revision,
    /// Last of these changes.
    pub last: Revision,
    /// The source's lineage.
    pub lineage: Lineage,
}

/// Makes a frozen group the owner, at the end of a promotion.
///
/// Guard: frozen for this epoch, which is the recorded one and the highest promised; the recorded home is this group;
/// the copy holds the position taken over; no older view.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Activate {
    /// The tenant.
    pub tenant: TenantNumber,
    /// Directory version of the view that shows the end of the promotion.
    pub version: DirectoryVersion,
    /// The recorded home.
    pub home: GroupId,
    /// The recorded epoch.
    pub epoch: Epoch,
    /// Last change that is kept.
    pub kept: Revision,
    /// Highest tenant time that any frozen group reported.
    pub time: TenantTime,
    /// Lease loss policy that the directory shows.
    pub policy: LeaseLossPolicy,
    /// Members whose acknowledgements do not count: they leave, or have not reported that they rejoined.
    pub uncounted: Vec<GroupId>,
}
