//! Seeding from the home's side: a tenant's state in chunks, within a bandwidth of its own.

use std::{sync::Arc, time::Duration};

use stead_api::proto::internal::v1::{
    FeedNotLeader, FeedRefused, SeedBegun, SeedChunk, SeedRequest, SeedResponse, feed_refused::Reason,
    seed_response::Message,
};
use stead_raft::{COMMAND_BYTES, PROPOSAL_LEN_MAX, ReadIndexError};
use stead_state::{
    codec::Writer,
    rows::change::{EFFECTS_MAX, HEAD_LEN_MAX},
    shard::{
        command::{Chunk, Part},
        read::{Reading, Refused},
        record::{ClientsLoaded, SeedNumber},
    },
};
use stead_types::{
    Epoch, GroupId, NodeId, Revision, Sequence, TenantNumber,
    limits::CHANGE_LEN_MAX,
    planted::{self, Bug},
};
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use crate::{
    counters::Border,
    local::{Local, may_follow},
    payload::{Packer, RAW_LEN_MAX},
    wire,
};

/// About how many bytes a chunk has before compression.
const CHUNK_BYTES: usize = 256 << 10;
/// Longest chunk before compression: one of changes ends with a whole one.
const CHUNK_LEN_MAX: usize = CHUNK_BYTES + CHANGE_LEN_MAX + EFFECTS_MAX * HEAD_LEN_MAX;

const _: () = assert!(
    CHUNK_LEN_MAX <= RAW_LEN_MAX && CHUNK_LEN_MAX + COMMAND_BYTES <= PROPOSAL_LEN_MAX,
    "a chunk would not reach the follower, or never find room in its log"
);

/// What one seed takes at most of the way between two regions, before compression.
const BYTES_PER_SECOND_MAX: u32 = 16 << 20;

/// A seed under way.
pub(crate) struct Seeding {
    local: Arc<Local>,
    follower: GroupId,
    border: Option<Border>,
    tenant: TenantNumber,
    epoch: Epoch,
    /// The follower's number of the seed.
    number: SeedNumber,
    /// The seed's first revision; `None` before it has begun.
    first: Option<Revision>,
    loaded: Sequence,
    clients: ClientsLoaded,
    packer: Packer,
    next_at: Instant,
    has_ended: bool,
}

/// What comes next.
enum Next {
    Begun(SeedBegun),
    Chunk(bytes::Bytes),
}

/// Why there is no chunk.
enum NoChunk {
    End,
    Refused(Reason),
    Failed(Status),
}

impl Seeding {
    /// Takes in what a follower asks for.
    pub(crate) fn new(local: Arc<Local>, request: &SeedRequest) -> Result<Self, wire::Garbled> {
        let follower = GroupId::new(request.follower_group);
        let clients = wire::read_clients(&request.clients_loaded)?;
        Ok(Self {
            border: local.border_to(follower),
            follower,
            tenant: TenantNumber::new(request.tenant),
            epoch: wire::epoch(request.epoch)?,
            number: SeedNumber(request.number),
            first: (request.first != 0).then_some(Revision::from_u64(request.first)),
            loaded: Sequence::new(request.loaded).ok_or(wire::Garbled("sequence"))?,
            clients,
            packer: Packer::new(),
            next_at: Instant::now(),
            has_ended: false,
            local,
        })
    }

