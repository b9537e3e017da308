//! `Seed`, `Chunk` and `Swap`: a new copy is built beside the old one.
//!
//! The home's changes up to the seed's first revision come in chunks, in the order of their revisions, only those
//! that are current when the chunk is read; later changes come by the feed. So a key that was overwritten before its
//! chunk was read comes by the feed or by a later chunk, and nothing is pinned at the home.

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
        idempotency_window::IdempotencyRecord,
        record::{ClientsLoaded, SeedNumber},
    },
};

const CHANGES: u8 = 1;
const CLIENTS: u8 = 2;

/// Starts the seed of a new copy: an older seed is dropped, and the tenant is not attached until the copy is swapped
/// in.
///
/// Guard: follower or heir of that home at the session's epoch; no older view; a number above that of every seed
/// before.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seed {
    /// The tenant.
    pub tenant: TenantNumber,
    /// The home group.
    pub home: GroupId,
    /// Epoch of the session.
    pub epoch: Epoch,
    /// Directory version of the proposer's view.
    pub version: DirectoryVersion,
    /// Number of the seed.
    pub number: SeedNumber,
    /// First revision of the seed: chunks carry changes at or below it.
    pub first: Revision,
    /// The lineage of the home.
    pub lineage: Lineage,
}

/// Starts the seed of the idempotency windows of a copy that was rewound and lacks outcomes since; its keys stay. The
/// tenant is not attached until the windows are swapped in.
///
/// Guard: that of [`Seed`]; the live copy lacks outcomes, is not suspect, and no copy is being seeded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeedWindows {
    /// The tenant.
    pub tenant: TenantNumber,
    /// The home group.
    pub home: GroupId,
    /// Epoch of the session.
    pub epoch: Epoch,
    /// Directory version of the proposer's view.
    pub version: DirectoryVersion,
    /// Number of the seed.
    pub number: SeedNumber,
}

/// Chunk of the copy being seeded. Guard: follower or heir of that home at the session's epoch; the seed's number is
/// that of the copy being seeded; it continues where the last chunk of its kind ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Chunk {
    /// The tenant.
    pub tenant: TenantNumber,
    /// The home group.
    pub home: GroupId,
    /// Epoch of the session.
    pub epoch: Epoch,
    /// Number of the seed that it belongs to.
    pub number: SeedNumber,
    /// Revision at which the home read it.
    pub read_at: Revision,
    /// Content of the chunk.
    pub part: ChunkContent,
}

/// Content of a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChunkContent {
    /// Current changes of a range of sequences.
    Changes {
        /// Sequence before the range.
        after: Sequence,
        /// Last sequence of the range.
        up_to: Sequence,
        /// The changes in their order.
        changes: Vec<Change>,
    },
    /// Idempotency windows of a range of clients, and perhaps a part of the next client's window. It must be proposed
    /// before any change made after it was read.
    Clients {
        /// Progress that it continues from.
        after: ClientsLoaded,
        /// Last client of the range, whose windows are all whole; the highest id ends the last range. `None`: no
        /// window is whole yet.
        up_to: Option<ClientId>,
        /// Tenant time of the home.
        time: TenantTime,
        /// Lower edge of the windows of clients that are not kept.
        edge: TenantTime,
        /// Windows, or their missing parts. The first one may continue the last chunk, the last one may be of the
        /// client after the range.
        windows: Vec<WindowPart>,
    },
}

/// A client's idempotency window, or the part of it that fits a chunk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WindowPart {
    /// The client.
    pub client: ClientId,
    /// Lower edge of the home's window.
    pub edge: TenantTime,
    /// Oldest outcome of the home's window.
    pub oldest: Revision,
    /// Outcomes after those of the part before.
    pub outcomes: Vec<IdempotencyRecord>,
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

/// Swaps in the seeded copy. Guard: as for a chunk; no older view; all chunks, the position, equal digests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Swap {
    /// The tenant.
    pub tenant: TenantNumber,
    /// The home group.
    pub home: GroupId,
    /// Epoch of the session.
    pub epoch: Epoch,
    /// Directory version of the proposer's view.
    pub version: DirectoryVersion,
    /// Number of the seed that built it.
    pub number: SeedNumber,
    /// Revision at which the digests are compared.
    pub revision: Revision,
    /// The home's digests at that revision.
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

impl SeedWindows {
    /// Writes the command.
    pub fn encode(&self) -> Bytes {
        let mut w = start(kind::SEED_WINDOWS, self.tenant, 32);
        write_group(&mut w, self.home);
        write_epoch(&mut w, self.epoch);
        write_version(&mut w, self.version);
        w.varint(self.number.0);
        w.finish()
    }

    pub(super) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: tenant(r)?,
            home: group(r)?,
            epoch: epoch(r)?,
            version: version(r)?,
            number: seed_number(r)?,
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
            ChunkContent::Changes { after, up_to, changes } => {
                w.u8(CHANGES).varint(after.get()).varint(up_to.get());
                w.list(changes.iter(), |w, change| change.encode_for_feed(w));
            }
            ChunkContent::Clients {
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
                CHANGES => ChunkContent::Changes {
                    after: sequence(r)?,
                    up_to: sequence(r)?,
                    changes: r.list(Change::decode_from_feed)?,
                },
                CLIENTS => ChunkContent::Clients {
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
