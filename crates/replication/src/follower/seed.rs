//! The follower's end of a seed: chunks from a second connection become entries of the group's log.

use std::sync::Arc;

use bytes::Bytes;
use stead_api::proto::internal::v1::{SeedBegun, SeedChunk, SeedRequest, feed_refused::Reason, seed_response};
use stead_state::{
    codec::{Malformed, Reader},
    lineage::Lineage,
    shard::{
        apply_result::ApplyResult,
        command::{Command, Seed, kind},
        feed_validation::{InvalidFeedData, check_chunk},
        record::{ClientsLoaded, SeedNumber, ShadowCopy},
    },
};
use stead_types::{DirectoryVersion, Epoch, GroupId, NodeId, Revision, TenantNumber};
use tonic::Streaming;

use crate::{
    feed_clients::FeedClients, group_context::GroupContext, payload::PayloadDecompressor, proposal_class, wire,
};

/// The tenant to seed from its home.
#[derive(Clone, Copy, Debug)]
pub(crate) struct SeedTarget {
    pub(crate) home: GroupId,
    pub(crate) tenant: TenantNumber,
    /// Whether the seed is to begin anew, instead of resuming the copy that is being built.
    pub(crate) fresh: bool,
}

/// Builds a copy of a tenant beside the live one. Returns whether all its chunks are in the log.
pub(crate) async fn seed(context: Arc<GroupContext>, feed_clients: Arc<FeedClients>, mut target: SeedTarget) -> bool {
    let home = target.home;
    let mut nodes = feed_clients.voters(home);
    let mut tries = 0..2 * nodes.len();
    while !nodes.is_empty() && tries.next().is_some() {
        let node = nodes.remove(0);
        match Box::pin(seed_from(&context, &feed_clients, node, target)).await {
            Ok(()) => return true,
            Err(SeedError::Void) if !target.fresh => {
                target.fresh = true;
                nodes.insert(0, node);
            }
            Err(SeedError::NotLeader(Some(leader))) if leader != node => {
                nodes.retain(|other| *other != leader);
                nodes.insert(0, leader);
            }
            Err(SeedError::NotLeader(_) | SeedError::Unreachable) => {}
            Err(SeedError::InvalidData(why)) => {
                context.report_invalid_data(home, target.tenant, &why);
                return false;
            }
            Err(SeedError::Refused | SeedError::Void) => return false,
        }
    }
    false
}

/// Reason why a seed from one node failed.
enum SeedError {
    /// Another node leads the home.
    NotLeader(Option<NodeId>),
    /// The connection broke.
    Unreachable,
    /// The home refused, or nothing can be requested or proposed.
    Refused,
    /// The seed cannot go on: a chunk was void in the log, because it belongs to another seed, or the home has dropped
    /// the history after it.
    Void,
    /// The home has sent invalid data, which must not be proposed.
    InvalidData(InvalidFeedData),
}

impl From<InvalidFeedData> for SeedError {
    fn from(why: InvalidFeedData) -> Self {
        Self::InvalidData(why)
    }
}

async fn seed_from(
    context: &GroupContext,
    feed_clients: &FeedClients,
    node: NodeId,
    target: SeedTarget,
) -> Result<(), SeedError> {
    let mut session = SeedSession::of(context, target).ok_or(SeedError::Refused)?;
    let mut client = feed_clients.dedicated_client(node).ok_or(SeedError::Unreachable)?;
    let broken = |status: tonic::Status| {
        context.alarms.record_status(&status);
        SeedError::Unreachable
    };
    let request = session.request(context.id());
    let mut chunks: Streaming<_> = client.seed(request).await.map_err(broken)?.into_inner();
    let mut decompressor = PayloadDecompressor::new();
    while let Some(response) = chunks.message().await.map_err(broken)? {
        match response.message {
            Some(seed_response::Message::Begun(begun)) => {
                let command = session.begin(begun, context.directory_view.version())?.encode();
                propose(context, target.home, command).await?;
            }
            Some(seed_response::Message::Chunk(chunk)) => {
                propose_chunk(context, &mut decompressor, &session, chunk).await?
            }
            Some(seed_response::Message::NotLeader(other)) => {
                return Err(SeedError::NotLeader(wire::leader_from(other)));
            }
            Some(seed_response::Message::Refused(refused)) => {
                let is_useless = refused.reason() == Reason::SeedNeeded;
                return Err(if is_useless {
                    SeedError::Void
                } else {
                    SeedError::Refused
                });
            }
            None => {}
        }
    }
    Ok(())
}

