//! The messages of a pipe, as tonic takes them.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::Stream;
use stead_api::proto::v1;

use super::state::Shared;

/// Ends when the pipe is closed.
pub(super) struct Outgoing {
    shared: Arc<Shared>,
    life: u64,
    /// The others that are ready to run have had their turn since something was queued.
    yielded: bool,
}

impl Outgoing {
    pub(super) fn new(shared: Arc<Shared>, life: u64) -> Self {
        Self {
            shared,
            life,
            yielded: false,
        }
    }
}

impl Stream for Outgoing {
    type Item = v1::PipelineRequest;

    /// Lets callers that were woken together queue before the message is made: one message for all costs less than
    /// one for each, and a turn of the runtime is short.
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.yielded && self.shared.has_queued() {
            self.yielded = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.yielded = false;
        self.shared.poll_message(self.life, context.waker())
    }
}
