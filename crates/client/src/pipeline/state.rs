//! State shared by the callers of a pipeline, its request stream and its response reader.

use std::{
    collections::{HashMap, VecDeque},
    mem,
    sync::Arc,
    task::{Poll, Waker},
};

use parking_lot::Mutex;
use stead_api::proto::v1;
use stead_types::{Error, ErrorKind};
use tokio::{sync::oneshot, time::Instant};

use crate::failure::{self, AttemptFailure};

/// Most operations that wait for a response.
pub(super) const OPERATIONS_MAX: usize = 16_384;
/// A message is full when its keys and values reach this; a single operation may be larger.
const MESSAGE_LEN_MAX: usize = 1 << 20;
/// A message is full when it has this many operations.
const MESSAGE_OPERATIONS_MAX: usize = 1_024;

type Outcome = Result<v1::answer::Response, AttemptFailure>;

#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// Whether a task runs the stream.
    open: bool,
    /// Number of times the stream was opened, so that the request stream of an ended one takes nothing.
    generation: u64,
    next_id: u64,
    outbox: VecDeque<QueuedOperation>,
    cancelled: Vec<u64>,
    waiters: HashMap<u64, Waiter>,
    /// Wakes the request stream when an operation is queued.
    sender: Option<Waker>,
}

#[derive(Debug)]
struct QueuedOperation {
    id: u64,
    request: v1::operation::Request,
    deadline: Instant,
}

#[derive(Debug)]
struct Waiter {
    sent: bool,
    answer: oneshot::Sender<Outcome>,
}

/// Registration of a waiting caller; removed when dropped (P2).
pub(super) struct PendingCall<'a> {
    shared: &'a Arc<Shared>,
    id: u64,
}

impl<'a> PendingCall<'a> {
    pub(super) fn enqueue(
        shared: &'a Arc<Shared>,
        request: v1::operation::Request,
        deadline: Instant,
    ) -> Result<(Self, oneshot::Receiver<Outcome>), AttemptFailure> {
        let (answer, answered) = oneshot::channel();
        let mut state = shared.0.lock();
        if state.waiters.len() >= OPERATIONS_MAX {
            let message =
                format!("the pipeline to this node is full ({OPERATIONS_MAX} operations wait for a response)");
            return Err(AttemptFailure::NeverSent(Error::new(ErrorKind::Unavailable, message)));
        }
        state.next_id += 1;
        let id = state.next_id;
        state.outbox.push_back(QueuedOperation { id, request, deadline });
        state.waiters.insert(id, Waiter { sent: false, answer });
        let sender = state.sender.take();
        drop(state);
        if let Some(sender) = sender {
            sender.wake();
        }
        Ok((Self { shared, id }, answered))
    }

    /// Returns the failure of a call whose deadline has passed. A call that was not sent is withdrawn, so that it is
    /// not sent later.
    pub(super) fn timed_out(&mut self, address: &str) -> AttemptFailure {
        let mut state = self.shared.0.lock();
        let sent = state.waiters.get(&self.id).is_none_or(|waiter| waiter.sent);
        if !sent {
            state.waiters.remove(&self.id);
        }
        drop(state);
        let error = |message| Error::new(ErrorKind::DeadlineExceeded, message);
        if sent {
            AttemptFailure::Ambiguous(error(format!("{address} did not answer in time")))
        } else {
            AttemptFailure::NeverSent(error(format!("{address} accepted no message before the deadline")))
        }
    }
}

impl Drop for PendingCall<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.0.lock();
        // The waiter is gone already if the call was answered.
        let was_sent = state.waiters.remove(&self.id).is_some_and(|waiter| waiter.sent);
        if !was_sent {
            return;
        }
        state.cancelled.push(self.id);
        let sender = state.sender.take();
        drop(state);
        if let Some(sender) = sender {
            sender.wake();
        }
    }
}

impl Shared {
    /// Marks the stream as open and returns its new generation; `None` if it is open already.
    pub(super) fn claim_open(&self) -> Option<u64> {
        let mut state = self.0.lock();
        if state.open {
            return None;
        }
        state.open = true;
        state.generation += 1;
        Some(state.generation)
    }

    pub(super) fn complete(&self, answers: Vec<v1::Answer>) {
        let mut ready = Vec::with_capacity(answers.len());
        {
            let mut state = self.0.lock();
            for answer in answers {
                let waiter = state.waiters.remove(&answer.id);
                if let (Some(waiter), Some(response)) = (waiter, answer.response) {
                    ready.push((waiter.answer, response));
                }
            }
        }
        for (waiter, response) in ready {
            // A caller that has just gone does not want the response.
            let _ = waiter.send(Ok(response));
        }
    }

