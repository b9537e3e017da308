//! Request stream of a pipeline, as tonic consumes it.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::Stream;
use stead_api::proto::v1;

use super::state::Shared;

/// Stream of pipeline messages; it ends when the pipeline is closed.
pub(super) struct RequestStream {
    shared: Arc<Shared>,
    generation: u64,
    /// Whether this task has yielded once to the other tasks since something was queued.
    yielded: bool,
}

impl RequestStream {
    pub(super) fn new(shared: Arc<Shared>, generation: u64) -> Self {
        Self {
            shared,
            generation,
            yielded: false,
        }
    }
}

impl Stream for RequestStream {
    type Item = v1::PipelineRequest;

    /// Returns the next message, after yielding once so that callers that were woken together can queue: one message
    /// for all costs less than one for each, and a turn of the runtime is short.
    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if !self.yielded && self.shared.has_queued() {
            self.yielded = true;
            context.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.yielded = false;
        self.shared.poll_message(self.generation, context.waker())
    }
}
