//! What the peers ask of this node: the server side of the transport.

use std::sync::Arc;

use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt, future, stream};
use openraft::storage::Snapshot;
use stead_api::peer_codec::PeerAlarms;
use stead_api::proto::internal::v1::RaftEnvelope;
use stead_api::proto::internal::v1::raft_service_server::{self, RaftServiceServer};
use stead_state::codec::Malformed;
use stead_types::{GroupId, NodeId};
use tonic::{Request, Response, Status, Streaming};

use crate::machine::index_outside;
use crate::member::Member;
use crate::node::Registry;
use crate::restore;
use crate::spool::{self, Spool};
use crate::types::{AppendRequest, AppendResult};
use crate::wire::{self, Kind, MESSAGE_LEN_MAX, Timed};

/// The peer service of a node, to be mounted on its peer listener.
pub type Service = RaftServiceServer<Peers>;

/// Answers peers.
pub struct Peers {
    registry: Arc<Registry>,
    alarms: PeerAlarms,
}

impl Peers {
    pub(crate) fn service(registry: Arc<Registry>, alarms: PeerAlarms) -> Service {
        RaftServiceServer::new(Self { registry, alarms })
            .max_decoding_message_size(MESSAGE_LEN_MAX)
            .max_encoding_message_size(MESSAGE_LEN_MAX)
    }
}

fn member(registry: &Registry, envelope: &RaftEnvelope) -> Result<Arc<Member>, Status> {
    let group = GroupId::new(envelope.group);
    let member = registry
        .member(group)
        .ok_or_else(|| Status::not_found(format!("this node is no member of group {group}")))?;
    if member.sender.incarnation.0 != envelope.incarnation {
        return Err(Status::failed_precondition(format!(
            "group {group} is in incarnation {}, not {}",
            member.sender.incarnation.0, envelope.incarnation
        )));
    }
    Ok(member)
}

/// Returns the member that takes entries from who sends this, unless it has no log and the group has not begun.
fn admitting(registry: &Registry, envelope: &RaftEnvelope) -> Result<Arc<Member>, Status> {
    let member = member(registry, envelope)?;
    if member.admits(NodeId::new(envelope.from_node)) {
        Ok(member)
    } else {
        Err(not_joined())
    }
}

fn not_joined() -> Status {
    Status::unavailable("this voter has no log, and waits for the group to begin")
}

fn malformed(error: Malformed) -> Status {
    Status::invalid_argument(error.to_string())
}

fn stopped(error: impl std::fmt::Display) -> Status {
    Status::unavailable(error.to_string())
}

#[tonic::async_trait]
impl raft_service_server::RaftService for Peers {
    type AppendStream = BoxStream<'static, Result<RaftEnvelope, Status>>;
    type FetchStream = BoxStream<'static, Result<RaftEnvelope, Status>>;

    async fn append(&self, request: Request<Streaming<RaftEnvelope>>) -> Result<Response<Self::AppendStream>, Status> {
        // The answer must not wait for the first request, or opening a stream costs a round trip more.
        let answers =
            stream::once(append(self.registry.clone(), self.alarms.clone(), request.into_inner())).try_flatten();
        Ok(Response::new(Box::pin(answers)))
    }

    async fn control(&self, request: Request<RaftEnvelope>) -> Result<Response<RaftEnvelope>, Status> {
        let request = request.into_inner();
        let member = member(&self.registry, &request)?;
        control(&member, request).await.map(Response::new)
    }

    async fn snapshot(&self, request: Request<Streaming<RaftEnvelope>>) -> Result<Response<RaftEnvelope>, Status> {
        let mut chunks = request.into_inner();
        let received = async {
            let head = spool::next(&mut chunks).await?;
            let member = admitting(&self.registry, &head)?;
            receive(&member, head, chunks).await
        };
        let received = received.await.inspect_err(|status| self.alarms.note(status));
        received.map(Response::new)
    }

    async fn fetch(&self, request: Request<RaftEnvelope>) -> Result<Response<Self::FetchStream>, Status> {
        let request = request.into_inner();
        let member = member(&self.registry, &request)?;
        let reaching = wire::body(request, Kind::Fetch).and_then(wire::read_fetch);
        let snapshot = restore::cut(&member, reaching.map_err(malformed)?).await?;
        Ok(Response::new(Box::pin(snapshot)))
    }
}

async fn append(
    registry: Arc<Registry>,
    alarms: PeerAlarms,
    mut requests: Streaming<RaftEnvelope>,
) -> Result<impl Stream<Item = Result<RaftEnvelope, Status>>, Status> {
    let first = requests.message().await.inspect_err(|status| alarms.note(status))?;
    let Some(first) = first else {
        return Err(Status::invalid_argument("a stream without a request"));
    };
    let member = admitting(&registry, &first)?;
    let requests = stream::iter([Ok(first)])
        .chain(requests)
        .map({
            let group = member.sender.group;
            move |request: Result<RaftEnvelope, Status>| {
                let request = request.inspect_err(|status| alarms.note(status))?;
                let leader = request.from_node;
                let append = wire::body(request, Kind::Append).and_then(wire::read_append);
                append.map_err(|error| {
                    alarms.unreadable();
                    tracing::error!(%group, leader, %error, "entries of the leader cannot be read: is its version newer?");
                    malformed(error)
                })
            }
        })
        // What cannot be read ends the stream, and the sender starts anew.
        .take_while(|request| future::ready(request.is_ok()))
        .filter_map({
            let member = member.clone();
            move |request: Result<Timed<AppendRequest>, Status>| {
                member.heard.note();
                let request = request.ok().inspect(|request| member.clock.hear(request.time_ms));
                future::ready(request.map(|request| request.body))
            }
        });
    let (sender, clock) = (member.sender, member.clock.clone());
    let answers: BoxStream<'static, _> = Box::pin(member.raft.stream_append(requests));
    Ok(answers.enumerate().map(move |(answered, result)| {
        let result = result.map_err(stopped)?;
        let answer = wire::append_answer(&result, clock.wall_ms());
        Ok(sender.envelope(Kind::AppendAnswer, answered as u64 + 1, answer))
    }))
}

