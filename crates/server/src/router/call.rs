//! One operation on its way through a node, and the promise that it is answered.
//!
//! A caller that goes away cancels. What has not begun then is dropped before it costs anything, and answered: nothing
//! happened. What was proposed goes on. Nothing is kept for an operation that nobody cancels.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use stead_api::proto::v1::{Answer, Operation};
use stead_types::{Epoch, Error, ErrorKind, GroupId, TenantNumber};
use tokio::{sync::mpsc, time::Instant};

use crate::{admission::Permit, reply};

/// What the node that handed an operation on knew about it.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Forwarded {
    /// The group that must serve it.
    pub(crate) group: GroupId,
    /// The epoch on whose account it was forwarded.
    pub(crate) epoch: Epoch,
    /// The number of the tenant whose name stands in the operation.
    pub(crate) tenant: TenantNumber,
}

/// One operation on its way.
#[derive(Debug)]
pub(crate) struct Call {
    /// What is asked, as it came; handed on unchanged.
    pub(crate) operation: Operation,
    /// When its caller stops waiting.
    pub(crate) deadline: Instant,
    /// A gRPC library has sent it before, or may have.
    pub(crate) is_repeated: bool,
    /// How often it was handed on before it came here.
    pub(crate) hops: u32,
    /// Present if another node handed it on.
    pub(crate) forwarded: Option<Forwarded>,
    /// Where the answer goes.
    pub(crate) reply: Reply,
}

/// Most cancelled operations of one stream that are remembered; those with the lowest ids are forgotten, and go on.
const CANCELLED_MAX: usize = 4_096;

/// Where answers of one stream or call go, and which of them nobody waits for any more.
#[derive(Clone, Debug)]
pub(crate) struct Answers(Arc<Outlet>);

#[derive(Debug)]
struct Outlet {
    to: mpsc::UnboundedSender<Answer>,
    cancelled: Mutex<BTreeSet<u64>>,
    /// How many are cancelled: mostly none, which must cost nothing to find out.
    count: AtomicUsize,
}

impl Answers {
    /// Returns where answers go and where they come from. The channel is unbounded; what bounds it is the number of
    /// operations in flight that its stream admits, each of which is answered exactly once.
    pub(crate) fn channel() -> (Self, mpsc::UnboundedReceiver<Answer>) {
        let (to, from) = mpsc::unbounded_channel();
        let outlet = Outlet {
            to,
            cancelled: Mutex::default(),
            count: AtomicUsize::new(0),
        };
        (Self(Arc::new(outlet)), from)
    }

    /// Notes that nobody waits for these operations any more.
    pub(crate) fn cancel(&self, ids: Vec<u64>) {
        let mut cancelled = self.0.cancelled.lock();
        cancelled.extend(ids);
        while cancelled.len() > CANCELLED_MAX {
            cancelled.pop_first();
        }
        self.0.count.store(cancelled.len(), Ordering::Release);
    }

    /// Forgets who cancelled: nothing is in flight.
    pub(crate) fn forget_cancelled(&self) {
        if self.has_cancelled() {
            self.0.cancelled.lock().clear();
            self.0.count.store(0, Ordering::Release);
        }
    }

    fn has_cancelled(&self) -> bool {
        self.0.count.load(Ordering::Acquire) > 0
    }

    fn is_cancelled(&self, id: u64) -> bool {
        self.has_cancelled() && self.0.cancelled.lock().contains(&id)
    }

    /// Forgets one: it is answered, or its id is used again.
    fn forget(&self, id: u64) {
        if self.has_cancelled() {
            let mut cancelled = self.0.cancelled.lock();
            cancelled.remove(&id);
            self.0.count.store(cancelled.len(), Ordering::Release);
        }
    }
}

/// The place of one answer; one that is dropped without an answer answers that nothing is known.
#[derive(Debug)]
pub(crate) struct Reply {
    id: u64,
    to: Option<Answers>,
    /// Held until the answer is sent.
    permit: Option<Permit>,
}

impl Reply {
    /// Returns the place of the answer to the operation with this id.
    pub(crate) fn new(id: u64, to: Answers) -> Self {
        to.forget(id);
        Self {
            id,
            to: Some(to),
            permit: None,
        }
    }

    /// Notes that this node has admitted the operation, to serve it or to hand it on.
    pub(crate) fn hold(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// Gives back what the operation was admitted for.
    pub(crate) fn release(&mut self) {
        self.permit = None;
    }

    /// Tells whether nobody waits for the answer any more: its caller has cancelled, or its stream has gone.
    pub(crate) fn is_unwanted(&self) -> bool {
        let unwanted = |to: &Answers| to.is_cancelled(self.id) || to.0.to.is_closed();
        self.to.as_ref().is_none_or(unwanted)
    }

    /// Answers; the id of the answer is set here. A caller that has gone is no error.
    pub(crate) fn send(mut self, answer: Answer) {
        self.answer(answer);
    }

    fn answer(&mut self, mut answer: Answer) {
        answer.id = self.id;
        if let Some(permit) = self.permit.take().filter(Permit::charges_answer) {
            permit.answered(Instant::now(), reply::data_len(&answer));
        }
        if let Some(to) = self.to.take() {
            to.forget(self.id);
            let _gone = to.0.to.send(answer);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if self.to.is_some() {
            let message = "the node gave the operation up: it may have happened, ask again";
            self.answer(reply::error(&Error::new(
                ErrorKind::OutcomeUnknown { key: None },
                message,
            )));
        }
    }
}

/// The answer to an operation that was cancelled in time.
pub(crate) fn cancelled() -> Error {
    let message = "the caller cancelled it before anything happened";
    Error::new(ErrorKind::DeadlineExceeded, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn only_what_was_cancelled_is_unwanted_and_only_while_it_is_under_way() {
        let (answers, mut answered) = Answers::channel();
        let [one, two] = [1, 2].map(|id| Reply::new(id, answers.clone()));
        answers.cancel(vec![2, 3]);
        assert!(!one.is_unwanted() && two.is_unwanted());
        two.send(reply::error(&cancelled()));
        assert_eq!(answered.recv().await.map(|answer| answer.id), Some(2));
        // An id that comes again is another operation.
        let [two, three] = [2, 3].map(|id| Reply::new(id, answers.clone()));
        assert!(!two.is_unwanted() && !three.is_unwanted());
        answers.cancel(vec![2]);
        answers.forget_cancelled();
        assert!(!two.is_unwanted());
        drop(answered);
        assert!(one.is_unwanted(), "the stream has gone");
    }

    #[test]
    fn what_is_remembered_of_cancelled_operations_is_bounded() {
        let (answers, _answered) = Answers::channel();
        let replies = [1, 9_000].map(|id| Reply::new(id, answers.clone()));
        answers.cancel((1..=9_000).collect());
        assert_eq!(replies.each_ref().map(Reply::is_unwanted), [false, true]);
        assert_eq!(answers.0.cancelled.lock().len(), CANCELLED_MAX);
    }
}
