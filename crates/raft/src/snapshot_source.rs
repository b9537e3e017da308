//! Source of a snapshot's envelopes, for a follower that lags and for a voter that restores its rows.

use futures::{Stream, stream};
use stead_api::proto::internal::v1::RaftEnvelope;
use stead_store::machine::{Chunks, MachineError};
use tokio::sync::oneshot;

use crate::blocking::BlockingWorker;
use crate::wire::{self, MessageKind, Sender};

/// Source of a snapshot's chunks as envelopes.
pub(crate) struct SnapshotSource {
    sender: Sender,
    worker: BlockingWorker,
    chunks: Chunks,
    /// Chunks and bytes sent so far.
    sent: (u64, u64),
    failed: oneshot::Sender<MachineError>,
}

impl SnapshotSource {
    /// Creates a source of a snapshot's chunks; `failed` receives the error if it ends early.
    pub(crate) fn new(
        sender: Sender,
        worker: BlockingWorker,
        chunks: Chunks,
        failed: oneshot::Sender<MachineError>,
    ) -> Self {
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

    /// Returns the next envelope, and the rest. A failed source ends without an end message, so that the receiver
    /// detects it.
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
                let envelope = self.sender.envelope(MessageKind::SnapshotChunk, self.sent.0, chunk);
                Some((envelope, Some(self)))
            }
            None => {
                let end = wire::snapshot_end(self.sent.0, self.sent.1);
                Some((self.sender.envelope(MessageKind::SnapshotEnd, self.sent.0, end), None))
            }
        }
    }
}
