//! Peer service: the server side of the transport.

use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, future, stream};
use openraft::storage::Snapshot;
use stead_api::peer_codec::PeerAlarms;
use stead_api::peer_identity::PeerIdentity;
use stead_api::proto::internal::v1::RaftEnvelope;
use stead_api::proto::internal::v1::raft_service_server::{self, RaftServiceServer};
use stead_state::codec::Malformed;
use stead_types::{GroupId, NodeId};
use tonic::{Request, Response, Status, Streaming};

use crate::machine::external_index;
use crate::member::Member;
use crate::registry::Registry;
use crate::restore;
use crate::senders::MaySend;
use crate::spool::{self, Spool};
use crate::types::{AppendRequest, AppendResult};
use crate::wire::{self, MESSAGE_LEN_MAX, MessageKind, Timed};

/// Peer service of a node, to be mounted on its peer listener.
pub type Service = RaftServiceServer<PeerService>;

/// Implementation of the peer service.
pub struct PeerService {
    gate: Gate,
    alarms: PeerAlarms,
}

/// Way of a message to the member that it is for.
#[derive(Clone)]
struct Gate {
    registry: Arc<Registry>,
    may_send: MaySend,
}

impl PeerService {
    pub(crate) fn service(registry: Arc<Registry>, alarms: PeerAlarms, may_send: MaySend) -> Service {
        let gate = Gate { registry, may_send };
        RaftServiceServer::new(Self { gate, alarms })
            .max_decoding_message_size(MESSAGE_LEN_MAX)
            .max_encoding_message_size(MESSAGE_LEN_MAX)
    }
}

fn member(gate: &Gate, envelope: &RaftEnvelope, peer: Option<&PeerIdentity>) -> Result<Arc<Member>, Status> {
    let group = GroupId::new(envelope.group);
    let member = gate
        .registry
        .member(group)
        .ok_or_else(|| Status::not_found(format!("this node is not a member of group {group}")))?;
    if member.sender.incarnation.0 != envelope.incarnation {
        return Err(wire::other_incarnation(&member.sender, envelope.incarnation));
    }
    if let Some(peer) = peer {
        check_sender(&gate.may_send, peer, NodeId::new(envelope.from_node), group)?;
    }
    Ok(member)
}

/// Refuses a message whose sender is not the node in the certificate of the connection, or may not send messages of the
/// group: a node of another region takes no part in it, whatever it says of itself. The membership in this node's log does
/// not decide that: it may be older than the leader.
fn check_sender(may_send: &MaySend, peer: &PeerIdentity, sender: NodeId, group: GroupId) -> Result<(), Status> {
    if !peer.is(sender) {
        return Err(Status::permission_denied(format!(
            "the message is of {sender}, and the certificate of its connection is of {peer}"
        )));
    }
    if may_send(group, sender, &peer.region) {
        return Ok(());
    }
    Err(Status::permission_denied(format!(
        "{sender} in {} is no voter of {group}",
        peer.region
    )))
}

/// Returns the member, if it has joined its group and so accepts entries from the sender.
fn admitting(gate: &Gate, envelope: &RaftEnvelope, peer: Option<&PeerIdentity>) -> Result<Arc<Member>, Status> {
    let member = member(gate, envelope, peer)?;
    if member.admits(NodeId::new(envelope.from_node)) {
        Ok(member)
    } else {
        Err(not_joined())
    }
}

fn not_joined() -> Status {
    Status::unavailable("this voter has no log, and waits for the bootstrap of the group")
}

