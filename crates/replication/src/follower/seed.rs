//! Seeding from the follower's side: chunks of a second connection become entries of the own log.

use std::sync::Arc;

use bytes::Bytes;
use stead_api::proto::internal::v1::{SeedChunk, SeedRequest, seed_response};
use stead_state::{
    codec::Malformed,
    shard::{
        answer::Answer,
        command::Command,
        incoming::{Unacceptable, check_part},
    },
};
use stead_types::{ClientId, GroupId, NodeId, Revision, TenantNumber};
use tonic::Streaming;

use super::CLASS;
use crate::{local::Local, payload::Unpacker, peers::Peers};

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
    /// The home refused, or its message is not what it should be.
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
    let request = request(local, home, tenant, fresh).ok_or(Failed::Refused)?;
    let mut client = peers.client_alone(node).ok_or(Failed::Unreachable)?;
    let broken = |status: tonic::Status| {
        local.alarms.note(&status);
        Failed::Unreachable
    };
    let mut session = Session::of(home, tenant, &request);
    let mut chunks: Streaming<_> = client.seed(request).await.map_err(broken)?.into_inner();
    let mut unpacker = Unpacker::new();
    while let Some(response) = chunks.message().await.map_err(broken)? {
        match response.message {
            Some(seed_response::Message::Chunk(chunk)) => take_in(local, &mut unpacker, &mut session, chunk).await?,
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

/// What is asked for: to go on with the copy being built, if there is one of this home and epoch.
fn request(local: &Local, home: GroupId, tenant: TenantNumber, fresh: bool) -> Option<SeedRequest> {
    local.machine.read(|held| {
        let record = held.record(tenant)?;
        let shadow = record.shadow.as_ref().filter(|_| !fresh);
        let clients = shadow.and_then(stead_state::shard::record::Shadow::clients_loaded_to);
        Some(SeedRequest {
            follower_group: local.id().get(),
            home_group: home.get(),
            tenant: tenant.get(),
            epoch: record.epoch.get(),
            first: shadow.map_or(0, |shadow| shadow.seed.to_u64()),
            loaded: shadow.map_or(0, |shadow| shadow.loaded.get()),
            clients_loaded: clients
                .map(|ClientId(id)| id.to_be_bytes().to_vec().into())
                .unwrap_or_default(),
        })
    })
}

/// The seed that was asked for, and where it is.
#[derive(Debug)]
struct Session {
    home: GroupId,
    tenant: TenantNumber,
    epoch: u32,
    /// Its first revision, once it has begun.
    first: Option<Revision>,
}

impl Session {
    fn of(home: GroupId, tenant: TenantNumber, request: &SeedRequest) -> Self {
        Self {
            home,
            tenant,
            epoch: request.epoch,
            first: (request.first != 0).then_some(Revision::from_u64(request.first)),
        }
    }

    /// Checks what has come: a beginning, or a part of what has begun. In the log it would be read by every replica.
    fn check(&mut self, command: &Bytes) -> Result<(), Unacceptable> {
        let own = (self.home, self.tenant, self.epoch);
        let kind = command.first().ok_or(Malformed { what: "seed" })?;
        let command = Command::decode(*kind, command.slice(1..))?;
        if let Command::Seed(seed) = &command
            && (seed.home, seed.tenant, seed.epoch.get()) == own
            && seed.first.epoch() <= seed.epoch
        {
            self.first = Some(seed.first);
            return Ok(());
        }
        if let Command::Chunk(chunk) = &command
            && (chunk.home, chunk.tenant, chunk.epoch.get()) == own
            && Some(chunk.first) == self.first
            && chunk.read_at.epoch() <= chunk.epoch
        {
            return check_part(&chunk.part, chunk.epoch, chunk.first, chunk.read_at);
        }
        Err(Unacceptable::OtherSession)
    }
}

async fn take_in(
    local: &Local,
    unpacker: &mut Unpacker,
    session: &mut Session,
    chunk: SeedChunk,
) -> Result<(), Failed> {
    let malformed = Malformed {
        what: "compressed chunk of a seed",
    };
    let command = unpacker
        .unpack(chunk.payload, chunk.raw_len)
        .map_err(|_| Unacceptable::Unreadable(malformed))?;
    session.check(&command)?;
    let class = CLASS + (1 << 32) + u64::from(session.home.get());
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
        lineage::Lineage,
        shard::command::{Chunk, Effect, Operation, Part, Seed, Write},
    };
    use stead_types::{Epoch, Sequence};

    use super::*;

    const HOME: GroupId = GroupId::new(3);
    const T: TenantNumber = TenantNumber::new(7);

    fn session() -> Session {
        Session {
            home: HOME,
            tenant: T,
            epoch: 1,
            first: None,
        }
    }

    fn first() -> Revision {
        Revision::new(Epoch::FIRST, Sequence::new(9).unwrap())
    }

    fn begin() -> Seed {
        Seed {
            tenant: T,
            home: HOME,
            epoch: Epoch::FIRST,
            first: first(),
            lineage: Lineage::starting(Epoch::FIRST),
        }
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
            first: first(),
            read_at: first(),
            part,
        }
    }

    #[test]
    fn seed_begins_and_goes_on_with_its_own_parts() {
        let mut session = session();
        let other = Err(Unacceptable::OtherSession);
        assert_eq!(session.check(&chunk().encode()), other, "it has not begun");
        assert_eq!(session.check(&begin().encode()), Ok(()));
        assert_eq!(session.check(&chunk().encode()), Ok(()));
        let earlier = Revision::new(Epoch::FIRST, Sequence::new(8).unwrap());
        assert_eq!(
            session.check(
                &Chunk {
                    first: earlier,
                    ..chunk()
                }
                .encode()
            ),
            other
        );
    }

    #[test]
    fn part_of_another_tenant_home_or_epoch_is_refused() {
        let mut session = session();
        let mut refused = |seed: Seed| session.check(&seed.encode());
        let other = Err(Unacceptable::OtherSession);
        let (tenant, home, epoch) = (TenantNumber::new(8), GroupId::new(4), Epoch::new(2).unwrap());
        assert_eq!(refused(Seed { tenant, ..begin() }), other);
        assert_eq!(refused(Seed { home, ..begin() }), other);
        assert_eq!(refused(Seed { epoch, ..begin() }), other);
    }

    #[test]
    fn bytes_that_are_no_part_of_a_seed_are_refused() {
        let mut session = session();
        let write = Write::new(T, None, Operation::new("k", Effect::Delete)).encode();
        assert_eq!(session.check(&write), Err(Unacceptable::OtherSession));
        assert!(matches!(session.check(&Bytes::new()), Err(Unacceptable::Unreadable(_))));
        let whole = begin().encode();
        for end in 1..whole.len() {
            let cut = session.check(&whole.slice(..end));
            assert!(matches!(cut, Err(Unacceptable::Unreadable(_))), "cut at {end}: {cut:?}");
        }
        assert!(session.check(&Bytes::from_static(b"\xc8?")).is_err());
    }
}
