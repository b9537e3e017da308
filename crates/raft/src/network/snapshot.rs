//! A snapshot to a follower: read chunk by chunk, never held as a whole.

use std::time::Duration;

use futures::{Stream, StreamExt, stream};
use openraft::errors::{NetworkError, ReplicationClosed, StreamingError};
use openraft::network::{NetSnapshot, RPCOption};
use openraft::raft::SnapshotResponse;
use openraft::storage::Snapshot;
use stead_api::proto::internal::v1::RaftEnvelope;
use stead_store::machine::{Chunks, Failed};
use tokio::sync::oneshot;

use super::Peer;
use crate::blocking::Blocking;
use crate::peers::unreachable;
use crate::types::{LeaderId, TypeConfig, Vote};
use crate::wire::{self, Kind, Sender};

/// The longest a snapshot may take, sending and installing. A dead connection is noticed by its keep-alive long before.
const TRANSFER_MAX: Duration = Duration::from_secs(60 * 60);

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
        let cut = snapshot.meta.last_log_id.map_or(0, |id| id.index);
        let _transfer = self.network.transfers.begin(cut);
        let mut client = self.network.peers.client_alone(self.to).map_err(StreamError::from)?;
        let sender = self.network.sender;
        let head = sender.envelope(Kind::SnapshotHead, 0, wire::snapshot_head(&vote, &snapshot.meta));
        let (failed, mut failure) = oneshot::channel();
        let rest = Source {
            sender,
            blocking: self.network.blocking,
            chunks: snapshot.snapshot,
            sent: (0, 0),
            failed,
        };
        let sent = client.snapshot(stream::iter([head]).chain(rest.into_stream()));
        let answer = tokio::select! {
            closed = cancel => return Err(closed.into()),
            answer = tokio::time::timeout(TRANSFER_MAX, sent) => answer,
        };
        if let Ok(failed) = failure.try_recv() {
            // The state was rewound or erased while it was read: openraft asks for a new cut at once.
            return Err(NetworkError::new(&failed).into());
        }
        let answer = answer.map_err(|_| unreachable("a snapshot took too long".to_owned()))?;
        let answer = answer.map_err(|status| unreachable(status.to_string()))?.into_inner();
        let vote = wire::body(answer, Kind::SnapshotAnswer).and_then(wire::read_snapshot_answer);
        let vote = vote.map_err(|malformed| unreachable(malformed.to_string()))?;
        Ok(SnapshotResponse::new(vote))
    }
}

/// The chunks of a snapshot as envelopes.
struct Source {
    sender: Sender,
    blocking: Blocking,
    chunks: Chunks,
    /// Chunks and bytes so far.
    sent: (u64, u64),
    failed: oneshot::Sender<Failed>,
}

impl Source {
    fn into_stream(self) -> impl Stream<Item = RaftEnvelope> + Send {
        stream::unfold(Some(self), |source| async move { source?.next().await })
    }

    /// Returns the next envelope, and what is left. A failed source ends without an end, so that the receiver knows.
    async fn next(mut self) -> Option<(RaftEnvelope, Option<Self>)> {
        let mut chunks = self.chunks;
        let read = move || {
            let next = chunks.next();
            (chunks, next)
        };
        let (chunks, next) = self.blocking.run(read).await;
        self.chunks = chunks;
        match next {
            Some(Ok(chunk)) => {
                self.sent.0 += 1;
                self.sent.1 += chunk.len() as u64;
                let envelope = self.sender.envelope(Kind::SnapshotChunk, self.sent.0, chunk);
                Some((envelope, Some(self)))
            }
            Some(Err(failed)) => {
                drop(self.failed.send(failed));
                None
            }
            None => {
                let end = wire::snapshot_end(self.sent.0, self.sent.1);
                Some((self.sender.envelope(Kind::SnapshotEnd, self.sent.0, end), None))
            }
        }
    }
}
