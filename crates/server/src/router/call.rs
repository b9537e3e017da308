//! One operation on its way through a node, and the promise that it is answered.

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
    /// How often it was handed on before it came here.
    pub(crate) hops: u32,
    /// Present if another node handed it on.
    pub(crate) forwarded: Option<Forwarded>,
    /// Where the answer goes.
    pub(crate) reply: Reply,
}

/// Where answers of one stream or call go.
pub(crate) type Answers = mpsc::UnboundedSender<Answer>;

/// The place of one answer; one that is dropped without an answer answers that nothing is known. The channel is unbounded; what bounds it is the number of operations in flight that its
/// stream admits, each of which is answered exactly once.
#[derive(Debug)]
pub(crate) struct Reply {
    id: u64,
    to: Option<Answers>,
    /// Held until the answer is sent, if this node serves the operation.
    permit: Option<Permit>,
}

impl Reply {
    /// Returns the place of the answer to the operation with this id.
    pub(crate) fn new(id: u64, to: Answers) -> Self {
        Self {
            id,
            to: Some(to),
            permit: None,
        }
    }

    /// Notes that this node has admitted the operation.
    pub(crate) fn hold(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// Notes that another node serves the operation: it is in flight there.
    pub(crate) fn release(&mut self) {
        self.permit = None;
    }

    /// Answers; the id of the answer is set here. A caller that has gone is no error.
    pub(crate) fn send(mut self, mut answer: Answer) {
        answer.id = self.id;
        if let Some(permit) = self.permit.take().filter(Permit::charges_answer) {
            permit.answered(Instant::now(), reply::data_len(&answer));
        }
        if let Some(to) = self.to.take() {
            let _gone = to.send(answer);
        }
    }
}

impl Drop for Reply {
    fn drop(&mut self) {
        if let Some(to) = self.to.take() {
            let message = "the node gave the operation up: it may have happened, ask again";
            let mut answer = reply::error(&Error::new(ErrorKind::OutcomeUnknown { key: None }, message));
            answer.id = self.id;
            let _gone = to.send(answer);
        }
    }
}