fn malformed(error: Malformed) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl raft_service_server::RaftService for PeerService {
    type AppendStream = BoxStream<'static, Result<RaftEnvelope, Status>>;
    type FetchStream = BoxStream<'static, Result<RaftEnvelope, Status>>;

    async fn append(&self, request: Request<Streaming<RaftEnvelope>>) -> Result<Response<Self::AppendStream>, Status> {
        // The response must not wait for the first request, or opening a stream costs a round trip more.
        let peer = request.extensions().get().cloned();
        let first = append(self.gate.clone(), self.alarms.clone(), peer, request.into_inner());
        let answers = stream::once(first).try_flatten();
        Ok(Response::new(Box::pin(answers)))
    }

    async fn control(&self, request: Request<RaftEnvelope>) -> Result<Response<RaftEnvelope>, Status> {
        let peer = request.extensions().get().cloned();
        let request = request.into_inner();
        let member = member(&self.gate, &request, peer.as_ref())?;
        control(&member, request).await.map(Response::new)
    }

    async fn snapshot(&self, request: Request<Streaming<RaftEnvelope>>) -> Result<Response<RaftEnvelope>, Status> {
        let peer = request.extensions().get().cloned();
        let mut chunks = request.into_inner();
        let received = async {
            let head = spool::next_envelope(&mut chunks).await?;
            let member = admitting(&self.gate, &head, peer.as_ref())?;
            receive(&member, head, chunks).await
        };
        let received = received.await.inspect_err(|status| self.alarms.record_status(status));
        received.map(Response::new)
    }

    async fn fetch(&self, request: Request<RaftEnvelope>) -> Result<Response<Self::FetchStream>, Status> {
        let peer = request.extensions().get().cloned();
        let request = request.into_inner();
        let member = member(&self.gate, &request, peer.as_ref())?;
        let min_index = wire::body(request, MessageKind::Fetch).and_then(wire::read_fetch);
        let snapshot = restore::serve_snapshot(&member, min_index.map_err(malformed)?).await?;
        Ok(Response::new(Box::pin(snapshot)))
    }
}

async fn append(
    gate: Gate,
    alarms: PeerAlarms,
    peer: Option<PeerIdentity>,
    mut requests: Streaming<RaftEnvelope>,
) -> Result<impl Stream<Item = Result<RaftEnvelope, Status>>, Status> {
    let first = requests
        .message()
        .await
        .inspect_err(|status| alarms.record_status(status))?;
    let Some(first) = first else {
        return Err(Status::invalid_argument("the stream has no request"));
    };
    let member = admitting(&gate, &first, peer.as_ref())?;
    let requests = stream::iter([Ok(first)])
        .chain(requests)
        .map({
            let group = member.sender.group;
            move |request: Result<RaftEnvelope, Status>| {
                let request = request.inspect_err(|status| alarms.record_status(status))?;
                let leader = request.from_node;
                let append = wire::body(request, MessageKind::Append).and_then(wire::read_append);
                append.map_err(|error| {
                    alarms.record_unreadable();
                    tracing::error!(%group, leader, %error, "cannot decode entries of the leader: its version may be newer");
                    malformed(error)
                })
            }
        })
        // A request that cannot be decoded ends the stream, and the sender starts a new one.
        .take_while(|request| future::ready(request.is_ok()))
        .filter_map({
            let member = member.clone();
            move |request: Result<Timed<AppendRequest>, Status>| {
                member.last_contact.note();
                let request = request.ok().inspect(|request| member.clock.observe_time(request.time_ms));
                future::ready(request.map(|request| request.body))
            }
        });
    let (sender, clock) = (member.sender, member.clock.clone());
    let answers: BoxStream<'static, _> = Box::pin(member.raft.stream_append(requests));
    Ok(answers.enumerate().map(move |(answered, result)| {
        let result = result.map_err(stopped)?;
        let answer = wire::append_response(&result, clock.wall_ms());
        Ok(sender.envelope(MessageKind::AppendResponse, answered as u64 + 1, answer))
    }))
}