    /// Returns the next message, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<SeedResponse, Status>> {
        if self.has_ended {
            return None;
        }
        sleep_until(self.next_at).await;
        if let Err(error) = self.local.group.read_index().await {
            self.has_ended = true;
            return Some(Ok(not_leader(error)));
        }
        match self.chunk() {
            Ok(Next::Begun(begun)) => Some(Ok(response(Message::Begun(begun)))),
            Ok(Next::Chunk(command)) => Some(Ok(self.send(command))),
            Err(NoChunk::End) => None,
            Err(NoChunk::Refused(reason)) => {
                self.has_ended = true;
                let (tenant, epoch, reason) = (self.tenant.get(), self.epoch.get(), reason.into());
                let refused = FeedRefused {
                    tenant,
                    epoch,
                    reason,
                    attach: 0,
                };
                Some(Ok(response(Message::Refused(refused))))
            }
            Err(NoChunk::Failed(status)) => {
                self.has_ended = true;
                Some(Err(status))
            }
        }
    }

    fn send(&mut self, command: bytes::Bytes) -> SeedResponse {
        let len = u32::try_from(command.len()).unwrap_or(u32::MAX);
        self.next_at = Instant::now() + Duration::from_secs(1) * len / BYTES_PER_SECOND_MAX;
        let (payload, raw_len) = self.packer.pack(command.to_vec());
        if let Some(border) = &self.border {
            self.local
                .counters
                .add(border, &[(self.tenant, command.len())], payload.len());
        }
        response(Message::Chunk(SeedChunk { payload, raw_len }))
    }

    /// Returns what comes next.
    fn chunk(&mut self) -> Result<Next, NoChunk> {
        let local = self.local.clone();
        let may_follow = local
            .views
            .read(|view| may_follow(view, self.tenant, local.id(), self.follower));
        if !may_follow && !planted::is(Bug::SeedToAnybody) {
            return Err(NoChunk::Refused(Reason::NotAdmitted));
        }
        let read = local.machine.read(|held| {
            let reading = held.reading(self.tenant);
            let reading = reading.filter(|reading| reading.record().owned() == Some(self.epoch));
            self.read(reading.ok_or(NoChunk::Refused(Reason::NotOwner))?)
        });
        read.unwrap_or_else(|half_changed| Err(self.failed(Refused::Unreadable(half_changed.into()))))
    }

    fn read(&mut self, reading: Reading<'_>) -> Result<Next, NoChunk> {
        let Some(first) = self.first else {
            let first = reading.state().revision;
            self.first = Some(first);
            self.loaded = Sequence::ZERO;
            self.clients = ClientsLoaded::default();
            let mut lineage = Writer::default();
            reading.record().lineage.encode(&mut lineage);
            return Ok(Next::Begun(SeedBegun {
                first: first.to_u64(),
                lineage: lineage.finish(),
            }));
        };
        let part = if self.loaded < first.sequence() {
            let part = reading.chunk_of_changes(self.loaded, first, CHUNK_BYTES);
            part.map_err(|refused| self.failed(refused))?
        } else {
            if self.clients.is_all() {
                return Err(NoChunk::End);
            }
            reading.chunk_of_clients(self.clients, CHUNK_BYTES)
        };
        match &part {
            Part::Changes { up_to, .. } => self.loaded = *up_to,
            Part::Clients { up_to, windows, .. } => self.clients = self.clients.and(*up_to, windows),
        }
        let read_at = reading.state().revision;
        let chunk = Chunk {
            tenant: self.tenant,
            home: self.local.id(),
            epoch: self.epoch,
            number: self.number,
            read_at,
            part,
        };
        Ok(Next::Chunk(chunk.encode()))
    }

    fn failed(&self, refused: Refused) -> NoChunk {
        match refused {
            Refused::Unreadable(unreadable) => {
                self.local.unreadable(unreadable);
                NoChunk::Failed(Status::internal("storage could not be read"))
            }
            Refused::Forked { .. } | Refused::NotReached { .. } | Refused::Compacted { .. } => {
                NoChunk::Refused(Reason::Forked)
            }
        }
    }
}

fn response(message: Message) -> SeedResponse {
    SeedResponse { message: Some(message) }
}

fn not_leader(error: ReadIndexError) -> SeedResponse {
    let leader = match error {
        ReadIndexError::NotLeader { leader } => leader,
        ReadIndexError::NoQuorum | ReadIndexError::Overloaded | ReadIndexError::Stopped => None,
    };
    response(Message::NotLeader(FeedNotLeader {
        leader: leader.map_or(0, NodeId::get),
    }))
}
