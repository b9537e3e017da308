//! Wire encoding of Raft's messages between nodes: the body of an envelope, by its kind.
//!
//! A node decodes the kinds that it knows and rejects the rest; a new layout is a new version or a new kind.
//!
//! # Invariants
//!
//! 1. The bytes of a kind never change.

use bytes::Bytes;
use openraft::raft::TransferLeaderError;
use stead_api::proto::internal::v1::RaftEnvelope;
use stead_state::codec::{Malformed, Reader, Writer};
use stead_store::machine::CHUNK_LEN_MAX;
use stead_types::{GroupId, Incarnation, NodeId};
use tonic::Status;

use crate::encoding::{
    entry_record, get_log_id, get_vote, membership_record, put_log_id, put_vote, read_entry_record,
    read_membership_record,
};
use crate::group_bootstrap::VoterState;
use crate::log::READ_BYTES_MAX;
use crate::proposer::PROPOSAL_LEN_MAX;
use crate::types::{
    AppendError, AppendRequest, AppendResult, SnapshotMeta, TransferRequest, TransferResponse, Vote, VoteRequest,
    VoteResponse,
};

/// Version of every body.
pub(crate) const VERSION: u32 = 2;

/// Largest message that is sent or accepted.
pub(crate) const MESSAGE_LEN_MAX: usize = 64 << 20;

/// Bound of a message's overhead around its payload.
const ENVELOPE_OVERHEAD_MAX: usize = 64 << 10;

// One proposal is one entry; a message has the entries of one read of the log, or one longer entry. The weight of a
// command exceeds its overhead in an entry.
const _: () = assert!(
    PROPOSAL_LEN_MAX + ENVELOPE_OVERHEAD_MAX <= MESSAGE_LEN_MAX
        && READ_BYTES_MAX + ENVELOPE_OVERHEAD_MAX <= MESSAGE_LEN_MAX,
    "an entry would not reach a follower"
);
const _: () = assert!(
    CHUNK_LEN_MAX + ENVELOPE_OVERHEAD_MAX <= MESSAGE_LEN_MAX,
    "a chunk of a snapshot would not reach a follower"
);

/// Kind of a message's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub(crate) enum MessageKind {
    Append = 1,
    AppendResponse = 2,
    Vote = 3,
    VoteResponse = 4,
    PreVote = 5,
    Transfer = 6,
    TransferResponse = 7,
    SnapshotHead = 8,
    SnapshotChunk = 9,
    SnapshotEnd = 10,
    SnapshotResponse = 11,
    Bootstrap = 12,
    BootstrapResponse = 13,
    Fetch = 14,
    Digest = 15,
    DigestResponse = 16,
}

impl MessageKind {
    const ALL: [Self; 16] = [
        Self::Append,
        Self::AppendResponse,
        Self::Vote,
        Self::VoteResponse,
        Self::PreVote,
        Self::Transfer,
        Self::TransferResponse,
        Self::SnapshotHead,
        Self::SnapshotChunk,
        Self::SnapshotEnd,
        Self::SnapshotResponse,
        Self::Bootstrap,
        Self::BootstrapResponse,
        Self::Fetch,
        Self::Digest,
        Self::DigestResponse,
    ];
}

/// Group and sender of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sender {
    pub(crate) group: GroupId,
    pub(crate) incarnation: Incarnation,
    pub(crate) node: NodeId,
}

impl Sender {
    pub(crate) fn envelope(&self, kind: MessageKind, id: u64, body: Bytes) -> RaftEnvelope {
        RaftEnvelope {
            version: VERSION,
            group: self.group.get(),
            incarnation: self.incarnation.0,
            kind: kind as u32,
            id,
            from_node: self.node.get(),
            body,
        }
    }
}

/// Metadata of a refusal: the incarnation of the group in which the refusing node is.
const INCARNATION: &str = "x-stead-incarnation";