    /// Fails all waiting calls after the stream broke.
    pub(super) fn fail_all(&self, failure: &AttemptFailure, address: &str) {
        let waiters = {
            let mut state = self.0.lock();
            state.open = false;
            state.outbox.clear();
            state.cancelled.clear();
            state.sender = None;
            mem::take(&mut state.waiters)
        };
        for waiter in waiters.into_values() {
            let outcome = match (waiter.sent, failure) {
                (false, AttemptFailure::NeverSent(error)) => AttemptFailure::NeverSent(error.clone()),
                (false, other) => AttemptFailure::NeverSent(failure::unreachable(address, &other.error().message)),
                (true, AttemptFailure::NeverSent(error) | AttemptFailure::Ambiguous(error)) => {
                    AttemptFailure::Ambiguous(error.clone())
                }
                // Refused before a message was read.
                (true, AttemptFailure::ErrorResponse(error, wait)) if is_refusal_of_stream(&error.kind) => {
                    AttemptFailure::ErrorResponse(error.clone(), *wait)
                }
                // The end of the stream says nothing of one operation.
                (true, AttemptFailure::ErrorResponse(error, _)) => AttemptFailure::Ambiguous(error.clone()),
            };
            let _ = waiter.answer.send(Err(outcome));
        }
    }

    /// Returns the next message: all queued operations, up to the limits of a message.
    pub(super) fn poll_message(&self, generation: u64, waker: &Waker) -> Poll<Option<v1::PipelineRequest>> {
        let mut state = self.0.lock();
        if !state.open || state.generation != generation {
            return Poll::Ready(None);
        }
        let mut message = v1::PipelineRequest {
            operations: Vec::new(),
            cancel_ids: mem::take(&mut state.cancelled),
        };
        let mut len = 0;
        while len < MESSAGE_LEN_MAX && message.operations.len() < MESSAGE_OPERATIONS_MAX {
            let Some(QueuedOperation { id, request, deadline }) = state.outbox.pop_front() else {
                break;
            };
            // An operation whose caller has gone is not sent.
            if let Some(waiter) = state.waiters.get_mut(&id) {
                waiter.sent = true;
                let operation = operation(id, request, deadline);
                len += stead_api::operation::len(&operation);
                message.operations.push(operation);
            }
        }
        if message.operations.is_empty() && message.cancel_ids.is_empty() {
            state.sender = Some(waker.clone());
            return Poll::Pending;
        }
        Poll::Ready(Some(message))
    }

    /// Tells whether an operation is queued.
    pub(super) fn has_queued(&self) -> bool {
        !self.0.lock().outbox.is_empty()
    }
}

/// Tells whether a node refuses a stream like this before it reads a message.
fn is_refusal_of_stream(kind: &ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::Unimplemented | ErrorKind::Unauthenticated | ErrorKind::PermissionDenied
    )
}

fn operation(id: u64, request: v1::operation::Request, deadline: Instant) -> v1::Operation {
    let left = deadline.saturating_duration_since(Instant::now()).as_millis();
    v1::Operation {
        id,
        deadline_ms: u32::try_from(left).unwrap_or(u32::MAX).max(1),
        routing: v1::Routing::Unspecified.into(),
        request: Some(request),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn get() -> v1::operation::Request {
        v1::operation::Request::Get(v1::GetRequest::default())
    }

    fn sends_operation(shared: &Shared, generation: u64) -> bool {
        let message = shared.poll_message(generation, Waker::noop());
        matches!(message, Poll::Ready(Some(message)) if !message.operations.is_empty())
    }

    #[test]
    fn timed_out_call_reported_as_never_sent_is_not_sent() {
        // P1.
        let shared = Arc::new(Shared::default());
        let generation = shared.claim_open().unwrap();
        let (mut pending, _answer) = PendingCall::enqueue(&shared, get(), Instant::now()).unwrap();
        assert!(matches!(pending.timed_out("n"), AttemptFailure::NeverSent(_)));
        assert!(!sends_operation(&shared, generation), "before the call is dropped");
        let (mut pending, _answer) = PendingCall::enqueue(&shared, get(), Instant::now()).unwrap();
        assert!(sends_operation(&shared, generation));
        assert!(matches!(pending.timed_out("n"), AttemptFailure::Ambiguous(_)));
    }
}