/// State of a requested seed. It resumes the copy that is being built, if there is one and it is not to be fresh.
#[derive(Debug)]
struct SeedSession {
    home: GroupId,
    tenant: TenantNumber,
    epoch: Epoch,
    number: SeedNumber,
    resumed: Option<ShadowCopy>,
    clients: ClientsLoaded,
    /// Its first revision, once it has begun.
    first: Option<Revision>,
}

impl SeedSession {
    /// Returns the seed to request; `None` for a tenant that is not held, or if this node's rows are closed.
    fn of(context: &GroupContext, target: SeedTarget) -> Option<Self> {
        let SeedTarget { home, tenant, fresh } = target;
        let asked = context.machine.read(|held| {
            let record = held.record(tenant)?;
            let resumed = record.shadow.clone().filter(|_| !fresh);
            let clients = held.shard().clients_loaded(tenant).filter(|_| !fresh);
            Some(Self {
                home,
                tenant,
                epoch: record.epoch,
                number: resumed.as_ref().map_or(record.seeds.next(), |shadow| shadow.number),
                first: resumed.as_ref().map(|shadow| shadow.seed),
                resumed,
                clients: clients.unwrap_or_default(),
            })
        });
        asked.ok().flatten()
    }

    fn request(&self, follower: GroupId) -> SeedRequest {
        let shadow = self.resumed.as_ref();
        SeedRequest {
            follower_group: follower.get(),
            home_group: self.home.get(),
            tenant: self.tenant.get(),
            epoch: self.epoch.get(),
            first: shadow.map_or(0, |shadow| shadow.seed.to_u64()),
            loaded: shadow.map_or(0, |shadow| shadow.loaded.get()),
            clients_loaded: wire::clients(self.clients),
            number: self.number.0,
            keys_loaded: shadow.map_or(0, |shadow| shadow.state.keys),
            bytes_loaded: shadow.map_or(0, |shadow| shadow.state.len),
        }
    }

    /// Records that the home has begun the seed; returns the command that begins the new copy, as of this view.
    fn begin(&mut self, begun: SeedBegun, version: DirectoryVersion) -> Result<Seed, InvalidFeedData> {
        let first = Revision::from_u64(begun.first);
        // A seed begins once, and a resumed one has begun.
        if self.first.is_some() || first.epoch() > self.epoch {
            return Err(InvalidFeedData::OtherSession);
        }
        let mut reader = Reader::new(begun.lineage, "lineage");
        let lineage = Lineage::decode(&mut reader)?;
        reader.end()?;
        self.first = Some(first);
        Ok(Seed {
            tenant: self.tenant,
            home: self.home,
            epoch: self.epoch,
            version,
            number: self.number,
            first,
            lineage,
        })
    }

    /// Checks a chunk command of the seed, before every replica reads it from the log.
    fn check_chunk(&self, command: &Bytes) -> Result<(), InvalidFeedData> {
        let malformed = Malformed { what: "seed" };
        let (kind, bytes) = (*command.first().ok_or(malformed)?, command.slice(1..));
        if kind != kind::CHUNK {
            return Err(InvalidFeedData::OtherSession);
        }
        let Command::Chunk(chunk) = Command::decode(kind, bytes)? else {
            return Err(InvalidFeedData::OtherSession);
        };
        let (sent, own) = (
            (chunk.home, chunk.tenant, chunk.epoch, chunk.number),
            (self.home, self.tenant, self.epoch, self.number),
        );
        let first = self
            .first
            .filter(|_| sent == own && chunk.read_at.epoch() <= chunk.epoch);
        let first = first.ok_or(InvalidFeedData::OtherSession)?;
        check_chunk(&chunk.part, chunk.epoch, first, chunk.read_at)
    }
}

/// Decompresses, checks and proposes a chunk.
async fn propose_chunk(
    context: &GroupContext,
    decompressor: &mut PayloadDecompressor,
    session: &SeedSession,
    chunk: SeedChunk,
) -> Result<(), SeedError> {
    let malformed = Malformed {
        what: "compressed chunk of a seed",
    };
    let command = decompressor
        .decompress(chunk.payload, chunk.raw_len)
        .map_err(|_| InvalidFeedData::Unreadable(malformed))?;
    session.check_chunk(&command)?;
    propose(context, session.home, command).await
}

async fn propose(context: &GroupContext, home: GroupId, command: Bytes) -> Result<(), SeedError> {
    let class = proposal_class::SEED + u64::from(home.get());
    context.wait_for_room().await;
    let answers = context
        .group
        .propose(class, vec![command])
        .await
        .map_err(|_| SeedError::Refused)?;
    if answers.iter().all(|answer| *answer == ApplyResult::Done) {
        Ok(())
    } else {
        Err(SeedError::Void)
    }
}

