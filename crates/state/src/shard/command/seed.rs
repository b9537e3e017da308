//! `Seed`, `Chunk` and `Swap`: a copy is built anew beside the old one.
//!
//! The home's change records up to the seed's first revision come in chunks, in the order of their revisions, only
//! those that are current when the chunk is read; what is above comes by the feed. So a key that was overwritten before
//! its chunk was read comes by the feed or by a later chunk, and nothing is pinned at the home.

use bytes::Bytes;
use stead_types::{ClientId, DirectoryVersion, Epoch, GroupId, Revision, Sequence, TenantNumber, TenantTime};

use super::{
    epoch, group, kind, revision, seed_number, sequence, start, tenant, version, write_epoch, write_group,
    write_version,
};
use crate::{
    codec::{Malformed, Reader, Writer},
    lineage::Lineage,
    rows::{change::Change, client},
    shard::{
        digest::Digests,
        record::{ClientsLoaded, SeedNumber},
        window::Remembered,
    },
};

const CHANGES: u8 = 1;
const CLIENTS: u8 = 2;

/// A copy is to be built anew: an older seed is dropped, and the tenant is not attached until it is swapped in.
///
/// Guard: follower or heir of that home at the session's epoch; no older view; a number above that of every seed before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The tenant.
    pub tenant: TenantNumber,
    /// The home group.
    pub home: GroupId,
    /// The session's epoch.
    pub epoch: Epoch,
    /// Of the proposer's view.
    pub version: DirectoryVersion,
    /// The seed's number.
    pub number: SeedNumber,
    /// The home's last change when the seed began: chunks bring what is at or below it, the feed what is above.
    pub first: Revision,
    /// The home's lineage.
    pub lineage: Lineage,
}

/// A part of the copy being built. Guard: follower or heir of that home at the session's epoch; the seed's number is that
/// of the copy being built; it continues where the last chunk of its kind ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The tenant.
    pub tenant: TenantNumber,
    /// The home group.
    pub home: GroupId,
    /// The session's epoch.
    pub epoch: Epoch,
    /// The seed that it belongs to.
    pub number: SeedNumber,
    /// The revision at which the home read it.
    pub read_at: Revision,
    /// What it brings.
    pub part: Part,
}

/// What a chunk brings.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Changes that are current, of a range of sequences.
    Changes {
        /// The range begins behind this one.
        after: Sequence,
        /// The range ends with this one.
        up_to: Sequence,
        /// The changes in their order.
        changes: Vec<Change>,
    },
    /// Windows of a range of clients, and perhaps a part of the window behind them. It must be proposed before any change
    /// made after it was read.
    Clients {
        /// It goes on behind what these say is loaded.
        after: ClientsLoaded,
        /// The range ends with this one, all windows in it being whole; the highest id ends the last. `None`: nothing is
        /// whole yet.
        up_to: Option<ClientId>,
        /// The tenant's time.
        time: TenantTime,
        /// The latest tenant time of an outcome of a client that is not kept.
        edge: TenantTime,
        /// The windows, or what is still lacking of them. The first one may go on where the last chunk ended, the last one
        /// may be of the client behind the range.
        windows: Vec<WindowPart>,
    },
}

/// A client's window, or so much of it as fits a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowPart {
    /// Whose.
    pub client: ClientId,
    /// The latest tenant time of an outcome that the home forgot.
    pub edge: TenantTime,
    /// The home remembers nothing of this client that is older.
    pub oldest: Revision,
    /// Outcomes behind those of the part before.
    pub outcomes: Vec<Remembered>,
}

impl WindowPart {
    fn encode(&self, w: &mut Writer) {
        w.u128(self.client.0).varint(self.edge.0).varint(self.oldest.to_u64());
        client::encode_outcomes(w, self.outcomes.iter());
    }

    fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            client: ClientId(r.u128()?),
            edge: TenantTime(r.varint()?),
            oldest: revision(r)?,
            outcomes: client::decode_outcomes(r)?,
        })
    }
}

/// The copy is built. Guard: as for a chunk; no older view; all chunks, the position, equal digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swap {
    /// The tenant.
    pub tenant: TenantNumber,
    /// The home group.
    pub home: GroupId,
    /// The session's epoch.
    pub epoch: Epoch,
    /// Of the proposer's view.
    pub version: DirectoryVersion,
    /// The seed that built it.
    pub number: SeedNumber,
    /// The revision at which the digests are compared.
    pub revision: Revision,
    /// The home's digests there.
    pub digests: Digests,
}

impl Seed {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::SEED, self.tenant, 64);
        write_group(&mut w, self.home);
        write_epoch(&mut w, self.epoch);
        write_version(&mut w, self.version);
        w.varint(self.number.0).varint(self.first.to_u64());
        self.lineage.encode(&mut w);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            home: group(r)?,
            epoch: epoch(r)?,
            version: version(r)?,
            number: seed_number(r)?,
            first: revision(r)?,
            lineage: Lineage::decode(r)?,
        })
    }
}

impl Chunk {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::CHUNK, self.tenant, 4096);
        write_group(&mut w, self.home);
        write_epoch(&mut w, self.epoch);
        w.varint(self.number.0).varint(self.read_at.to_u64());
        match &self.part {
            Part::Changes { after, up_to, changes } => {
                w.u8(CHANGES).varint(after.get()).varint(up_to.get());
                w.list(changes.iter(), |w, change| change.encode_for_feed(w));
            }
            Part::Clients {
                after,
                up_to,
                time,
                edge,
                windows,
            } => {
                w.u8(CLIENTS).option(after.whole, |w, client| {
                    w.u128(client.0);
                });
                w.option(after.part, |w, (client, revision)| {
                    w.u128(client.0).varint(revision.to_u64());
                });
                w.option(*up_to, |w, client| {
                    w.u128(client.0);
                });
                w.varint(time.0).varint(edge.0);
                w.list(windows.iter(), |w, part| part.encode(w));
            }
        }
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            home: group(r)?,
            epoch: epoch(r)?,
            number: seed_number(r)?,
            read_at: revision(r)?,
            part: match r.u8()? {
                CHANGES => Part::Changes {
                    after: sequence(r)?,
                    up_to: sequence(r)?,
                    changes: r.list(Change::decode_from_feed)?,
                },
                CLIENTS => Part::Clients {
                    after: ClientsLoaded {
                        whole: r.option(|r| Ok(ClientId(r.u128()?)))?,
                        part: r.option(|r| Ok((ClientId(r.u128()?), revision(r)?)))?,
                    },
                    up_to: r.option(|r| Ok(ClientId(r.u128()?)))?,
                    time: TenantTime(r.varint()?),
                    edge: TenantTime(r.varint()?),
                    windows: r.list(WindowPart::decode)?,
                },
                0 | 3.. => return Err(r.malformed()),
            },
        })
    }
}

impl Swap {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::SWAP, self.tenant, 80);
        write_group(&mut w, self.home);
        write_epoch(&mut w, self.epoch);
        write_version(&mut w, self.version);
        self.digests
            .encode(w.varint(self.number.0).varint(self.revision.to_u64()));
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            home: group(r)?,
            epoch: epoch(r)?,
            version: version(r)?,
            number: seed_number(r)?,
            revision: revision(r)?,
            digests: Digests::decode(r)?,
        })
    }
}