async fn control(member: &Member, request: RaftEnvelope) -> Result<RaftEnvelope, Status> {
    let kind = wire::kind(&request).map_err(malformed)?;
    let (raft, body) = (&member.raft, request.body);
    let asker = NodeId::new(request.from_node);
    if matches!(kind, Kind::Vote | Kind::PreVote) && !member.admits(asker) {
        // Who asks for votes in a new group takes part, and this voter will in a moment or stop: were it refused, the
        // first election would fail.
        member.founding.joined().await;
    }
    let (kind, answer) = match kind {
        Kind::Founding => {
            let theirs = wire::read_standing(body).map_err(malformed)?;
            let own = member.standing(asker, theirs).map_err(stopped)?;
            let answer = wire::founding_answer(own, member.clock.wall_ms());
            (Kind::FoundingAnswer, answer)
        }
        Kind::Digest => {
            let index = wire::read_digest(body).map_err(malformed)?;
            let taken = member.machine.digests().into_iter().find(|taken| taken.index == index);
            (Kind::DigestAnswer, wire::digest_answer(taken.map(|taken| taken.digest)))
        }
        Kind::Append if !member.admits(asker) => return Err(not_joined()),
        Kind::Transfer if !member.founding.has_joined() => return Err(not_joined()),
        Kind::Append => {
            member.heard.note();
            let append = wire::read_append(body).map_err(malformed)?;
            member.clock.hear(append.time_ms);
            let append = append.body;
            let matching = append.prev_log_id;
            let answer = raft.append_entries(append).await.map_err(stopped)?;
            let answer: AppendResult = answer.into_stream_result(matching, matching);
            (Kind::AppendAnswer, wire::append_answer(&answer, member.clock.wall_ms()))
        }
        Kind::Vote | Kind::PreVote | Kind::Transfer if member.is_held_back() => {
            return Err(Status::unavailable("held back after a restart"));
        }
        Kind::Vote => {
            let vote = wire::read_vote(body).map_err(malformed)?;
            let answer = raft.vote(vote).await.map_err(stopped)?;
            (Kind::VoteAnswer, wire::vote_answer(&answer, member.clock.now()))
        }
        Kind::PreVote => {
            let vote = wire::read_vote(body).map_err(malformed)?;
            let answer = raft.pre_vote(vote).await.map_err(stopped)?;
            (Kind::VoteAnswer, wire::vote_answer(&answer, member.clock.now()))
        }
        Kind::Transfer => {
            let transfer = wire::read_transfer(body).map_err(malformed)?;
            let answer = raft.handle_transfer_leader(transfer).await.map_err(stopped)?;
            (Kind::TransferAnswer, wire::transfer_answer(&answer))
        }
        Kind::AppendAnswer
        | Kind::VoteAnswer
        | Kind::TransferAnswer
        | Kind::SnapshotHead
        | Kind::SnapshotChunk
        | Kind::SnapshotEnd
        | Kind::SnapshotAnswer
        | Kind::FoundingAnswer
        | Kind::Fetch
        | Kind::DigestAnswer => return Err(Status::invalid_argument("not a control message")),
    };
    Ok(member.sender.envelope(kind, request.id, answer))
}

/// Receives a whole snapshot, then installs it.
async fn receive(
    member: &Member,
    head: RaftEnvelope,
    mut chunks: Streaming<RaftEnvelope>,
) -> Result<RaftEnvelope, Status> {
    let head = wire::body(head, Kind::SnapshotHead).and_then(wire::read_snapshot_head);
    let (vote, meta) = head.map_err(malformed)?;
    let Ok(_only) = member.receiving.try_lock() else {
        return Err(Status::resource_exhausted(
            "another snapshot of the group is being received",
        ));
    };
    let name = format!("snapshot-{}", member.sender.group);
    let spool = Spool::open(member.spool.as_deref(), &name).map_err(|error| spool::full(&member.worker, &error))?;
    let received = spool::receive(spool, &mut chunks, &member.worker).await?;
    let (group, index) = (
        member.sender.group,
        meta.last_log_id.map_or(0, |id| index_outside(id.index)),
    );
    let snapshot = received.chunks;
    let answer = member
        .raft
        .install_full_snapshot(vote, Snapshot { meta, snapshot })
        .await;
    let answer = answer.map_err(stopped)?;
    tracing::info!(%group, index, chunks = received.count, bytes = received.bytes, "a snapshot was installed");
    let answer = wire::snapshot_answer(&answer.vote);
    spool::installed(&member.worker);
    Ok(member.sender.envelope(Kind::SnapshotAnswer, 0, answer))
}
