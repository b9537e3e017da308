//! Sending of snapshots to followers: read chunk by chunk, never held as a whole.

use std::pin::pin;
use std::time::Duration;

use futures::{StreamExt, stream};
use openraft::errors::{ReplicationClosed, StreamingError};
use openraft::network::{NetSnapshot, RPCOption};
use openraft::raft::SnapshotResponse;
use openraft::storage::Snapshot;
use stead_store::machine::Chunks;
use tokio::sync::oneshot;

use super::Peer;
use crate::peer_channels::unreachable;
use crate::snapshot_source::{SnapshotPace, SnapshotSource};
use crate::types::{LeaderId, RpcError, TypeConfig, Vote};
use crate::wire::{self, MessageKind};

/// Timeout for sending and installing a snapshot. A dead connection is detected by its keep-alive long before.
const TRANSFER_MAX: Duration = Duration::from_secs(60 * 60);

const SENDING: &str = "sending a snapshot";

/// Bounds of the exponential backoff after a failed snapshot. It ends early when the peer responds again after it did
/// not.
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
        // openraft takes the next snapshot at once, which every write to the group waits for. Nothing of this one is
        // held.
        let pause = pause(self.failed_snapshots);
        self.failed_snapshots += 1;
        let (peer, failed) = (self.to, self.failed_snapshots);
        tracing::debug!(%peer, %group, failed, ?pause, "cannot send a snapshot to a peer");
        health.record_retry(Some(group), SENDING, &error);
        tokio::select! {
            closed = &mut cancel => Err(closed.into()),
            () = self.network.peers.wait_for(self.to, pause) => Err(error.into()),
        }
    }
}

/// Returns the backoff before the next snapshot, after this many consecutive failures before the current one.
fn pause(failed: u32) -> Duration {
    (PAUSE_MIN * 2_u32.saturating_pow(failed.min(16))).min(PAUSE_MAX)
}

impl Peer {
    /// Sends a snapshot and returns the receiver's vote, once it has installed it.
    async fn transfer(&self, vote: Vote, snapshot: Snapshot<LeaderId, u64, (), Chunks>) -> Result<Vote, RpcError> {
        let cut = snapshot.meta.last_log_id.map_or(0, |id| id.index);
        let _transfer = self.network.transfers.begin(cut);
        let mut client = self.network.peers.dedicated_client(self.to)?;
        let sender = self.network.sender;
        let head = sender.envelope(MessageKind::SnapshotHead, 0, wire::snapshot_head(&vote, &snapshot.meta));
        let (failed, mut failure) = oneshot::channel();
        let pace = SnapshotPace {
            copies: self.network.copies.clone(),
            transfers: Some(self.network.transfers.clone()),
        };
        let rest = SnapshotSource::new(sender, self.network.worker.clone(), pace, snapshot.snapshot, failed);
        let sent = client.snapshot(stream::iter([head]).chain(rest.into_stream()));
        let answer = tokio::time::timeout(TRANSFER_MAX, sent).await;
        if let Ok(failed) = failure.try_recv() {
            // The state was rewound or erased while it was read.
            return Err(unreachable(format!("{failed}: {}", failed.source)));
        }
        let answer = answer.map_err(|_| unreachable("the snapshot was not installed in time".to_owned()))?;
        let answer = answer
            .map_err(|status| self.network.peers.failed(&status))?
            .into_inner();
        let answer = wire::response_from(self.to, answer).map_err(|other| unreachable(other.to_string()))?;
        let vote = wire::body(answer, MessageKind::SnapshotResponse).and_then(wire::read_snapshot_response);
        vote.map_err(|malformed| unreachable(malformed.to_string()))
    }
}
