//! A snapshot to a follower: read chunk by chunk, never held as a whole.

use std::pin::pin;
use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use openraft::errors::{ReplicationClosed, StreamingError};
use openraft::network::{NetSnapshot, RPCOption};
use openraft::raft::SnapshotResponse;
use openraft::storage::Snapshot;
use stead_api::proto::internal::v1::RaftEnvelope;
use stead_store::machine::{Chunks, Failed};
use tokio::sync::oneshot;

use super::Peer;
use crate::blocking::Worker;
use crate::peers::unreachable;
use crate::types::{LeaderId, RpcError, TypeConfig, Vote};
use crate::wire::{self, Kind, Sender};

/// The longest a snapshot may take, sending and installing. A dead connection is noticed by its keep-alive long before.
const TRANSFER_MAX: Duration = Duration::from_secs(60 * 60);

const SENDING: &str = "sending a snapshot";

/// The shortest and the longest pause after a snapshot that failed; each is twice as long as the one before. It ends
/// early where the peer answers again after it did not.
const PAUSE_MIN: Duration = Duration::from_secs(1);
const PAUSE_MAX: Duration = Duration::from_secs(60);

type StreamError = StreamingError<TypeConfig>;

impl NetSnapshot<TypeConfig> for Peer {
    type SnapshotData = Chunks;

    async fn full_snapshot(
        &mut self,
        vote: Vote,
        snapshot: Snapshot<LeaderId, u64, (), Chunks>,
        cancel: impl Future<Output = ReplicationClosed> + Send + 'static,
        _option: RPCOption,
    ) -> Result<SnapshotResponse<TypeConfig>, StreamError> {
        let mut cancel = pin!(cancel);
        let sent = tokio::select! {
            closed = &mut cancel => return Err(closed.into()),
            sent = self.transfer(vote, snapshot) => sent,
        };
        let (group, health) = (self.network.sender.group, self.network.worker.health.clone());
        let error = match sent {
            Ok(vote) => {
                self.failed_snapshots = 0;
                health.succeeded(Some(group), SENDING);
                return Ok(SnapshotResponse::new(vote));
            }
            Err(error) => error,
        };
        // openraft cuts the next one at once, which every write to the group waits for. Nothing of this one is held.
        let pause = pause(self.failed_snapshots);
        self.failed_snapshots += 1;
        let (peer, failed) = (self.to, self.failed_snapshots);
        tracing::debug!(%peer, %group, failed, ?pause, "a snapshot did not reach a peer");
        health.retry(Some(group), SENDING, &error);
        tokio::select! {
            closed = &mut cancel => Err(closed.into()),
            () = self.network.peers.wait_for(self.to, pause) => Err(error.into()),
        }
    }
}

/// Returns how long the next snapshot waits, after so many failures before this one.
fn pause(failed: u32) -> Duration {
    (PAUSE_MIN * 2_u32.saturating_pow(failed.min(16))).min(PAUSE_MAX)
}

impl Peer {
    /// Sends a snapshot and returns the vote that its receiver has, once it has installed it.
    async fn transfer(&self, vote: Vote, snapshot: Snapshot<LeaderId, u64, (), Chunks>) -> Result<Vote, RpcError> {
        let cut = snapshot.meta.last_log_id.map_or(0, |id| id.index);
        let _transfer = self.network.transfers.begin(cut);
        let mut client = self.network.peers.client_alone(self.to)?;
        let sender = self.network.sender;
        let head = sender.envelope(Kind::SnapshotHead, 0, wire::snapshot_head(&vote, &snapshot.meta));
        let (failed, mut failure) = oneshot::channel();
        let rest = Source::new(sender, self.network.worker.clone(), snapshot.snapshot, failed);
        let sent = client.snapshot(stream::iter([head]).chain(rest.into_stream()));
        let answer = tokio::time::timeout(TRANSFER_MAX, sent).await;
        if let Ok(failed) = failure.try_recv() {
            // The state was rewound or erased while it was read.
            return Err(unreachable(format!("{failed}: {}", failed.source)));
        }
        let answer = answer.map_err(|_| unreachable("a snapshot took too long".to_owned()))?;
        let answer = answer
            .map_err(|status| self.network.peers.failed(&status))?
            .into_inner();
        let vote = wire::body(answer, Kind::SnapshotAnswer).and_then(wire::read_snapshot_answer);
        vote.map_err(|malformed| unreachable(malformed.to_string()))
    }
}

/// The chunks of a snapshot as envelopes.
pub(crate) struct Source {
    sender: Sender,
    worker: Worker,
    chunks: Chunks,
    /// Chunks and bytes so far.
    sent: (u64, u64),
    failed: oneshot::Sender<Failed>,
}

impl Source {
    /// Reads the chunks of a snapshot for a peer; `failed` is told why that ended early.
    pub(crate) fn new(sender: Sender, worker: Worker, chunks: Chunks, failed: oneshot::Sender<Failed>) -> Self {
        Self {
            sender,
            worker,
            chunks,
            sent: (0, 0),
            failed,
        }
    }

    pub(crate) fn into_stream(self) -> impl Stream<Item = RaftEnvelope> + Send {
        stream::unfold(Some(self), |source| async move { source?.next().await })
    }

    /// Returns the next envelope, and what is left. A failed source ends without an end, so that the receiver knows.
    async fn next(mut self) -> Option<(RaftEnvelope, Option<Self>)> {
        let mut chunks = self.chunks;
        let read = move || {
            let next = chunks.next().transpose()?;
            Ok((chunks, next))
        };
        let (chunks, next) = match self.worker.run("reading a snapshot", read).await {
            Ok(read) => read,
            Err(failed) => {
                drop(self.failed.send(failed));
                return None;
            }
        };
        self.chunks = chunks;
        match next {
            Some(chunk) => {
                self.sent.0 += 1;
                self.sent.1 += chunk.len() as u64;
                let envelope = self.sender.envelope(Kind::SnapshotChunk, self.sent.0, chunk);
                Some((envelope, Some(self)))
            }
            None => {
                let end = wire::snapshot_end(self.sent.0, self.sent.1);
                Some((self.sender.envelope(Kind::SnapshotEnd, self.sent.0, end), None))
            }
        }
    }
}
