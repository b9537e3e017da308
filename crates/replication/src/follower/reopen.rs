//! Following of one home, from stream to stream: when one ends, the next one is opened.

use std::{sync::Arc, time::Duration};

use futures::stream::FuturesUnordered;
use stead_types::GroupId;
use tokio::time::{Instant, timeout};

use super::{
    attach_scheduler::AttachScheduler,
    connect::connect,
    stream::{FollowerStream, StreamEnd},
};
use crate::{feed_clients::FeedClients, group_context::GroupContext};

/// Lifetime below which a stream is not opened again at once, but after a pause that doubles each time.
const SHORT_LIFETIME: Duration = Duration::from_secs(1);
/// Shortest and longest pause before a stream is opened again that lived shorter than [`SHORT_LIFETIME`].
const REOPEN_PAUSE_MIN: Duration = Duration::from_millis(5);
const REOPEN_PAUSE_MAX: Duration = Duration::from_secs(5);
/// Pause before a stream is opened again after an invalid message, however long it lived.
const INVALID_MESSAGE_PAUSE: Duration = REOPEN_PAUSE_MAX;

/// Time without a stream after which the log says so: longer than an election and a reconnect.
const LATE_AFTER: Duration = Duration::from_secs(5);

/// Task that follows one home, from stream to stream, until this node's rows are closed.
pub(crate) async fn run(context: Arc<GroupContext>, feed_clients: Arc<FeedClients>, home: GroupId) {
    let (mut scheduler, mut seeds, mut hint) = (AttachScheduler::default(), FuturesUnordered::new(), None);
    let mut reopen_pause = ReopenPause::default();
    loop {
        let connecting = connect(&context, &feed_clients, home, &mut hint);
        let open = told_if_late(context.id(), home, Box::pin(connecting)).await;
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
        // Before any wait: what is waited for after the end is no part of the stream's life.
        let pause = reopen_pause.next(opened_at.elapsed(), &end);
        context.freshness.set_connected(home, false);
        tracing::debug!(group = %context.id(), %home, ?end, "feed stream ended");
        if let StreamEnd::InvalidMessage(invalid) = &end {
            context.report_invalid_stream(home, invalid);
        }
        if let Some(pending) = stream.pending.take() {
            // It may attach tenants, which the next stream must be opened with. Its outcome is read from records.
            drop(pending.await);
        }
        (scheduler, seeds) = (stream.scheduler, stream.seeds);
        if let StreamEnd::NotLeader(leader) = end {
            hint = leader;
        }
        tokio::time::sleep(pause).await;
    }
}

/// Waits for a stream, with a line in the log where that takes long, and one when it is over.
async fn told_if_late<T>(group: GroupId, home: GroupId, mut connecting: impl Future<Output = T> + Unpin) -> T {
    if let Ok(open) = timeout(LATE_AFTER, &mut connecting).await {
        return open;
    }
    tracing::warn!(%group, %home, "feed is not connected: the copies of this home's tenants grow old");
    let begun = Instant::now();
    let open = connecting.await;
    let late = begun.elapsed() + LATE_AFTER;
    tracing::info!(%group, %home, seconds = late.as_secs(), "feed is connected again");
    open
}

/// Pause before the next stream to a home. Each stream costs both sides a listing of all tenants, and may be refused
/// for the same reason as the one before.
#[derive(Debug)]
struct ReopenPause {
    /// Pause after the next short stream.
    short: Duration,
}

impl Default for ReopenPause {
    fn default() -> Self {
        Self {
            short: REOPEN_PAUSE_MIN,
        }
    }
}

impl ReopenPause {
    /// Returns the pause after a stream of this lifetime: none after a long one, unless a message was invalid.
    fn next(&mut self, lifetime: Duration, end: &StreamEnd) -> Duration {
        let pause = if lifetime < SHORT_LIFETIME {
            let doubled = (self.short * 2).min(REOPEN_PAUSE_MAX);
            std::mem::replace(&mut self.short, doubled)
        } else {
            self.short = REOPEN_PAUSE_MIN;
            Duration::ZERO
        };
        match end {
            StreamEnd::InvalidMessage(_) => pause.max(INVALID_MESSAGE_PAUSE),
            StreamEnd::NotLeader(_)
            | StreamEnd::Broken
            | StreamEnd::NotCommitted(_)
            | StreamEnd::IncompleteChange(_) => pause,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wire::InvalidMessage;

    const SHORT: Duration = Duration::from_millis(999);
    const INVALID: StreamEnd = StreamEnd::InvalidMessage(InvalidMessage("test"));

    fn millis(pause: &mut ReopenPause, lifetime: Duration, end: &StreamEnd) -> u128 {
        pause.next(lifetime, end).as_millis()
    }

    #[test]
    fn reopen_pause_doubles_until_a_stream_is_long() {
        let mut pause = ReopenPause::default();
        let pauses: Vec<_> = (0..12).map(|_| millis(&mut pause, SHORT, &StreamEnd::Broken)).collect();
        assert_eq!(pauses[..4], [5, 10, 20, 40]);
        assert_eq!(pauses[11], 5_000);
        assert_eq!(millis(&mut pause, SHORT_LIFETIME, &StreamEnd::Broken), 0);
        assert_eq!(millis(&mut pause, SHORT, &StreamEnd::Broken), 5);
    }

    #[test]
    fn invalid_message_pauses_long_and_keeps_the_doubling() {
        let mut pause = ReopenPause::default();
        assert_eq!(millis(&mut pause, SHORT, &INVALID), 5_000);
        assert_eq!(millis(&mut pause, SHORT, &StreamEnd::Broken), 10);
        assert_eq!(millis(&mut pause, SHORT_LIFETIME, &INVALID), 5_000);
        assert_eq!(millis(&mut pause, SHORT, &StreamEnd::Broken), 5);
    }
}
