//! `Freeze`, `Pull` and `Activate`: the entries of a promotion, proposed from feature level 3 on.

use bytes::Bytes;
use stead_types::{DirectoryVersion, Epoch, GroupId, Revision, TenantNumber, TenantTime};

use super::{
    FeedRecords, epoch, group, kind, operation, policy, revision, start, tenant, version, write_epoch, write_group,
    write_policy, write_version,
};
use crate::{
    codec::{Malformed, Reader},
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

/// Takes changes over from another frozen member, as the directory ordered; as many commands as the changes need.
///
/// Guard: frozen for this promotion; no older view; not suspect; the changes begin after the copy's last one and are the
/// next, and the source's history extends this group's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pull {
    /// Fields that the guard compares.
    pub head: PullHeader,
    /// Changes that the source sent, with its digests where they end at its last change.
    pub records: FeedRecords,
}

/// Header of a [`Pull`] command: the fields that its guard compares.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PullHeader {
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

impl Freeze {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::FREEZE, self.tenant, 64);
        write_version(&mut w, self.version);
        write_epoch(w.varint(self.operation.0), self.epoch);
        self.lineage.encode(&mut w);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            version: version(r)?,
            operation: operation(r)?,
            epoch: epoch(r)?,
            lineage: Lineage::decode(r)?,
        })
    }
}

impl Pull {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        self.head.command(&self.records.encode())
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            head: PullHeader {
                tenant: tenant(r)?,
                version: version(r)?,
                operation: operation(r)?,
                epoch: epoch(r)?,
                from: group(r)?,
                after: revision(r)?,
                last: revision(r)?,
                lineage: Lineage::decode(r)?,
            },
            records: FeedRecords::read(r)?,
        })
    }
}

impl PullHeader {
    /// Most bytes of a command before its records.
    pub const LEN_MAX: usize = 1_280;

    /// Returns the command that takes these records over, as [`FeedRecords::encode`] wrote them.
    pub fn command(&self, records: &[u8]) -> Bytes {
        let mut w = start(kind::PULL, self.tenant, 80 + records.len());
        write_version(&mut w, self.version);
        write_epoch(w.varint(self.operation.0), self.epoch);
        write_group(&mut w, self.from);
        w.varint(self.after.to_u64()).varint(self.last.to_u64());
        self.lineage.encode(&mut w);
        w.raw(records);
        w.finish()
    }
}

impl Activate {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::ACTIVATE, self.tenant, 48);
        write_version(&mut w, self.version);
        write_group(&mut w, self.home);
        write_epoch(&mut w, self.epoch);
        w.varint(self.kept.to_u64()).varint(self.time.0);
        write_policy(&mut w, self.policy);
        w.list(self.uncounted.iter(), |w, group| write_group(w, *group));
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            version: version(r)?,
            home: group(r)?,
            epoch: epoch(r)?,
            kept: revision(r)?,
            time: TenantTime(r.varint()?),
            policy: policy(r)?,
            uncounted: r.list(group)?,
        })
    }
}
