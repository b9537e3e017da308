//! An operation on its way through a node, and the guarantee that it is answered.
//!
//! A caller that goes away cancels. An operation that has not begun then is dropped before it costs anything, and
//! answered as not executed. An operation that was proposed goes on. No state is kept for an operation that is not
//! cancelled.

use std::{
    collections::BTreeSet,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use parking_lot::Mutex;
use stead_api::{
    operation::{OperationKind, operation_kind},
    proto::v1::{Answer, DeleteRangeResponse, Operation},
};
use stead_state::lease::loss::Confirmation;
use stead_types::{Epoch, Error, ErrorKind, GroupId, TenantNumber};
use tokio::{sync::Notify, time::Instant};

use crate::{
    admission::Permit,
    answers::{AnswerAccount, AnswerPermit, AnswersFull},
    auth::Access,
    fair_queue::FairQueue,
    metrics::OperationLabel,
    response,
};

/// Target of a forwarded operation: group, epoch and tenant as the sender knows them.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForwardTarget {
    /// The group that must serve it.
    pub(crate) group: GroupId,
    /// The tenant's epoch by which it was routed.
    pub(crate) epoch: Epoch,
    /// The number of the tenant that the operation names.
    pub(crate) tenant: TenantNumber,
}

/// Origin of a forwarded operation or watch: the target that the sender named, and the number of hops.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ForwardOrigin {
    /// The target that the sender named.
    pub(crate) target: ForwardTarget,
    /// How often it was forwarded.
    pub(crate) hops: u32,
}

/// An operation on its way.
#[derive(Debug)]
pub(crate) struct Call {
    /// The operation as received; forwarded unchanged.
    pub(crate) operation: Operation,
    /// The caller's deadline.
    pub(crate) deadline: Instant,
    /// Whether a gRPC library has sent it before, or may have.
    pub(crate) is_retry: bool,
    /// Number of times that it was forwarded before.
    pub(crate) hops: u32,
    /// Its target, if another node forwarded it.
    pub(crate) forwarded: Option<ForwardTarget>,
    /// Caller.
    pub(crate) access: Access,
    /// Whether a lease has counted for what was done for it here.
    pub(crate) confirmation: Confirmation,
    /// Sends the answer.
    pub(crate) responder: Responder,
}

impl Call {
    /// Returns the label of its operation in the metrics.
    pub(super) fn label(&self) -> OperationLabel {
        match self.operation.request.as_ref().map(operation_kind) {
            Some(OperationKind::Write) => OperationLabel::Write,
            Some(OperationKind::Scan) => OperationLabel::Scan,
            Some(OperationKind::Read) | None => OperationLabel::Read,
        }
    }
}

/// Most operations in flight of one stream, from a client or from another node.
pub(crate) const STREAM_OPERATIONS_MAX: usize = 4_096;

/// Most cancelled operations of one stream that are remembered; those with the lowest ids are forgotten, and go on.
const CANCELLED_MAX: usize = 4_096;

/// Sender of the answers of one stream or call, with the ids that were cancelled.
#[derive(Clone, Debug)]
pub(crate) struct ResponseSender(Arc<ResponseChannel>);

/// Receiver of the answers of one stream or call: those of several tenants in fair turns.
#[derive(Debug)]
pub(crate) struct ResponseReceiver(Arc<ResponseChannel>);

/// An answer, and its room among those that wait for their reader.
#[derive(Debug)]
pub(crate) struct ReadyAnswer {
    /// The answer.
    pub(crate) answer: Answer,
    /// Its room.
    pub(crate) permit: AnswerPermit,
}

#[derive(Debug)]
struct ResponseChannel {
    ready: Mutex<FairQueue<ReadyAnswer>>,
    /// Notified when an answer is ready.
    notify: Notify,
    /// Whether the receiver has gone.
    is_closed: AtomicBool,
    account: Arc<AnswerAccount>,
    cancelled: Mutex<BTreeSet<u64>>,
    /// Number of cancelled ids: usually zero, which must be cheap to find out.
    count: AtomicUsize,
}

