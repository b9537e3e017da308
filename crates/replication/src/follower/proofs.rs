//! Proofs of freshness on a stream: pings to the home, and its pongs, which are queued behind what came before them.

use stead_api::proto::internal::v1::{FeedPing, FeedPong};
use stead_state::freshness::Proof;
use stead_types::planted::{self, Bug};
use tokio::time::Instant;

use super::{
    queue::Item,
    stream::{FollowerStream, StreamEnd},
};
use crate::wire::{self, MessageToHome};

impl FollowerStream {
    /// Sends a ping, unless many proofs of earlier ones are waiting for the changes before them.
    pub(super) fn send_ping(&mut self) -> Result<(), StreamEnd> {
        let now = Instant::now();
        self.pinged_at = Some(now);
        if !self.context.freshness.wants_ping(self.home) {
            return Ok(());
        }
        let number = self.pings.send(now);
        self.send(MessageToHome::Ping(FeedPing { number }))
    }

    /// Queues the proof that a pong brings: it holds once everything before the pong is applied.
    pub(super) fn handle_pong(&mut self, pong: &FeedPong) -> Result<(), StreamEnd> {
        let offset = wire::offset_from(pong.offset)?;
        if let Some(mut sent) = self.pings.take_answered(pong.number) {
            if planted::is(Bug::FreshFromAnswer) {
                sent = Instant::now();
            }
            self.queue.push(Item::Pong(Proof {
                as_of: self.context.freshness.at(sent),
                offset,
                view: wire::version_from(pong.view_incarnation, pong.view_index),
            }));
        }
        Ok(())
    }
}
