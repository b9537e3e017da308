//! What a pipe's callers, its messages and its answers share.

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

use crate::failure::{self, Failure};

/// Most operations that wait for an answer.
pub(super) const OPERATIONS_MAX: usize = 16_384;
/// A message is full when its keys and values reach this; a single operation may be larger.
const MESSAGE_LEN_MAX: usize = 1 << 20;
/// A message is full when it has this many operations.
const MESSAGE_OPERATIONS_MAX: usize = 1_024;

type Outcome = Result<v1::answer::Response, Failure>;

#[derive(Debug, Default)]
pub(super) struct Shared(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    /// A task runs the stream.
    open: bool,
    /// Counts the lives of the stream, so that the messages of an ended one take nothing.
    life: u64,
    next_id: u64,
    outbox: VecDeque<Queued>,
    cancelled: Vec<u64>,
    waiters: HashMap<u64, Waiter>,
    /// Wakes the stream of messages when there is something for the next one.
    sender: Option<Waker>,
}

#[derive(Debug)]
struct Queued {
    id: u64,
    request: v1::operation::Request,
    deadline: Instant,
}

#[derive(Debug)]
struct Waiter {
    sent: bool,
    answer: oneshot::Sender<Outcome>,
}

/// A caller's place; given back when dropped (P2).
pub(super) struct Ticket<'a> {
    shared: &'a Arc<Shared>,
    id: u64,
}

impl<'a> Ticket<'a> {
    pub(super) fn draw(
        shared: &'a Arc<Shared>,
        request: v1::operation::Request,
        deadline: Instant,
    ) -> Result<(Self, oneshot::Receiver<Outcome>), Failure> {
        let (answer, answered) = oneshot::channel();
        let mut state = shared.0.lock();
        if state.waiters.len() >= OPERATIONS_MAX {
            let message = format!("{OPERATIONS_MAX} calls wait for this node already");
            return Err(Failure::NeverSent(Error::new(ErrorKind::Unavailable, message)));
        }
        state.next_id += 1;
        let id = state.next_id;
        state.outbox.push_back(Queued { id, request, deadline });
        state.waiters.insert(id, Waiter { sent: false, answer });
        let sender = state.sender.take();
        drop(state);
        if let Some(sender) = sender {
            sender.wake();
        }
        Ok((Self { shared, id }, answered))
    }

    /// Says what is known of a call whose time is over. One that was not sent is not sent any more.
    pub(super) fn expired(&mut self, address: &str) -> Failure {
        let mut state = self.shared.0.lock();
        let sent = state.waiters.get(&self.id).is_none_or(|waiter| waiter.sent);
        if !sent {
            state.waiters.remove(&self.id);
        }
        drop(state);
        let error = |message| Error::new(ErrorKind::DeadlineExceeded, message);
        if sent {
            Failure::Ambiguous(error(format!("{address} did not answer in time")))
        } else {
            Failure::NeverSent(error(format!("{address} took no message in time")))
        }
    }
}

impl Drop for Ticket<'_> {
    fn drop(&mut self) {
        let mut state = self.shared.0.lock();
        // Nobody is there any more if it was answered.
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
    /// Returns the life that the caller must begin, if nobody else has.
    pub(super) fn must_open(&self) -> Option<u64> {
        let mut state = self.0.lock();
        if state.open {
            return None;
        }
        state.open = true;
        state.life += 1;
        Some(state.life)
    }

    pub(super) fn answered(&self, answers: Vec<v1::Answer>) {
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
            // A caller that has just gone does not want it.
            let _ = waiter.send(Ok(response));
        }
    }

    /// The stream has broken: nobody who waits now gets an answer from it.
    pub(super) fn broke(&self, failure: &Failure, address: &str) {
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
                (false, Failure::NeverSent(error)) => Failure::NeverSent(error.clone()),
                (false, other) => Failure::NeverSent(failure::unreachable(address, &other.error().message)),
                (true, Failure::NeverSent(error) | Failure::Ambiguous(error)) => Failure::Ambiguous(error.clone()),
                (true, Failure::Answered(error, wait)) if error.kind == ErrorKind::Unimplemented => {
                    Failure::Answered(error.clone(), *wait)
                }
                // The end of the stream says nothing of one operation.
                (true, Failure::Answered(error, _)) => Failure::Ambiguous(error.clone()),
            };
            let _ = waiter.answer.send(Err(outcome));
        }
    }

    /// Returns the next message: all that has queued, up to its limits.
    pub(super) fn poll_message(&self, life: u64, waker: &Waker) -> Poll<Option<v1::PipelineRequest>> {
        let mut state = self.0.lock();
        if !state.open || state.life != life {
            return Poll::Ready(None);
        }
        let mut message = v1::PipelineRequest {
            operations: Vec::new(),
            cancel_ids: mem::take(&mut state.cancelled),
        };
        let mut len = 0;
        while len < MESSAGE_LEN_MAX && message.operations.len() < MESSAGE_OPERATIONS_MAX {
            let Some(Queued { id, request, deadline }) = state.outbox.pop_front() else {
                break;
            };
            // Whoever has gone before the message does not count.
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

    /// Tells whether a message would have something in it.
    pub(super) fn has_queued(&self) -> bool {
        !self.0.lock().outbox.is_empty()
    }
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

    fn sends(shared: &Shared, life: u64) -> bool {
        matches!(shared.poll_message(life, Waker::noop()), Poll::Ready(Some(message)) if !message.operations.is_empty())
    }

    #[test]
    fn expired_call_that_counts_as_never_sent_is_not_sent_later() {
        let shared = Arc::new(Shared::default());
        let life = shared.must_open().unwrap();
        let (mut ticket, _answer) = Ticket::draw(&shared, get(), Instant::now()).unwrap();
        assert!(matches!(ticket.expired("n"), Failure::NeverSent(_)));
        assert!(!sends(&shared, life), "before the caller gives its place back");
        let (mut ticket, _answer) = Ticket::draw(&shared, get(), Instant::now()).unwrap();
        assert!(sends(&shared, life));
        assert!(matches!(ticket.expired("n"), Failure::Ambiguous(_)));
    }
}