impl ResponseSender {
    /// Returns the sender and the receiver of answers. The number of them is bounded by the operations in flight that the
    /// stream admits, each of which is answered exactly once, their bytes by the account.
    pub(crate) fn channel(account: Arc<AnswerAccount>) -> (Self, ResponseReceiver) {
        let channel = Arc::new(ResponseChannel {
            ready: Mutex::default(),
            notify: Notify::new(),
            is_closed: AtomicBool::new(false),
            account,
            cancelled: Mutex::default(),
            count: AtomicUsize::new(0),
        });
        (Self(channel.clone()), ResponseReceiver(channel))
    }

    fn send(&self, tenant: TenantNumber, answer: Answer) {
        if self.is_closed() {
            return;
        }
        let len = response::memory_len(&answer);
        let permit = self.0.account.add(tenant, len);
        let ready = ReadyAnswer { answer, permit };
        let len = usize::try_from(len).unwrap_or(usize::MAX);
        self.0.ready.lock().push(tenant, len, ready);
        self.0.notify.notify_one();
    }

    fn is_closed(&self) -> bool {
        self.0.is_closed.load(Ordering::Acquire)
    }

    /// Marks operations as cancelled.
    pub(crate) fn cancel(&self, ids: Vec<u64>) {
        let mut cancelled = self.0.cancelled.lock();
        cancelled.extend(ids);
        while cancelled.len() > CANCELLED_MAX {
            cancelled.pop_first();
        }
        self.0.count.store(cancelled.len(), Ordering::Release);
    }

    /// Clears all cancellations: nothing is in flight.
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

    /// Clears one cancellation: the operation is answered, or its id is used again.
    fn forget(&self, id: u64) {
        if self.has_cancelled() {
            let mut cancelled = self.0.cancelled.lock();
            cancelled.remove(&id);
            self.0.count.store(cancelled.len(), Ordering::Release);
        }
    }
}

impl ResponseReceiver {
    /// Waits for answers, and takes those that are ready: at most so many, and so many bytes beyond the last one.
    pub(crate) async fn recv_many(&mut self, into: &mut Vec<ReadyAnswer>, count_max: usize, len_max: u64) -> usize {
        let (mut count, mut len) = (0, 0);
        loop {
            while count < count_max
                && len < len_max
                && let Some(ready) = self.try_recv()
            {
                count += 1;
                len += ready.permit.len();
                into.push(ready);
            }
            if count > 0 {
                return count;
            }
            self.0.notify.notified().await;
        }
    }

    /// Waits for an answer.
    pub(crate) async fn recv(&mut self) -> ReadyAnswer {
        loop {
            match self.try_recv() {
                Some(ready) => return ready,
                None => self.0.notify.notified().await,
            }
        }
    }

    /// Takes an answer that is ready.
    pub(crate) fn try_recv(&mut self) -> Option<ReadyAnswer> {
        self.0.ready.lock().pop()
    }
}

impl Drop for ResponseReceiver {
    fn drop(&mut self) {
        self.0.is_closed.store(true, Ordering::Release);
        *self.0.ready.lock() = FairQueue::default();
    }
}

/// Responder of one operation. One that is dropped without an answer sends that the outcome is unknown.
#[derive(Debug)]
pub(crate) struct Responder {
    id: u64,
    /// Arrival of the operation at this node.
    pub(super) began: Instant,
    to: Option<ResponseSender>,
    /// Held until the answer is sent.
    permit: Option<Permit>,
    /// Keys of a range that earlier homes removed, to be added to the answer of the home that goes on.
    part: Option<Box<DeleteRangeResponse>>,
}

impl Responder {
    /// Returns the responder of the operation with this id.
    pub(crate) fn new(id: u64, to: ResponseSender) -> Self {
        to.forget(id);
        Self {
            id,
            began: Instant::now(),
            to: Some(to),
            permit: None,
            part: None,
        }
    }

    /// Holds the permit of the admitted operation until it is answered.
    pub(crate) fn hold(&mut self, permit: Permit) {
        self.permit = Some(permit);
    }

    /// Drops the permit.
    pub(crate) fn release(&mut self) {
        self.permit = None;
    }

    /// Charges the tenant for data that was read and is not in the answer.
    pub(super) fn charge_work(&self, len: u64) {
        if let Some(permit) = self.permit.as_ref().filter(|permit| permit.charges_response()) {
            permit.charge_response(Instant::now(), len);
        }
    }

    /// Adds what was removed here of a range to the answer of the home that goes on under the same idempotency key.
    pub(super) fn add_part(&mut self, part: DeleteRangeResponse) {
        let before = self.part.take();
        self.part = Some(Box::new(match before {
            Some(before) => response::add_deletions(*before, part),
            None => part,
        }));
    }