/// Returns the refusal of a message of another incarnation of a group than the own one.
pub(crate) fn other_incarnation(own: &Sender, theirs: u32) -> Status {
    let mut refusal = Status::failed_precondition(format!(
        "group {} is in incarnation {}, not {theirs}",
        own.group, own.incarnation.0
    ));
    refusal.metadata_mut().insert(INCARNATION, own.incarnation.0.into());
    refusal
}

/// Returns the incarnation that a refusal names, if it is later than the own one.
pub(crate) fn later_incarnation(own: &Sender, refusal: &Status) -> Option<Incarnation> {
    let named = refusal.metadata().get(INCARNATION)?.to_str().ok()?;
    let named = Incarnation(named.parse().ok()?);
    (named > own.incarnation).then_some(named)
}

/// Returns the kind of an envelope's body, if this node can decode it.
pub(crate) fn kind(envelope: &RaftEnvelope) -> Result<MessageKind, Malformed> {
    let known = MessageKind::ALL.into_iter().find(|kind| *kind as u32 == envelope.kind);
    known
        .filter(|_| envelope.version == VERSION)
        .ok_or(Malformed { what: "raft message" })
}

/// Response from another node than the one that was asked: a machine with a new disk has the address of the node that it
/// replaces, and what it has must not be taken for what that one had.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{asked} was asked, and {answering} has answered at its address")]
pub(crate) struct OtherNode {
    pub(crate) asked: NodeId,
    pub(crate) answering: NodeId,
}

/// Returns a response, which must be from the node that was asked.
pub(crate) fn response_from(asked: NodeId, response: RaftEnvelope) -> Result<RaftEnvelope, OtherNode> {
    let answering = NodeId::new(response.from_node);
    if answering == asked {
        Ok(response)
    } else {
        Err(OtherNode { asked, answering })
    }
}

/// Returns the body of an envelope, which must be of this kind.
pub(crate) fn body(envelope: RaftEnvelope, expected: MessageKind) -> Result<Bytes, Malformed> {
    if kind(&envelope)? == expected {
        Ok(envelope.body)
    } else {
        Err(Malformed { what: "raft message" })
    }
}

/// Body with its sender's time: logged time in leaders' requests and voters' responses, the wall clock in other
/// responses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Timed<T> {
    pub(crate) time_ms: u64,
    pub(crate) body: T,
}

impl<T> Timed<T> {
    fn read(reader: &mut Reader, body: impl FnOnce(&mut Reader) -> Result<T, Malformed>) -> Result<Self, Malformed> {
        Ok(Self {
            time_ms: reader.u64()?,
            body: body(reader)?,
        })
    }
}

pub(crate) fn append(request: &AppendRequest, logged_ms: u64) -> Bytes {
    let records: Vec<Bytes> = request.entries.iter().map(entry_record).collect();
    let len: usize = records.iter().map(|record| record.len() + 4).sum();
    let mut writer = Writer::with_capacity(104 + len);
    writer.u64(logged_ms);
    put_vote(&mut writer, &request.vote);
    writer.option(request.prev_log_id.as_ref(), put_log_id);
    writer.option(request.leader_commit.as_ref(), put_log_id);
    writer.list(records.into_iter(), |writer, record| {
        writer.bytes(&record);
    });
    writer.finish()
}

pub(crate) fn read_append(body: Bytes) -> Result<Timed<AppendRequest>, Malformed> {
    let request = |reader: &mut Reader| {
        Ok(AppendRequest {
            vote: get_vote(reader)?,
            prev_log_id: reader.option(get_log_id)?,
            leader_commit: reader.option(get_log_id)?,
            entries: reader.list(|reader| {
                let record = reader.bytes()?;
                read_entry_record(record).map_err(|_| reader.malformed())
            })?,
        })
    };
    read(body, |reader| Timed::read(reader, request))
}

const MATCHING: u8 = 0;
const CONFLICT: u8 = 1;
const HIGHER_VOTE: u8 = 2;

pub(crate) fn append_response(result: &AppendResult, wall_ms: u64) -> Bytes {
    let mut writer = Writer::default();
    writer.u64(wall_ms);
    match result {
        Ok(matching) => {
            writer.u8(MATCHING).option(matching.as_ref(), put_log_id);
        }
        Err(AppendError::Conflict(id)) => {
            writer.u8(CONFLICT);
            put_log_id(&mut writer, id);
        }
        Err(AppendError::HigherVote(vote)) => {
            writer.u8(HIGHER_VOTE);
            put_vote(&mut writer, vote);
        }
    }
    writer.finish()
}

