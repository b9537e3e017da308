//! Seeding from the follower's side: chunks of a second connection become entries of the own log.

use std::sync::Arc;

use bytes::Bytes;
use stead_api::proto::internal::v1::{SeedBegun, SeedChunk, SeedRequest, seed_response};
use stead_state::{
    codec::{Malformed, Reader},
    lineage::Lineage,
    shard::{
        answer::Answer,
        command::{Command, Seed, kind},
        incoming::{Unacceptable, check_part},
        record::{ClientsLoaded, SeedNumber, Shadow},
    },
};
use stead_types::{DirectoryVersion, Epoch, GroupId, NodeId, Revision, TenantNumber};
use tonic::Streaming;

use super::CLASS;
use crate::{local::Local, payload::Unpacker, peers::Peers, wire};

/// Builds a copy of a tenant beside the live one, or goes on with it unless it is to be `fresh`. Returns whether all its
/// chunks are in.
pub(crate) async fn seed(
    local: Arc<Local>,
    peers: Arc<Peers>,
    home: GroupId,
    (tenant, mut fresh): (TenantNumber, bool),
) -> bool {
    let mut nodes = peers.voters(home);
    let mut tries = 0..2 * nodes.len();
    while !nodes.is_empty() && tries.next().is_some() {
        let node = nodes.remove(0);
        match Box::pin(from(&local, &peers, (home, node), (tenant, fresh))).await {
            Ok(()) => return true,
            Err(Failed::Void) if !fresh => {
                fresh = true;
                nodes.insert(0, node);
            }
            Err(Failed::NotLeader(Some(leader))) if leader != node => {
                nodes.retain(|other| *other != leader);
                nodes.insert(0, leader);
            }
            Err(Failed::NotLeader(_) | Failed::Unreachable) => {}
            Err(Failed::Unacceptable(why)) => {
                local.unacceptable(home, tenant, &why);
                return false;
            }
            Err(Failed::Refused | Failed::Void) => return false,
        }
    }
    false
}

enum Failed {
    /// Another node leads the home.
    NotLeader(Option<NodeId>),
    /// The connection broke.
    Unreachable,
    /// The home refused, or nothing can be asked for or proposed.
    Refused,
    /// The own log did not take a chunk: it belongs to another seed than the one that is under way.
    Void,
    /// What the home has sent must not be proposed.
    Unacceptable(Unacceptable),
}

impl From<Unacceptable> for Failed {
    fn from(why: Unacceptable) -> Self {
        Self::Unacceptable(why)
    }
}

async fn from(
    local: &Local,
    peers: &Peers,
    (home, node): (GroupId, NodeId),
    (tenant, fresh): (TenantNumber, bool),
) -> Result<(), Failed> {
    let mut session = Session::of(local, home, tenant, fresh).ok_or(Failed::Refused)?;
    let mut client = peers.client_alone(node).ok_or(Failed::Unreachable)?;
    let broken = |status: tonic::Status| {
        local.alarms.note(&status);
        Failed::Unreachable
    };
    let request = session.request(local.id());
    let mut chunks: Streaming<_> = client.seed(request).await.map_err(broken)?.into_inner();
    let mut unpacker = Unpacker::new();
    while let Some(response) = chunks.message().await.map_err(broken)? {
        match response.message {
            Some(seed_response::Message::Begun(begun)) => {
                let command = session.begun(begun, local.views.version())?.encode();
                propose(local, home, command).await?;
            }
            Some(seed_response::Message::Chunk(chunk)) => take_in(local, &mut unpacker, &session, chunk).await?,
            Some(seed_response::Message::NotLeader(other)) => {
                return Err(Failed::NotLeader(
                    (other.leader != 0).then_some(NodeId::new(other.leader)),
                ));
            }
            Some(seed_response::Message::Refused(_)) => return Err(Failed::Refused),
            None => {}
        }
    }
    Ok(())
}

/// The seed that is asked for, and where it is: it goes on with the copy being built, if there is one and it is not to be
/// fresh, else it is a new one.
#[derive(Debug)]
struct Session {
    home: GroupId,
    tenant: TenantNumber,
    epoch: Epoch,
    number: SeedNumber,
    goes_on: Option<Shadow>,
    clients: ClientsLoaded,
    /// Its first revision, once it has begun.
    first: Option<Revision>,
}

impl Session {
    /// Works out what to ask for; `None` for a tenant that is not held, or if the own rows are closed.
    fn of(local: &Local, home: GroupId, tenant: TenantNumber, fresh: bool) -> Option<Self> {
        let asked = local.machine.read(|held| {
            let record = held.record(tenant)?;
            let goes_on = record.shadow.clone().filter(|_| !fresh);
            let clients = held.shard().clients_loaded(tenant).filter(|_| !fresh);
            Some(Self {
                home,
                tenant,
                epoch: record.epoch,
                number: goes_on.as_ref().map_or(record.seeds.next(), |shadow| shadow.number),
                first: goes_on.as_ref().map(|shadow| shadow.seed),
                goes_on,
                clients: clients.unwrap_or_default(),
            })
        });
        asked.ok().flatten()
    }

    fn request(&self, follower: GroupId) -> SeedRequest {
        let shadow = self.goes_on.as_ref();
        SeedRequest {
            follower_group: follower.get(),
            home_group: self.home.get(),
            tenant: self.tenant.get(),
            epoch: self.epoch.get(),
            first: shadow.map_or(0, |shadow| shadow.seed.to_u64()),
            loaded: shadow.map_or(0, |shadow| shadow.loaded.get()),
            clients_loaded: wire::clients(self.clients),
            number: self.number.0,
        }
    }

