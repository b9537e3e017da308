//! The home's end of a seed: sends a tenant's state to a follower in chunks, with a bandwidth limit of its own.

use std::sync::Arc;

use stead_api::proto::internal::v1::{
    FeedRefused, SeedBegun, SeedChunk, SeedRequest, SeedResponse, feed_refused::Reason, seed_response::Message,
};
use stead_raft::{COMMAND_BYTES, PROPOSAL_LEN_MAX};
use stead_state::{
    codec::Writer,
    rows::change::{Change, EFFECTS_MAX, HEAD_LEN_MAX},
    sent_ledger::SentPart,
    shard::{
        command::{Chunk, ChunkContent},
        read::{ReadError, TenantReader},
        record::{ClientsLoaded, SeedNumber},
    },
};
use stead_types::{
    DirectoryVersion, Epoch, GroupId, Revision, Sequence, TenantNumber,
    limits::CHANGE_LEN_MAX,
    planted::{self, Bug},
};
use tokio::time::{Instant, sleep_until};
use tonic::Status;

use crate::{
    group_context::{GroupContext, admitting_policy, policy_of},
    outgoing_seeds::{SeedStart, TenantUsage},
    payload::{PayloadCompressor, RAW_LEN_MAX},
    traffic::RegionPair,
    wire,
};

/// Bytes at which a chunk is closed, before compression.
const CHUNK_BYTES: usize = 256 << 10;
/// Longest chunk before compression: a chunk of changes ends with a whole change.
const CHUNK_LEN_MAX: usize = CHUNK_BYTES + CHANGE_LEN_MAX + EFFECTS_MAX * HEAD_LEN_MAX;

const _: () = assert!(
    CHUNK_LEN_MAX <= RAW_LEN_MAX && CHUNK_LEN_MAX + COMMAND_BYTES <= PROPOSAL_LEN_MAX,
    "a chunk would not reach the follower, or never find room in its log"
);

/// A seed that the home sends.
pub(crate) struct SeedSource {
    context: Arc<GroupContext>,
    follower: GroupId,
    region_pair: Option<RegionPair>,
    tenant: TenantNumber,
    /// Version of the tenant's record that admits the next step.
    policy: DirectoryVersion,
    epoch: Epoch,
    /// The follower's number of the seed.
    number: SeedNumber,
    /// The seed's first revision; `None` before it has begun.
    first: Option<Revision>,
    loaded: Sequence,
    clients: ClientsLoaded,
    /// Live keys that the follower has of it, or was sent, and their bytes.
    has: (u64, u64),
    /// Whether it is recorded among the seeds of the home.
    is_recorded: bool,
    compressor: PayloadCompressor,
    next_at: Instant,
    has_ended: bool,
}

/// Next message of a seed.
enum SeedStep {
    Begun(SeedBegun),
    Chunk(bytes::Bytes),
}

/// Reason why a seed has no next message.
enum SeedEnd {
    End,
    Refused(Reason),
    Failed(Status),
}

impl SeedSource {
    /// Returns the seed that a follower requests.
    pub(crate) fn new(context: Arc<GroupContext>, request: &SeedRequest) -> Result<Self, wire::InvalidMessage> {
        let follower = GroupId::new(request.follower_group);
        let clients = wire::read_clients(&request.clients_loaded)?;
        Ok(Self {
            region_pair: context.region_pair_to(follower),
            follower,
            tenant: TenantNumber::new(request.tenant),
            policy: DirectoryVersion::ZERO,
            epoch: wire::epoch(request.epoch)?,
            number: SeedNumber(request.number),
            first: (request.first != 0).then_some(Revision::from_u64(request.first)),
            loaded: Sequence::new(request.loaded).ok_or(wire::InvalidMessage("sequence"))?,
            clients,
            has: (request.keys_loaded, request.bytes_loaded),
            is_recorded: false,
            compressor: PayloadCompressor::new(),
            next_at: Instant::now(),
            has_ended: false,
            context,
        })
    }