pub(crate) fn read_append_response(body: Bytes) -> Result<Timed<AppendResult>, Malformed> {
    let result = |reader: &mut Reader| {
        Ok(match reader.u8()? {
            MATCHING => Ok(reader.option(get_log_id)?),
            CONFLICT => Err(AppendError::Conflict(get_log_id(reader)?)),
            HIGHER_VOTE => Err(AppendError::HigherVote(get_vote(reader)?)),
            3.. => return Err(reader.malformed()),
        })
    };
    read(body, |reader| Timed::read(reader, result))
}

pub(crate) fn vote(request: &VoteRequest) -> Bytes {
    let mut writer = Writer::default();
    put_vote(&mut writer, &request.vote);
    writer
        .option(request.last_log_id.as_ref(), put_log_id)
        .bool(request.leadership_transfer);
    writer.finish()
}

pub(crate) fn read_vote(body: Bytes) -> Result<VoteRequest, Malformed> {
    read(body, |reader| {
        Ok(VoteRequest {
            vote: get_vote(reader)?,
            last_log_id: reader.option(get_log_id)?,
            leadership_transfer: reader.bool()?,
        })
    })
}

pub(crate) fn vote_response(answer: &VoteResponse, logged_ms: u64) -> Bytes {
    let mut writer = Writer::default();
    writer.u64(logged_ms);
    put_vote(&mut writer, &answer.vote);
    writer
        .bool(answer.vote_granted)
        .option(answer.last_log_id.as_ref(), put_log_id);
    writer.finish()
}

pub(crate) fn read_vote_response(body: Bytes) -> Result<Timed<VoteResponse>, Malformed> {
    let answer = |reader: &mut Reader| {
        let (vote, granted) = (get_vote(reader)?, reader.bool()?);
        Ok(VoteResponse::new(vote, reader.option(get_log_id)?, granted))
    };
    read(body, |reader| Timed::read(reader, answer))
}

pub(crate) fn transfer(request: &TransferRequest) -> Bytes {
    let mut writer = Writer::default();
    put_vote(&mut writer, request.from_leader());
    writer
        .u64(*request.to_node_id())
        .option(request.last_log_id(), put_log_id);
    writer.finish()
}

pub(crate) fn read_transfer(body: Bytes) -> Result<TransferRequest, Malformed> {
    read(body, |reader| {
        let (vote, to) = (get_vote(reader)?, reader.u64()?);
        Ok(TransferRequest::new(vote, to, reader.option(get_log_id)?))
    })
}

/// Encodes a request for the digest after an entry.
pub(crate) fn digest(index: u64) -> Bytes {
    let mut writer = Writer::default();
    writer.u64(index);
    writer.finish()
}

pub(crate) fn read_digest(body: Bytes) -> Result<u64, Malformed> {
    read(body, Reader::u64)
}

pub(crate) fn digest_response(digest: Option<u128>) -> Bytes {
    let mut writer = Writer::default();
    writer.option(digest.as_ref(), |writer, digest| {
        writer.u128(*digest);
    });
    writer.finish()
}

pub(crate) fn read_digest_response(body: Bytes) -> Result<Option<u128>, Malformed> {
    read(body, |reader| reader.option(Reader::u128))
}

/// Encodes a bootstrap request: the sender's voter state.
pub(crate) fn voter_state(voter_state: VoterState) -> Bytes {
    let mut writer = Writer::default();
    voter_state.encode(&mut writer);
    writer.finish()
}

pub(crate) fn read_voter_state(body: Bytes) -> Result<VoterState, Malformed> {
    read(body, VoterState::decode)
}

/// Encodes a bootstrap response: the responder's voter state, with its wall clock.
pub(crate) fn bootstrap_response(voter_state: VoterState, wall_ms: u64) -> Bytes {
    let mut writer = Writer::default();
    writer.u64(wall_ms);
    voter_state.encode(&mut writer);
    writer.finish()
}

