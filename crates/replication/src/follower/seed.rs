//! Seeding from the follower's side: chunks of a second connection become entries of the own log.

use std::sync::Arc;

use bytes::Bytes;
use stead_api::proto::internal::v1::{SeedBegun, SeedChunk, SeedRequest, seed_response};
use stead_state::{
    codec::Reader,
    lineage::Lineage,
    shard::{
        answer::Answer,
        command::{Seed, kind},
        record::{ClientsLoaded, SeedNumber, Shadow},
    },
};
use stead_types::{Epoch, GroupId, NodeId, Revision, TenantNumber};
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
}

impl From<tonic::Status> for Failed {
    fn from(_: tonic::Status) -> Self {
        Self::Unreachable
    }
}

async fn from(
    local: &Local,
    peers: &Peers,
    (home, node): (GroupId, NodeId),
    (tenant, fresh): (TenantNumber, bool),
) -> Result<(), Failed> {
    let asked = Asked::of(local, tenant, fresh).ok_or(Failed::Refused)?;
    let mut client = peers.client_alone(node).ok_or(Failed::Unreachable)?;
    let request = asked.request(local.id(), home);
    let mut chunks: Streaming<_> = client.seed(request).await?.into_inner();
    let mut unpacker = Unpacker::new();
    while let Some(response) = chunks.message().await? {
        match response.message {
            Some(seed_response::Message::Begun(begun)) => {
                let command = asked.begun(local, home, begun).ok_or(Failed::Refused)?;
                propose(local, home, command).await?;
            }
            Some(seed_response::Message::Chunk(chunk)) => take_in(local, &mut unpacker, home, chunk).await?,
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

/// What is asked for: to go on with the copy being built, if there is one and it is not to be fresh, else a new one.
struct Asked {
    tenant: TenantNumber,
    epoch: Epoch,
    number: SeedNumber,
    goes_on: Option<Shadow>,
    clients: ClientsLoaded,
}

impl Asked {
    /// Works out what to ask for; `None` for a tenant that is not held, or if the own rows are closed.
    fn of(local: &Local, tenant: TenantNumber, fresh: bool) -> Option<Self> {
        let asked = local.machine.read(|held| {
            let record = held.record(tenant)?;
            let goes_on = record.shadow.clone().filter(|_| !fresh);
            let clients = held.shard().clients_loaded(tenant).filter(|_| !fresh);
            Some(Self {
                tenant,
                epoch: record.epoch,
                number: goes_on.as_ref().map_or(record.seeds.next(), |shadow| shadow.number),
                goes_on,
                clients: clients.unwrap_or_default(),
            })
        });
        asked.ok().flatten()
    }

    fn request(&self, follower: GroupId, home: GroupId) -> SeedRequest {
        let shadow = self.goes_on.as_ref();
        SeedRequest {
            follower_group: follower.get(),
            home_group: home.get(),
            tenant: self.tenant.get(),
            epoch: self.epoch.get(),
            first: shadow.map_or(0, |shadow| shadow.seed.to_u64()),
            loaded: shadow.map_or(0, |shadow| shadow.loaded.get()),
            clients_loaded: wire::clients(self.clients),
            number: self.number.0,
        }
    }

    /// Returns the command that begins the new copy; `None` if it cannot be read.
    fn begun(&self, local: &Local, home: GroupId, begun: SeedBegun) -> Option<Bytes> {
        let mut lineage = Reader::new(begun.lineage, "lineage");
        let seed = Seed {
            tenant: self.tenant,
            home,
            epoch: self.epoch,
            version: local.views.version(),
            number: self.number,
            first: Revision::from_u64(begun.first),
            lineage: Lineage::decode(&mut lineage).ok()?,
        };
        lineage.end().ok()?;
        Some(seed.encode())
    }
}

async fn take_in(local: &Local, unpacker: &mut Unpacker, home: GroupId, chunk: SeedChunk) -> Result<(), Failed> {
    let command = unpacker
        .unpack(chunk.payload, chunk.raw_len)
        .map_err(|_| Failed::Refused)?;
    if command.first() != Some(&kind::CHUNK) {
        return Err(Failed::Refused);
    }
    propose(local, home, command).await
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
