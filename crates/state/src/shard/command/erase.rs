//! `Erase` and `Rejoin`: a tenant leaves this group, or remains after all.

use bytes::Bytes;
use stead_types::{DirectoryVersion, Epoch, TenantNumber};

use super::{epoch, kind, start, tenant, version, write_epoch, write_version};
use crate::codec::{Malformed, Reader};

/// Erases a tenant from this group. Guard: not derived from an older view than the record has seen; follows the recorded
/// home, unless the tenant is deleted; no fork that is not named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Erase {
    /// The tenant.
    pub tenant: TenantNumber,
    /// Directory version of the view that shows this group outside the replica set, or the tenant deleted.
    pub version: DirectoryVersion,
    /// Whether the tenant is deleted: only then may its owner erase it.
    pub deleted: bool,
    /// Forks that may be lost, by copy number.
    pub forks: Vec<u32>,
    /// The recorded epoch. A group that has not followed it may hold what a promotion has cut, and has no fork of it yet.
    /// `None` where the tenant is deleted, and in entries below feature level 2, at which no tenant has a second epoch.
    pub recorded: Option<Epoch>,
}

/// Keeps a tenant in this group after all: rejects any later `Erase` that was derived from an older view.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rejoin {
    /// The tenant.
    pub tenant: TenantNumber,
    /// Directory version of the view that shows this group as a member again.
    pub version: DirectoryVersion,
}

impl Erase {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let kind = if self.recorded.is_some() {
            kind::ERASE_FOLLOWER
        } else {
            kind::ERASE
        };
        let mut w = start(kind, self.tenant, 24);
        write_version(&mut w, self.version);
        w.bool(self.deleted);
        w.list(self.forks.iter(), |w, copy| {
            w.varint(u64::from(*copy));
        });
        if let Some(recorded) = self.recorded {
            write_epoch(&mut w, recorded);
        }
        w.finish()
    }

    /// Reads the body of [`kind::ERASE`].
    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            version: version(r)?,
            deleted: r.bool()?,
            forks: r.list(Reader::varint_u32)?,
            recorded: None,
        })
    }

    /// Reads the body of [`kind::ERASE_FOLLOWER`].
    pub(super) fn decode_follower(r: &mut Reader) -> Result<Self, Malformed> {
        let entry = Self::decode(r)?;
        Ok(Self {
            recorded: Some(epoch(r)?),
            ..entry
        })
    }
}

impl Rejoin {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::REJOIN, self.tenant, 16);
        write_version(&mut w, self.version);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            version: version(r)?,
        })
    }
}