#[cfg(test)]
mod tests {
    use stead_state::{
        codec::Writer,
        shard::command::{Chunk, ChunkContent, Effect, Operation, Write},
    };
    use stead_types::Sequence;

    use super::*;

    const HOME: GroupId = GroupId::new(3);
    const T: TenantNumber = TenantNumber::new(7);
    const OTHER: InvalidFeedData = InvalidFeedData::OtherSession;

    fn session() -> SeedSession {
        SeedSession {
            home: HOME,
            tenant: T,
            epoch: Epoch::FIRST,
            number: SeedNumber(5),
            resumed: None,
            clients: ClientsLoaded::default(),
            first: None,
        }
    }

    fn first() -> Revision {
        Revision::new(Epoch::FIRST, Sequence::new(9).unwrap())
    }

    fn begun(first: Revision) -> SeedBegun {
        let mut lineage = Writer::default();
        Lineage::starting(Epoch::FIRST).encode(&mut lineage);
        SeedBegun {
            first: first.to_u64(),
            lineage: lineage.finish(),
        }
    }

    /// Returns a session whose seed has begun.
    fn begun_session() -> SeedSession {
        let mut session = session();
        session.begin(begun(first()), DirectoryVersion::ZERO).unwrap();
        session
    }

    fn chunk() -> Chunk {
        let part = ChunkContent::Changes {
            after: Sequence::ZERO,
            up_to: first().sequence(),
            changes: Vec::new(),
        };
        Chunk {
            tenant: T,
            home: HOME,
            epoch: Epoch::FIRST,
            number: SeedNumber(5),
            read_at: first(),
            part,
        }
    }

    #[test]
    fn seed_begins_once_and_accepts_its_own_chunks() {
        let mut session = session();
        assert_eq!(session.check_chunk(&chunk().encode()), Err(OTHER), "it has not begun");
        let version = DirectoryVersion {
            incarnation: stead_types::Incarnation::FIRST,
            index: 77,
        };
        let seed = session.begin(begun(first()), version).unwrap();
        assert_eq!((seed.tenant, seed.home, seed.epoch), (T, HOME, Epoch::FIRST));
        assert_eq!(
            (seed.version, seed.number, seed.first),
            (version, SeedNumber(5), first())
        );
        assert_eq!(session.check_chunk(&chunk().encode()), Ok(()));
        assert_eq!(session.begin(begun(first()), version), Err(OTHER), "it has begun");
    }

    #[test]
    fn chunk_of_another_tenant_epoch_or_seed_is_refused() {
        let session = begun_session();
        let refused = |chunk: Chunk| session.check_chunk(&chunk.encode()).unwrap_err();
        let (tenant, home, epoch) = (TenantNumber::new(8), GroupId::new(4), Epoch::new(2).unwrap());
        assert_eq!(refused(Chunk { tenant, ..chunk() }), OTHER);
        assert_eq!(refused(Chunk { home, ..chunk() }), OTHER);
        assert_eq!(refused(Chunk { epoch, ..chunk() }), OTHER);
        for number in [SeedNumber(4), SeedNumber(6)] {
            assert_eq!(refused(Chunk { number, ..chunk() }), OTHER);
        }
        let read_at = Revision::new(epoch, first().sequence());
        assert_eq!(refused(Chunk { read_at, ..chunk() }), OTHER);
    }

    #[test]
    fn begin_with_later_epoch_or_cut_lineage_is_refused() {
        let later = Revision::new(Epoch::new(2).unwrap(), first().sequence());
        let refused = |begun| session().begin(begun, DirectoryVersion::ZERO).unwrap_err();
        assert_eq!(refused(begun(later)), OTHER);
        let whole = begun(first());
        for end in 0..whole.lineage.len() {
            let lineage = whole.lineage.slice(..end);
            let cut = refused(SeedBegun {
                lineage,
                ..whole.clone()
            });
            assert!(matches!(cut, InvalidFeedData::Unreadable(_)), "cut at {end}: {cut:?}");
        }
    }

    #[test]
    fn malformed_chunk_is_refused() {
        let session = begun_session();
        let write = Write::new(T, None, Operation::new("k", Effect::Delete)).encode();
        assert_eq!(session.check_chunk(&write), Err(OTHER));
        assert!(matches!(
            session.check_chunk(&Bytes::new()),
            Err(InvalidFeedData::Unreadable(_))
        ));
        let whole = chunk().encode();
        for end in 1..whole.len() {
            let cut = session.check_chunk(&whole.slice(..end));
            assert!(
                matches!(cut, Err(InvalidFeedData::Unreadable(_))),
                "cut at {end}: {cut:?}"
            );
        }
        assert!(session.check_chunk(&Bytes::from_static(b"\xc8?")).is_err());
    }
}
