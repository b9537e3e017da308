//! Link to one peer over which operations are forwarded: one stream, many operations in a message.
//!
//! Operations that queue while a message is being sent go into the next message. When the stream breaks, a write that
//! was sent has an unknown outcome; everything else certainly did not happen.
//!
//! # Invariants
//!
//! 1. Every call that enters a link is answered once.
//! 2. A call that was sent is never sent again by the link: retrying is the client's.
//! 3. A call that was cancelled before it was sent, or whose deadline has passed, is not sent; for one that was sent
//!    and is cancelled the peer is told, once.

use std::{collections::BTreeMap, convert::Infallible, sync::Arc, time::Duration};

use futures::{StreamExt, stream};
use stead_api::{
    operation::{self, OperationKind, idempotency_key, operation_kind},
    peer_codec::PeerAlarms,
    proto::{
        internal::v1::{
            ForwardRequest, ForwardResponse, ForwardedOperation, forward_service_client::ForwardServiceClient,
        },
        v1::{Answer, IdempotencyKey},
    },
};
use stead_types::{DirectoryVersion, Error, ErrorKind, GroupId, NodeId, TenantNumber};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, Interval, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Streaming, transport::Channel};
use tracing::debug;

use super::{
    call::{Call, ForwardTarget, Responder},
    leader_cache::LeaderCache,
    rejections,
};
use crate::{auth::Access, fair_queue::FairQueue, response};

/// Most operations that wait for one peer; more are shed.
pub(crate) const QUEUE_MAX: usize = 8_192;
/// Most operations of a message.
const MESSAGE_OPERATIONS_MAX: usize = 512;
/// Most bytes of a message's operations, beyond the last one.
const MESSAGE_LEN_MAX: usize = 1 << 20;
/// Most messages queued between the link and its connection.
const MESSAGES_QUEUED_MAX: usize = 2;
/// Longest time for a peer to open the stream.
const OPEN_MAX: Duration = Duration::from_secs(4);
/// Times after which a broken stream is opened again without a call: the shortest, and the longest while the peer cannot be
/// reached.
const REOPEN_MIN: Duration = Duration::from_millis(500);
const REOPEN_MAX: Duration = Duration::from_secs(30);
/// Interval at which operations past their deadline are swept.
const SWEEP_INTERVAL: Duration = Duration::from_millis(200);
/// Time after its deadline at which an operation is given up: the peer's own answer says more than the link can.
const DEADLINE_SLACK: Duration = Duration::from_millis(100);

/// A call to forward, and its route.
#[derive(Debug)]
pub(crate) struct OutgoingCall {
    /// The call.
    pub(crate) call: Call,
    /// Group, epoch and tenant by which it was routed.
    pub(crate) target: ForwardTarget,
    /// Version of the directory view by which it was routed.
    pub(crate) view_version: DirectoryVersion,
    /// The chosen node.
    pub(crate) node: NodeId,
    /// All nodes that could have been chosen.
    pub(crate) candidates: Vec<NodeId>,
}

struct PendingCall {
    responder: Responder,
    tenant: TenantNumber,
    deadline: Instant,
    group: GroupId,
    node: NodeId,
    candidates: Vec<NodeId>,
    key: Option<IdempotencyKey>,
    is_write: bool,
    /// Whether the peer was told of the cancellation.
    is_cancelled: bool,
}

/// The task of a link.
pub(crate) struct ForwardLink {
    client: ForwardServiceClient<Channel>,
    queue: mpsc::Receiver<OutgoingCall>,
    leaders: Arc<LeaderCache>,
    alarms: PeerAlarms,
    /// Calls taken from the queue and not sent yet, of several tenants in fair turns.
    waiting: FairQueue<OutgoingCall>,
    /// Calls sent and not answered, by id.
    pending: BTreeMap<u64, PendingCall>,
    /// Ids to cancel at the peer with the next message.
    cancel_ids: Vec<u64>,
    next_id: u64,
    /// Notified when callers have cancelled.
    cancels: watch::Receiver<()>,
}

