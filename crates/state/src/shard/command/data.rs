//! `Data` and `Offset`: what a home's stream brings. A batch of the stream is proposed as one entry: a `Data` for each
//! tenant, then the `Offset`.

use bytes::Bytes;
use stead_types::{Epoch, FeedOffset, GroupId, Revision, TenantNumber};

use super::{epoch, group, kind, offset, revision, start, tenant, write_epoch, write_group, write_offset};
use crate::{
    codec::{Malformed, Reader},
    rows::change::Change,
    shard::digest::Digests,
};

/// Changes of one tenant from its home.
///
/// Guard: follower or heir of that home; the session's epoch is the record's and the highest promised; the first
/// change that is new is the next.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Data {
    /// The tenant.
    pub tenant: TenantNumber,
    /// The home group.
    pub home: GroupId,
    /// The session's epoch.
    pub epoch: Epoch,
    /// The changes in their order.
    pub changes: Vec<Change>,
    /// The home's digests as of the last of the changes, where that is the tenant's last.
    pub digests: Option<Digests>,
    /// The home's floor for this tenant.
    pub floor: Revision,
}

impl Data {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let len: usize = self.changes.iter().map(|change| change.len() + 64).sum();
        let mut w = start(kind::DATA, self.tenant, 48 + len);
        write_group(&mut w, self.home);
        write_epoch(&mut w, self.epoch);
        w.list(self.changes.iter(), |w, change| change.encode_for_feed(w));
        w.option(self.digests, |w, digests| digests.encode(w));
        w.varint(self.floor.to_u64());
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            home: group(r)?,
            epoch: epoch(r)?,
            changes: r.list(Change::decode_from_feed)?,
            digests: r.option(Digests::decode)?,
            floor: revision(r)?,
        })
    }
}

/// How far a home's stream is, as of the batch that this stands behind. Guard: above what is there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Offset {
    /// The home group.
    pub home: GroupId,
    /// The offset of the batch.
    pub offset: FeedOffset,
}

impl Offset {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = crate::codec::Writer::with_capacity(20);
        write_group(w.u8(kind::OFFSET), self.home);
        write_offset(&mut w, self.offset);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            home: group(r)?,
            offset: offset(r)?,
        })
    }
}
