//! `BeginAttach`, `Attach` and `Detach`: start and end of a tenant's attach session, in which its home's feed carries
//! its records.

use bytes::Bytes;
use stead_types::{DirectoryVersion, Epoch, GroupId, Incarnation, Revision, TenantNumber};

use super::{
    attach_number, epoch, group, kind, revision, start, tenant, version, write_epoch, write_group, write_version,
};
use crate::{
    codec::{Malformed, Reader},
    lineage::Lineage,
    shard::record::AttachNumber,
};

/// Starts an attempt to attach a tenant to its home's feed: the home is asked once this is in the log.
///
/// Guard: follower of that home at the session's epoch, no older view, a number above that of every attempt before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BeginAttach {
    /// The tenant.
    pub tenant: TenantNumber,
    /// The home group.
    pub home: GroupId,
    /// The home group's incarnation.
    pub incarnation: Incarnation,
    /// Epoch of the session.
    pub epoch: Epoch,
    /// Directory version of the proposer's view.
    pub version: DirectoryVersion,
    /// Number of the attempt.
    pub number: AttachNumber,
}

impl BeginAttach {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::BEGIN_ATTACH, self.tenant, 32);
        write_group(&mut w, self.home);
        w.varint(u64::from(self.incarnation.0));
        write_epoch(&mut w, self.epoch);
        write_version(&mut w, self.version);
        w.varint(self.number.0);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            home: group(r)?,
            incarnation: Incarnation(r.varint_u32()?),
            epoch: epoch(r)?,
            version: version(r)?,
            number: attach_number(r)?,
        })
    }
}

/// Attaches a tenant to its home's feed: from here on every batch has its records, in order.
///
/// Guard: the attempt is the record's; follower of that home at the session's epoch, no older view, with the position
/// reached and a history that is the home's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Attach {
    /// The tenant.
    pub tenant: TenantNumber,
    /// The home group.
    pub home: GroupId,
    /// Epoch of the session.
    pub epoch: Epoch,
    /// Directory version of the proposer's view.
    pub version: DirectoryVersion,
    /// Number of the attempt that has succeeded.
    pub number: AttachNumber,
    /// Last change of the tenant that the home sent before the attach.
    pub position: Revision,
    /// The home's lineage.
    pub lineage: Lineage,
}

impl Attach {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::ATTACH, self.tenant, 64);
        write_group(&mut w, self.home);
        write_epoch(&mut w, self.epoch);
        write_version(&mut w, self.version);
        w.varint(self.number.0).varint(self.position.to_u64());
        self.lineage.encode(&mut w);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            home: group(r)?,
            epoch: epoch(r)?,
            version: version(r)?,
            number: attach_number(r)?,
            position: revision(r)?,
            lineage: Lineage::decode(r)?,
        })
    }
}

/// Detaches a tenant from its home's feed, or ends an attempt that has failed. Guard: the attempt is the record's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detach {
    /// The tenant.
    pub tenant: TenantNumber,
    /// The home group.
    pub home: GroupId,
    /// Number of the attempt that is over.
    pub number: AttachNumber,
}

impl Detach {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::DETACH, self.tenant, 15);
        write_group(&mut w, self.home);
        w.varint(self.number.0);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            home: group(r)?,
            number: attach_number(r)?,
        })
    }
}