enum Wake {
    Queued,
    Sent,
    Response(ForwardResponse),
    Broken,
    Expired,
    Cancelled,
}

impl ForwardLink {
    /// Returns a link that forwards the calls of a queue.
    pub(crate) fn new(
        channel: Channel,
        queue: mpsc::Receiver<OutgoingCall>,
        leaders: Arc<LeaderCache>,
        alarms: PeerAlarms,
        cancels: watch::Receiver<()>,
    ) -> Self {
        let client = ForwardServiceClient::new(channel)
            .max_decoding_message_size(response::MESSAGE_DECODE_MAX)
            .max_encoding_message_size(response::MESSAGE_DECODE_MAX);
        Self {
            client,
            queue,
            leaders,
            alarms,
            waiting: FairQueue::default(),
            pending: BTreeMap::new(),
            cancel_ids: Vec::new(),
            next_id: 1,
            cancels,
        }
    }

    /// Runs until the token fires or the queue is closed.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        tokio::select! {
            () = self.serve() => {}
            () = stop.cancelled() => {}
        }
        self.fail_all();
        Ok(())
    }

    /// Serves stream after stream. Each is opened before there is a call: the round trips of a connection to another
    /// region would come on top of a call's own, as in the pause of a tenant that moves to a peer that was restarted.
    async fn serve(&mut self) {
        let mut reopen_after = REOPEN_MIN;
        loop {
            match self.open().await {
                Some((messages, inbound)) => {
                    self.run_stream(messages, inbound).await;
                    reopen_after = REOPEN_MIN;
                }
                None => {
                    self.take_queued();
                    reopen_after = (2 * reopen_after).min(REOPEN_MAX);
                }
            }
            self.fail_all();
            match timeout(reopen_after, self.queue.recv()).await {
                Ok(Some(first)) => self.push(first),
                Ok(None) => return,
                Err(_elapsed) => {}
            }
        }
    }

    /// Opens a stream; calls that wait meanwhile may be cancelled or exceed their deadline.
    async fn open(&mut self) -> Option<Streams> {
        let mut opening = std::pin::pin!(open(self.client.clone()));
        let mut sweep = sweep();
        loop {
            tokio::select! {
                opened = &mut opening => return opened,
                Ok(()) = self.cancels.changed() => {}
                _ = sweep.tick() => {}
            }
            self.sweep_waiting();
        }
    }

    /// Serves one stream until it breaks.
    async fn run_stream(&mut self, messages: mpsc::Sender<ForwardRequest>, mut inbound: Streaming<ForwardResponse>) {
        let mut sweep = sweep();
        loop {
            match self.wait(&messages, &mut inbound, &mut sweep).await {
                Wake::Queued | Wake::Sent => {}
                Wake::Cancelled => self.cancel(),
                Wake::Response(response) => self.handle_response(response),
                Wake::Broken => return,
                Wake::Expired => {
                    self.expire();
                    // A caller's stream that ends does not notify the link.
                    self.cancel();
                }
            }
        }
    }

    /// Rejects a call that was never sent, and records the failure of its node.
    fn reject_unsent(&self, outgoing: OutgoingCall) {
        self.leaders
            .record_failure(outgoing.target.group, outgoing.node, &outgoing.candidates);
        reject_unreachable(outgoing.call);
    }

    /// Waits for the next event. Answers are read whether or not there is room to send: the peer may read nothing
    /// before its answers are taken.
    async fn wait(
        &mut self,
        messages: &mpsc::Sender<ForwardRequest>,
        inbound: &mut Streaming<ForwardResponse>,
        sweep: &mut Interval,
    ) -> Wake {
        let mut queued = Vec::new();
        let has_sent = !self.pending.is_empty();
        let has_waiting = !self.waiting.is_empty();
        let has_room = self.waiting.len() < QUEUE_MAX && !(has_waiting && self.queue.is_closed());
        tokio::select! {
            place = messages.reserve(), if has_waiting || !self.cancel_ids.is_empty() => match place {
                Ok(place) => {
                    if let Some(message) = self.message() {
                        place.send(message);
                    }
                    Wake::Sent
                }
                Err(_) => Wake::Broken,
            },
            answer = inbound.next() => match answer {
                Some(Ok(response)) => Wake::Response(response),
                Some(Err(status)) => {
                    self.alarms.record_status(&status);
                    Wake::Broken
                }
                None => Wake::Broken,
            },
            count = self.queue.recv_many(&mut queued, MESSAGE_OPERATIONS_MAX), if has_room => {
                queued.into_iter().for_each(|outgoing| self.push(outgoing));
                if count == 0 { Wake::Broken } else { Wake::Queued }
            }
            Ok(()) = self.cancels.changed(), if has_sent || has_waiting => Wake::Cancelled,
            _ = sweep.tick(), if has_sent || has_waiting => Wake::Expired,
        }
    }

    /// Returns the next message, if there is an active call or a cancellation to send.
    fn message(&mut self) -> Option<ForwardRequest> {
        let mut message = ForwardRequest {
            operations: Vec::new(),
            cancel_ids: std::mem::take(&mut self.cancel_ids),
            callers: Vec::new(),
        };
        let mut callers: Vec<Access> = Vec::new();
        let mut len = 0;
        while message.operations.len() < MESSAGE_OPERATIONS_MAX
            && len < MESSAGE_LEN_MAX
            && let Some(outgoing) = self.waiting.pop()
        {
            let Some(outgoing) = reject_inactive(outgoing) else {
                continue;
            };
            len += operation::len(&outgoing.call.operation);
            let place = callers
                .iter()
                .rposition(|known| known.is_same_caller(&outgoing.call.access));
            let place = place.unwrap_or_else(|| {
                callers.push(outgoing.call.access.clone());
                callers.len() - 1
            });
            let caller = u32::try_from(place + 1).unwrap_or(0);
            message.operations.push(ForwardedOperation {
                caller,
                ..self.register(outgoing)
            });
        }
        message.callers = callers.iter().map(Access::to_forwarded).collect();
        let is_empty = message.operations.is_empty() && message.cancel_ids.is_empty();
        (!is_empty).then_some(message)
    }

    /// Moves queued calls to `waiting`, where they can be swept.
    fn take_queued(&mut self) {
        while self.waiting.len() < QUEUE_MAX
            && let Ok(queued) = self.queue.try_recv()
        {
            self.push(queued);
        }
    }

    fn push(&mut self, outgoing: OutgoingCall) {
        let len = operation::len(&outgoing.call.operation);
        self.waiting.push(outgoing.target.tenant, len, outgoing);
    }

    /// Answers waiting calls that were cancelled or exceeded their deadline.
    fn sweep_waiting(&mut self) {
        self.take_queued();
        self.waiting.filter_map(reject_inactive);
    }

    fn register(&mut self, outgoing: OutgoingCall) -> ForwardedOperation {
        let OutgoingCall {
            call,
            target,
            view_version,
            node,
            candidates,
        } = outgoing;
        let mut operation = call.operation;
        let id = self.next_id;
        self.next_id += 1;
        let request = operation.request.as_ref();
        let is_write = request.is_some_and(|request| operation_kind(request) == OperationKind::Write);
        let key = request.and_then(idempotency_key).cloned();
        let deadline = call.deadline;
        let left = deadline.saturating_duration_since(Instant::now());
        let (responder, group) = (call.responder, target.group);
        self.pending.insert(
            id,
            PendingCall {
                responder,
                tenant: target.tenant,
                deadline,
                group,
                node,
                candidates,
                key,
                is_write,
                is_cancelled: false,
            },
        );
        operation.id = id;
        operation.deadline_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
        ForwardedOperation {
            operation: Some(operation),
            epoch: target.epoch.get(),
            hops: call.hops + 1,
            group: target.group.get(),
            tenant_number: target.tenant.get(),
            view_incarnation: view_version.incarnation.0,
            view_index: view_version.index,
            caller: 0,
        }
    }

    fn handle_response(&mut self, response: ForwardResponse) {
        for answer in response.answers {
            if let Some(pending) = self.pending.remove(&answer.id) {
                if let Some(node) = response::responding_home(&answer) {
                    self.leaders.record_leader(pending.group, node);
                } else if response::is_no_leader(&answer) {
                    // The node may be the only one that does not reach the others.
                    self.leaders
                        .record_failure(pending.group, pending.node, &pending.candidates);
                }
                pending.respond(answer);
            }
        }
    }

    /// Queues cancellations for the peer; the calls are still answered.
    fn cancel(&mut self) {
        for (id, pending) in &mut self.pending {
            if !pending.is_cancelled && pending.responder.is_abandoned() {
                pending.is_cancelled = true;
                self.cancel_ids.push(*id);
            }
        }
    }

    fn expire(&mut self) {
        self.sweep_waiting();
        let now = Instant::now();
        let expired: Vec<u64> = self
            .pending
            .iter()
            .filter(|(_, p)| p.deadline + DEADLINE_SLACK <= now)
            .map(|(id, _)| *id)
            .collect();
        for id in expired {
            if let Some(pending) = self.pending.remove(&id) {
                pending.fail("the home did not respond in time");
            }
        }
    }

    /// Fails all calls of a stream that has ended.
    fn fail_all(&mut self) {
        self.cancel_ids.clear();
        while let Some(outgoing) = self.waiting.pop() {
            self.reject_unsent(outgoing);
        }
        for (_, pending) in std::mem::take(&mut self.pending) {
            pending.fail("the connection to the home failed");
        }
    }
}