pub(crate) fn read_bootstrap_response(body: Bytes) -> Result<Timed<VoterState>, Malformed> {
    read(body, |reader| Timed::read(reader, VoterState::decode))
}

const TAKEN: u8 = 0;
const VOTE_CHANGED: u8 = 1;
const NOT_FLUSHED: u8 = 2;

pub(crate) fn transfer_response(answer: &TransferResponse) -> Bytes {
    let mut writer = Writer::default();
    match answer {
        Ok(()) => {
            writer.u8(TAKEN);
        }
        Err(TransferLeaderError::VoteChanged { expected, actual }) => {
            writer.u8(VOTE_CHANGED);
            put_vote(&mut writer, expected);
            put_vote(&mut writer, actual);
        }
        Err(TransferLeaderError::LogNotFlushed { expected, actual }) => {
            writer.u8(NOT_FLUSHED).option(expected.as_ref(), put_log_id);
            writer.option(actual.as_ref(), put_log_id);
        }
    }
    writer.finish()
}

pub(crate) fn read_transfer_response(body: Bytes) -> Result<TransferResponse, Malformed> {
    read(body, |reader| {
        Ok(match reader.u8()? {
            TAKEN => Ok(()),
            VOTE_CHANGED => Err(TransferLeaderError::VoteChanged {
                expected: get_vote(reader)?,
                actual: get_vote(reader)?,
            }),
            NOT_FLUSHED => Err(TransferLeaderError::LogNotFlushed {
                expected: reader.option(get_log_id)?,
                actual: reader.option(get_log_id)?,
            }),
            3.. => return Err(reader.malformed()),
        })
    })
}

pub(crate) fn snapshot_head(vote: &Vote, meta: &SnapshotMeta) -> Bytes {
    let mut writer = Writer::default();
    put_vote(&mut writer, vote);
    writer
        .option(meta.last_log_id.as_ref(), put_log_id)
        .bytes(&membership_record(&meta.last_membership));
    writer.finish()
}

pub(crate) fn read_snapshot_head(body: Bytes) -> Result<(Vote, SnapshotMeta), Malformed> {
    read(body, |reader| {
        let vote = get_vote(reader)?;
        let last_log_id = reader.option(get_log_id)?;
        let membership = reader.bytes()?;
        let last_membership = read_membership_record(membership).map_err(|_| reader.malformed())?;
        let meta = SnapshotMeta {
            last_log_id,
            last_membership,
        };
        Ok((vote, meta))
    })
}

/// Encodes the end of a snapshot: its number of chunks and bytes, so that a truncated stream is detected.
pub(crate) fn snapshot_end(chunks: u64, bytes: u64) -> Bytes {
    Writer::default().u64(chunks).u64(bytes).finish()
}

pub(crate) fn read_snapshot_end(body: Bytes) -> Result<(u64, u64), Malformed> {
    read(body, |reader| Ok((reader.u64()?, reader.u64()?)))
}

/// Encodes a request for a snapshot, with the index, openraft's, that it must reach.
pub(crate) fn fetch(min_index: u64) -> Bytes {
    Writer::default().u64(min_index).finish()
}

pub(crate) fn read_fetch(body: Bytes) -> Result<u64, Malformed> {
    read(body, Reader::u64)
}

pub(crate) fn snapshot_response(vote: &Vote) -> Bytes {
    let mut writer = Writer::default();
    put_vote(&mut writer, vote);
    writer.finish()
}

pub(crate) fn read_snapshot_response(body: Bytes) -> Result<Vote, Malformed> {
    read(body, get_vote)
}

fn read<T>(body: Bytes, read: impl FnOnce(&mut Reader) -> Result<T, Malformed>) -> Result<T, Malformed> {
    let mut reader = Reader::new(body, "raft message");
    let value = read(&mut reader)?;
    reader.end()?;
    Ok(value)
}

#[cfg(test)]
#[path = "wire_test.rs"]
mod wire_test;