    /// Returns the next message, or `None` at the end.
    pub(crate) async fn next(&mut self) -> Option<Result<SeedResponse, Status>> {
        if self.has_ended {
            return None;
        }
        sleep_until(self.next_at).await;
        if let Err(error) = self.context.group.read_index().await {
            self.has_ended = true;
            return Some(Ok(response(Message::NotLeader(wire::not_leader(error)))));
        }
        match self.next_step() {
            Ok(SeedStep::Begun(begun)) => Some(Ok(response(Message::Begun(begun)))),
            Ok(SeedStep::Chunk(command)) => {
                let part = SentPart {
                    tenant: self.tenant,
                    policy: self.policy,
                    bytes: command.len() as u64,
                };
                if let Err(status) = self.context.record_sent(self.follower, &[part]).await {
                    self.has_ended = true;
                    return Some(Err(status));
                }
                Some(Ok(self.send(command)))
            }
            Err(SeedEnd::End) => None,
            Err(SeedEnd::Refused(reason)) => {
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
            Err(SeedEnd::Failed(status)) => {
                self.has_ended = true;
                Some(Err(status))
            }
        }
    }

    fn send(&mut self, command: bytes::Bytes) -> SeedResponse {
        self.next_at = self.context.group.copy_bandwidth().take(command.len());
        let (payload, raw_len) = self.compressor.compress(command.to_vec());
        if let Some(region_pair) = &self.region_pair {
            self.context
                .counters
                .add(region_pair, &[(self.tenant, command.len())], payload.len());
        }
        response(Message::Chunk(SeedChunk { payload, raw_len }))
    }

    /// Returns the next step, if the tenant may be sent to the follower.
    fn next_step(&mut self) -> Result<SeedStep, SeedEnd> {
        let context = self.context.clone();
        let (admitting, policy) = context.directory_view.read(|view| {
            let admitting = admitting_policy(view, self.tenant, context.id(), self.follower);
            (admitting, policy_of(view, self.tenant))
        });
        self.policy = policy;
        if admitting.is_none() && !planted::is(Bug::SeedToAnybody) {
            return Err(SeedEnd::Refused(Reason::NotAdmitted));
        }
        let read = context.machine.read(|held| {
            let reading = held.reading(self.tenant);
            let reading = reading.filter(|reading| reading.record().owned() == Some(self.epoch));
            self.read_step(reading.ok_or(SeedEnd::Refused(Reason::NotOwner))?)
        });
        read.unwrap_or_else(|half_changed| Err(self.seed_end(ReadError::Unreadable(half_changed.into()))))
    }

    /// Records the seed among those of the home, so that history is kept for it, unless it has failed.
    fn record(&mut self, first: Revision, state: Option<TenantUsage>) -> Result<(), SeedEnd> {
        let seeds = &self.context.seeds;
        if seeds.is_seeding(self.tenant, self.follower) && self.is_recorded {
            return Ok(());
        }
        let (epoch, (keys, bytes)) = (self.epoch, self.has);
        let start = SeedStart {
            epoch,
            first,
            keys,
            bytes,
            state,
        };
        let begun = seeds.begin(self.tenant, self.follower, start);
        begun.map_err(|_| SeedEnd::Refused(Reason::CannotCatchUp))?;
        self.is_recorded = true;
        Ok(())
    }

    fn read_step(&mut self, reading: TenantReader<'_>) -> Result<SeedStep, SeedEnd> {
        let first = self.first.unwrap_or(reading.state().revision);
        if first < reading.state().retention_floor {
            // The history after it is gone, so that the rest of it is of no use.
            return Err(SeedEnd::Refused(Reason::SeedNeeded));
        }
        let state = TenantUsage {
            keys: reading.state().keys,
            bytes: reading.state().len,
        };
        self.record(first, Some(state))?;
        if self.first.is_none() {
            self.first = Some(first);
            self.loaded = Sequence::ZERO;
            self.clients = ClientsLoaded::default();
            let mut lineage = Writer::default();
            reading.record().lineage.encode(&mut lineage);
            return Ok(SeedStep::Begun(SeedBegun {
                first: first.to_u64(),
                lineage: lineage.finish(),
            }));
        }
        let part = if self.loaded < first.sequence() {
            let part = reading.chunk_of_changes(self.loaded, first, CHUNK_BYTES);
            part.map_err(|refused| self.seed_end(refused))?
        } else {
            if self.clients.is_complete() {
                return Err(SeedEnd::End);
            }
            reading.chunk_of_clients(self.clients, CHUNK_BYTES)
        };
        match &part {
            ChunkContent::Changes { up_to, changes, .. } => {
                self.loaded = *up_to;
                let len =
                    |change: &Change| change.key.len() + change.value.as_ref().map_or(0, |value| value.bytes.len());
                let bytes: usize = changes.iter().map(len).sum();
                let (keys, bytes) = (changes.len() as u64, bytes as u64);
                self.has = (self.has.0 + keys, self.has.1 + bytes);
                self.context.seeds.record_chunk(self.tenant, self.follower, keys, bytes);
            }
            ChunkContent::Clients { up_to, windows, .. } => self.clients = self.clients.after_chunk(*up_to, windows),
        }
        let is_windows = matches!(part, ChunkContent::Clients { .. });
        let read_at = reading.state().revision;
        let chunk = Chunk {
            tenant: self.tenant,
            home: self.context.id(),
            epoch: self.epoch,
            number: self.number,
            read_at,
            part,
        };
        let chunk = chunk.encode();
        if is_windows {
            let len = chunk.len() as u64;
            self.context.seeds.record_windows(self.tenant, self.follower, len);
        }
        Ok(SeedStep::Chunk(chunk))
    }

    fn seed_end(&self, refused: ReadError) -> SeedEnd {
        match refused {
            ReadError::Unreadable(unreadable) => {
                self.context.fail_unreadable(unreadable);
                SeedEnd::Failed(Status::internal("storage could not be read"))
            }
            ReadError::Forked(_) | ReadError::NotReached { .. } | ReadError::Compacted { .. } => {
                SeedEnd::Refused(Reason::Forked)
            }
        }
    }
}

fn response(message: Message) -> SeedResponse {
    SeedResponse { message: Some(message) }
}