    /// Tells whether the caller waits no more: it has cancelled, or its stream has ended.
    pub(crate) fn is_abandoned(&self) -> bool {
        let is_abandoned = |to: &ResponseSender| to.is_cancelled(self.id) || to.is_closed();
        self.to.as_ref().is_none_or(is_abandoned)
    }

    /// Checks that there is room for another answer with data of a tenant.
    pub(crate) fn check_room(&self, tenant: TenantNumber) -> Result<(), AnswersFull> {
        self.to.as_ref().map_or(Ok(()), |to| to.0.account.check(tenant))
    }

    /// Sends the answer, and sets its id. A caller that has gone is no error.
    pub(crate) fn send(mut self, answer: Answer) {
        self.answer(answer);
    }

    fn answer(&mut self, mut answer: Answer) {
        if let Some(part) = self.part.take() {
            answer = response::with_deletions_before(*part, answer);
        }
        answer.id = self.id;
        let permit = self.permit.take();
        if let Some(permit) = permit.as_ref().filter(|permit| permit.charges_response()) {
            permit.charge_response(Instant::now(), response::data_len(&answer));
        }
        let tenant = permit.map_or(TenantNumber::new(0), |permit| permit.tenant());
        if let Some(to) = self.to.take() {
            to.forget(self.id);
            to.send(tenant, answer);
        }
    }
}

impl Drop for Responder {
    fn drop(&mut self) {
        if self.to.is_some() {
            let message =
                "the node dropped the operation: it may have been executed, retry it with the same idempotency key";
            self.answer(response::error_answer(&Error::new(
                ErrorKind::OutcomeUnknown { key: None },
                message,
            )));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::router::rejections;

    #[tokio::test]
    async fn responder_is_abandoned_only_while_cancelled_and_in_flight() {
        let (answers, mut answered) = ResponseSender::channel(Arc::default());
        let [one, two] = [1, 2].map(|id| Responder::new(id, answers.clone()));
        answers.cancel(vec![2, 3]);
        assert!(!one.is_abandoned() && two.is_abandoned());
        two.send(response::error_answer(&rejections::cancelled()));
        assert_eq!(answered.recv().await.answer.id, 2);
        // An id that comes again is another operation.
        let [two, three] = [2, 3].map(|id| Responder::new(id, answers.clone()));
        assert!(!two.is_abandoned() && !three.is_abandoned());
        answers.cancel(vec![2]);
        answers.forget_cancelled();
        assert!(!two.is_abandoned());
        drop(answered);
        assert!(one.is_abandoned(), "the stream has gone");
    }

    /// Keys that were removed at each home are in the one answer, also if the last home fails.
    #[tokio::test]
    async fn range_deletion_over_homes_has_one_answer() {
        use stead_api::proto::v1::answer::Response;

        let deleted = |deleted, incomplete, repeated_outcome| DeleteRangeResponse {
            deleted,
            changes: 1,
            incomplete,
            repeated_outcome,
            ..DeleteRangeResponse::default()
        };
        let (answers, mut answered) = ResponseSender::channel(Arc::default());
        let mut responders = [1, 2].map(|id| Responder::new(id, answers.clone()));
        for responder in &mut responders {
            responder.add_part(deleted(512, true, false));
            responder.add_part(deleted(100, true, true));
        }
        let [one, two] = responders;
        one.send(response::answer(Response::DeleteRange(deleted(30, false, true))));
        drop(two);
        let mut next = async || match answered.recv().await.answer.response {
            Some(Response::DeleteRange(whole)) => {
                (whole.deleted, whole.changes, whole.incomplete, whole.repeated_outcome)
            }
            other => panic!("{other:?}"),
        };
        assert_eq!(next().await, (642, 3, false, false));
        assert_eq!(next().await, (612, 2, true, false));
    }

    #[test]
    fn cancelled_ids_are_bounded() {
        let (answers, _answered) = ResponseSender::channel(Arc::default());
        let replies = [1, 9_000].map(|id| Responder::new(id, answers.clone()));
        answers.cancel((1..=9_000).collect());
        assert_eq!(replies.each_ref().map(Responder::is_abandoned), [false, true]);
        assert_eq!(answers.0.cancelled.lock().len(), CANCELLED_MAX);
    }
}
