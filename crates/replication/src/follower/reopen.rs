//! Following of one home, from stream to stream: when one ends, the next one is opened.

use std::{sync::Arc, time::Duration};

use futures::stream::FuturesUnordered;
use stead_types::GroupId;
use tokio::time::Instant;

use super::{
    attach_scheduler::AttachScheduler,
    connect::connect,
    stream::{FollowerStream, StreamEnd},
};
use crate::{feed_clients::FeedClients, group_context::GroupContext};

/// Pause before a stream is opened again after an invalid message.
const INVALID_MESSAGE_PAUSE: Duration = Duration::from_secs(5);

/// Lifetime below which a stream is not opened again at once, but after a pause that doubles each time.
const SHORT_LIFETIME: Duration = Duration::from_secs(1);
/// Shortest pause before a stream is opened again that lived shorter than [`SHORT_LIFETIME`].
const REOPEN_PAUSE_MIN: Duration = Duration::from_millis(5);

/// Task that follows one home, from stream to stream, until this node's rows are closed.
pub(crate) async fn run(context: Arc<GroupContext>, feed_clients: Arc<FeedClients>, home: GroupId) {
    let (mut scheduler, mut seeds, mut hint) = (AttachScheduler::default(), FuturesUnordered::new(), None);
    let mut pause = REOPEN_PAUSE_MIN;
    loop {
        let open = Box::pin(connect(&context, &feed_clients, home, &mut hint)).await;
        scheduler.reset_asked();
        // A node whose rows are closed stops.
        let Ok(mut stream) = FollowerStream::new(context.clone(), feed_clients.clone(), home, open) else {
            return;
        };
        stream.seeds = seeds;
        stream.scheduler = scheduler;
        context.freshness.set_connected(home, true);
        let opened_at = Instant::now();
        let end = Box::pin(stream.run_until_end()).await;
        context.freshness.set_connected(home, false);
        tracing::debug!(group = %context.id(), %home, ?end, "stream ended");
        if let StreamEnd::InvalidMessage(invalid) = &end {
            context.report_invalid_stream(home, invalid);
            tokio::time::sleep(INVALID_MESSAGE_PAUSE).await;
        }
        if let Some(pending) = stream.pending.take() {
            // It may attach tenants, which the next stream must be opened with. Its outcome is read from records.
            drop(pending.await);
        }
        (scheduler, seeds) = (stream.scheduler, stream.seeds);
        if let StreamEnd::NotLeader(leader) = end {
            hint = leader;
        }
        if opened_at.elapsed() < SHORT_LIFETIME {
            // It may be refused again for the same reason, and each open costs both sides a listing of all tenants.
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(INVALID_MESSAGE_PAUSE);
        } else {
            pause = REOPEN_PAUSE_MIN;
        }
    }
}