impl PendingCall {
    /// Sends the home's answer. One to a read for which there is no room is given up: nothing happened.
    fn respond(self, answer: Answer) {
        let room = match self.is_write || response::data_len(&answer) == 0 {
            true => Ok(()),
            false => self.responder.check_room(self.tenant),
        };
        self.responder.send(match room {
            Ok(()) => answer,
            Err(full) => response::error_answer(&full.error()),
        });
    }

    fn fail(self, why: &str) {
        let error = if self.is_write {
            let key = self
                .key
                .as_ref()
                .and_then(|key| stead_api::convert::id::idempotency_key(key).ok());
            let message = format!("{why}: the write may have been executed, retry it with the same idempotency key");
            Error::new(ErrorKind::OutcomeUnknown { key }, message)
        } else {
            Error::new(ErrorKind::Unavailable, why)
        };
        self.responder.send(response::error_answer(&error));
    }
}

/// Sender of a stream's messages and its inbound answers.
type Streams = (mpsc::Sender<ForwardRequest>, Streaming<ForwardResponse>);

async fn open(mut client: ForwardServiceClient<Channel>) -> Option<Streams> {
    let (messages, outbound) = mpsc::channel(MESSAGES_QUEUED_MAX);
    let outbound = stream::unfold(outbound, |mut outbound| async {
        Some((outbound.recv().await?, outbound))
    });
    match timeout(OPEN_MAX, client.pipe(outbound)).await {
        Ok(Ok(inbound)) => Some((messages, inbound.into_inner())),
        Ok(Err(status)) => {
            debug!(%status, "stream to a peer failed");
            None
        }
        Err(_) => {
            debug!("stream to a peer timed out");
            None
        }
    }
}

fn sweep() -> Interval {
    let mut sweep = interval(SWEEP_INTERVAL);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    sweep
}

/// Answers a call that was cancelled or exceeded its deadline before it was sent; returns any other.
fn reject_inactive(outgoing: OutgoingCall) -> Option<OutgoingCall> {
    let error = if outgoing.call.responder.is_abandoned() {
        rejections::cancelled()
    } else if outgoing.call.deadline <= Instant::now() {
        rejections::deadline_exceeded()
    } else {
        return Some(outgoing);
    };
    outgoing.call.responder.send(response::error_answer(&error));
    None
}

/// Rejects a call whose node cannot be reached.
pub(crate) fn reject_unreachable(call: Call) {
    let error = Error::new(
        ErrorKind::Unavailable,
        "the node that must serve this cannot be reached from here: try again",
    );
    call.responder.send(response::error_answer(&error));
}

#[cfg(test)]
#[path = "link_test.rs"]
mod link_test;
