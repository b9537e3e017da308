//! Source of a snapshot's envelopes, for a follower that lags and for a voter that restores its rows, within the bandwidth of
//! copies.

use std::sync::Arc;

use futures::{Stream, stream};
use stead_api::proto::internal::v1::RaftEnvelope;
use stead_store::machine::{Chunks, MachineError};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep_until};

use crate::blocking::BlockingWorker;
use crate::copy_bandwidth::CopyBandwidth;
use crate::snapshot_transfers::SnapshotTransfers;
use crate::wire::{self, MessageKind, Sender};

/// Pace of a snapshot.
pub(crate) struct SnapshotPace {
    pub(crate) copies: Arc<CopyBandwidth>,
    /// Transfers of the group, where its log is held for the snapshot.
    pub(crate) transfers: Option<Arc<SnapshotTransfers>>,
}

impl SnapshotPace {
    /// Returns from when on the next chunk may be sent.
    fn take(&self, len: usize) -> Instant {
        match &self.transfers {
            Some(transfers) if transfers.is_urgent() => Instant::now(),
            Some(_) | None => self.copies.take(len),
        }
    }
}

/// Source of a snapshot's chunks as envelopes.
pub(crate) struct SnapshotSource {
    sender: Sender,
    worker: BlockingWorker,
    pace: SnapshotPace,
    /// When the next chunk may be sent.
    next_at: Instant,
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
        pace: SnapshotPace,
        chunks: Chunks,
        failed: oneshot::Sender<MachineError>,
    ) -> Self {
        Self {
            sender,
            worker,
            pace,
            next_at: Instant::now(),
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
        sleep_until(self.next_at).await;
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
                self.next_at = self.pace.take(chunk.len());
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn urgent_snapshot_passes_the_bandwidth_by() {
        let transfers = Arc::new(SnapshotTransfers::default());
        let _transfer = transfers.begin(5);
        let pace = SnapshotPace {
            copies: Arc::new(CopyBandwidth::new(1_000)),
            transfers: Some(transfers.clone()),
        };
        let began = Instant::now();
        assert_eq!(pace.take(2_000) - began, Duration::from_secs(2));
        transfers.note_too_much(Some(6));
        assert_eq!(pace.take(2_000), began);
        transfers.note_too_much(None);
        assert_eq!(pace.take(1_000) - began, Duration::from_secs(3));
    }
}