async fn control(member: &Member, request: RaftEnvelope) -> Result<RaftEnvelope, Status> {
    let kind = wire::kind(&request).map_err(malformed)?;
    let (raft, body) = (&member.raft, request.body);
    let asker = NodeId::new(request.from_node);
    if matches!(kind, MessageKind::Vote | MessageKind::PreVote) && !member.admits(asker) {
        // A voter that requests votes in a new group has joined, and this one will join in a moment or stop: if the
        // vote were rejected, the first election would fail.
        member.bootstrap.joined().await;
    }
    let (kind, answer) = match kind {
        MessageKind::Bootstrap => {
            let theirs = wire::read_voter_state(body).map_err(malformed)?;
            let own = member.voter_state(asker, theirs).map_err(stopped)?;
            let answer = wire::bootstrap_response(own, member.clock.wall_ms());
            (MessageKind::BootstrapResponse, answer)
        }
        MessageKind::Digest => {
            let index = wire::read_digest(body).map_err(malformed)?;
            let taken = member.machine.digests().into_iter().find(|taken| taken.index == index);
            let answer = wire::digest_response(taken.map(|taken| taken.digest));
            (MessageKind::DigestResponse, answer)
        }
        MessageKind::Append if !member.admits(asker) => return Err(not_joined()),
        MessageKind::Transfer if !member.bootstrap.has_joined() => return Err(not_joined()),
        MessageKind::Append => {
            member.last_contact.note();
            let append = wire::read_append(body).map_err(malformed)?;
            member.clock.observe_time(append.time_ms);
            let append = append.body;
            let matching = append.prev_log_id;
            let answer = raft.append_entries(append).await.map_err(stopped)?;
            let answer: AppendResult = answer.into_stream_result(matching, matching);
            let answer = wire::append_response(&answer, member.clock.wall_ms());
            (MessageKind::AppendResponse, answer)
        }
        MessageKind::Vote | MessageKind::PreVote | MessageKind::Transfer if member.is_held_back() => {
            return Err(Status::unavailable("elections are held back after a restart"));
        }
        MessageKind::Vote | MessageKind::PreVote => {
            let vote = wire::read_vote(body).map_err(malformed)?;
            let answer = if kind == MessageKind::Vote {
                raft.vote(vote).await
            } else {
                raft.pre_vote(vote).await
            };
            let answer = answer.map_err(stopped)?;
            let answer = wire::vote_response(&answer, member.clock.now());
            (MessageKind::VoteResponse, answer)
        }
        MessageKind::Transfer => {
            let transfer = wire::read_transfer(body).map_err(malformed)?;
            let answer = raft.handle_transfer_leader(transfer).await.map_err(stopped)?;
            (MessageKind::TransferResponse, wire::transfer_response(&answer))
        }
        MessageKind::AppendResponse
        | MessageKind::VoteResponse
        | MessageKind::TransferResponse
        | MessageKind::SnapshotHead
        | MessageKind::SnapshotChunk
        | MessageKind::SnapshotEnd
        | MessageKind::SnapshotResponse
        | MessageKind::BootstrapResponse
        | MessageKind::Fetch
        | MessageKind::DigestResponse => return Err(Status::invalid_argument("not a control message")),
    };
    Ok(member.sender.envelope(kind, request.id, answer))
}

/// Receives a complete snapshot, then installs it.
async fn receive(
    member: &Member,
    head: RaftEnvelope,
    mut chunks: Streaming<RaftEnvelope>,
) -> Result<RaftEnvelope, Status> {
    let head = wire::body(head, MessageKind::SnapshotHead).and_then(wire::read_snapshot_head);
    let (vote, meta) = head.map_err(malformed)?;
    let Ok(_only) = member.receiving_snapshot.try_lock() else {
        return Err(Status::resource_exhausted(
            "another snapshot of the group is being received",
        ));
    };
    let name = format!("snapshot-{}", member.sender.group);
    let spool = Spool::open(member.spool.as_deref(), &name).map_err(|error| spool::reject(&member.worker, &error))?;
    let receiving = member.snapshot_received.begin();
    let received = spool::receive(spool, &mut chunks, &member.worker, &receiving).await?;
    let (group, index) = (
        member.sender.group,
        meta.last_log_id.map_or(0, |id| external_index(id.index)),
    );
    let snapshot = received.chunks;
    let answer = member
        .raft
        .install_full_snapshot(vote, Snapshot { meta, snapshot })
        .await;
    let answer = answer.map_err(stopped)?;
    tracing::info!(%group, index, chunks = received.count, bytes = received.bytes, "installed a snapshot");
    let answer = wire::snapshot_response(&answer.vote);
    spool::mark_installed(&member.worker);
    Ok(member.sender.envelope(MessageKind::SnapshotResponse, 0, answer))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn message_of_another_node_or_region_is_refused() {
        let peer = PeerIdentity {
            nodes: vec![NodeId::new(4), NodeId::new(7)],
            region: "eu-west".parse().unwrap(),
        };
        let may_send: MaySend = Arc::new(|group, _, region| group == GroupId::new(2) && region.as_str() == "eu-west");
        let check = |sender, group| check_sender(&may_send, &peer, NodeId::new(sender), GroupId::new(group));
        assert!(check(4, 2).is_ok());
        assert!(check(7, 2).is_ok(), "it takes the place of the node of its name");
        let other = check(1, 2).unwrap_err();
        assert!(
            other.message().contains("certificate of its connection is of n4 or n7"),
            "{other}"
        );
        let foreign = check(4, 1).unwrap_err();
        assert!(foreign.message().contains("is no voter of g1"), "{foreign}");
    }
}