    /// Takes in that it has begun; returns the command that begins the new copy, as of this view.
    fn begun(&mut self, begun: SeedBegun, version: DirectoryVersion) -> Result<Seed, Unacceptable> {
        let first = Revision::from_u64(begun.first);
        // A seed begins once, and one that is gone on with has begun.
        if self.first.is_some() || first.epoch() > self.epoch {
            return Err(Unacceptable::OtherSession);
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

    /// Checks a part of what has begun. In the log it would be read by every replica.
    fn check(&self, command: &Bytes) -> Result<(), Unacceptable> {
        let malformed = Malformed { what: "seed" };
        let (kind, bytes) = (*command.first().ok_or(malformed)?, command.slice(1..));
        if kind != kind::CHUNK {
            return Err(Unacceptable::OtherSession);
        }
        let Command::Chunk(chunk) = Command::decode(kind, bytes)? else {
            return Err(Unacceptable::OtherSession);
        };
        let (sent, own) = (
            (chunk.home, chunk.tenant, chunk.epoch, chunk.number),
            (self.home, self.tenant, self.epoch, self.number),
        );
        let first = self
            .first
            .filter(|_| sent == own && chunk.read_at.epoch() <= chunk.epoch);
        let first = first.ok_or(Unacceptable::OtherSession)?;
        check_part(&chunk.part, chunk.epoch, first, chunk.read_at)
    }
}

async fn take_in(local: &Local, unpacker: &mut Unpacker, session: &Session, chunk: SeedChunk) -> Result<(), Failed> {
    let malformed = Malformed {
        what: "compressed chunk of a seed",
    };
    let command = unpacker
        .unpack(chunk.payload, chunk.raw_len)
        .map_err(|_| Unacceptable::Unreadable(malformed))?;
    session.check(&command)?;
    propose(local, session.home, command).await
}

async fn propose(local: &Local, home: GroupId, command: Bytes) -> Result<(), Failed> {
    let class = CLASS + (1 << 32) + u64::from(home.get());
    let answers = local
        .group
        .propose(class, vec![command])
        .await
        .map_err(|_| Failed::Refused)?;
    let is_done =
        |answer: stead_store::machine::Answer| answer.downcast::<Answer>().is_ok_and(|answer| *answer == Answer::Done);
    if answers.into_iter().all(is_done) {
        Ok(())
    } else {
        Err(Failed::Void)
    }
}

#[cfg(test)]
mod tests {
    use stead_state::{
        codec::Writer,
        shard::command::{Chunk, Effect, Operation, Part, Write},
    };
    use stead_types::Sequence;

    use super::*;

    const HOME: GroupId = GroupId::new(3);
    const T: TenantNumber = TenantNumber::new(7);
    const OTHER: Unacceptable = Unacceptable::OtherSession;

    fn session() -> Session {
        Session {
            home: HOME,
            tenant: T,
            epoch: Epoch::FIRST,
            number: SeedNumber(5),
            goes_on: None,
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
    fn begun_session() -> Session {
        let mut session = session();
        session.begun(begun(first()), DirectoryVersion::ZERO).unwrap();
        session
    }

    fn chunk() -> Chunk {
        let part = Part::Changes {
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
    fn seed_begins_once_and_goes_on_with_its_own_parts() {
        let mut session = session();
        assert_eq!(session.check(&chunk().encode()), Err(OTHER), "it has not begun");
        let version = DirectoryVersion {
            incarnation: stead_types::Incarnation::FIRST,
            index: 77,
        };
        let seed = session.begun(begun(first()), version).unwrap();
        assert_eq!((seed.tenant, seed.home, seed.epoch), (T, HOME, Epoch::FIRST));
        assert_eq!(
            (seed.version, seed.number, seed.first),
            (version, SeedNumber(5), first())
        );
        assert_eq!(session.check(&chunk().encode()), Ok(()));
        assert_eq!(session.begun(begun(first()), version), Err(OTHER), "it has begun");
    }

    #[test]
    fn part_of_another_tenant_home_epoch_or_seed_is_refused() {
        let session = begun_session();
        let refused = |chunk: Chunk| session.check(&chunk.encode()).unwrap_err();
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
    fn beginning_of_a_later_epoch_or_without_a_lineage_is_refused() {
        let later = Revision::new(Epoch::new(2).unwrap(), first().sequence());
        let refused = |begun| session().begun(begun, DirectoryVersion::ZERO).unwrap_err();
        assert_eq!(refused(begun(later)), OTHER);
        let whole = begun(first());
        for end in 0..whole.lineage.len() {
            let lineage = whole.lineage.slice(..end);
            let cut = refused(SeedBegun {
                lineage,
                ..whole.clone()
            });
            assert!(matches!(cut, Unacceptable::Unreadable(_)), "cut at {end}: {cut:?}");
        }
    }

    #[test]
    fn bytes_that_are_no_part_of_a_seed_are_refused() {
        let session = begun_session();
        let write = Write::new(T, None, Operation::new("k", Effect::Delete)).encode();
        assert_eq!(session.check(&write), Err(OTHER));
        assert!(matches!(session.check(&Bytes::new()), Err(Unacceptable::Unreadable(_))));
        let whole = chunk().encode();
        for end in 1..whole.len() {
            let cut = session.check(&whole.slice(..end));
            assert!(matches!(cut, Err(Unacceptable::Unreadable(_))), "cut at {end}: {cut:?}");
        }
        assert!(session.check(&Bytes::from_static(b"\xc8?")).is_err());
    }
}
