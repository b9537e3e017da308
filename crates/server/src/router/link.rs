//! A link to one peer, over which operations are handed on: one stream, many operations in a message.
//!
//! What queues while a message is on its way into the connection is the next message. When the stream breaks, what was
//! sent and is a write has an unknown outcome; everything else certainly did not happen.
//!
//! # Invariants
//!
//! 1. Every call that enters a link is answered once.
//! 2. A call that was sent is never sent again by the link: retrying is the client's.
//! 3. A call that was cancelled before it was sent, or whose deadline has passed, is not sent; for one that was sent and
//!    is cancelled the peer is told, once.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use stead_api::{
    operation::{self, Sort, idempotency_key, sort},
    peer_codec::PeerAlarms,
    proto::{
        internal::v1::{
            ForwardRequest, ForwardResponse, ForwardedOperation, forward_service_client::ForwardServiceClient,
        },
        v1::IdempotencyKey,
    },
};
use stead_types::{DirectoryVersion, Error, ErrorKind, GroupId, NodeId};
use tokio::{
    sync::{mpsc, watch},
    time::{Instant, Interval, MissedTickBehavior, interval, timeout},
};
use tokio_util::sync::CancellationToken;
use tonic::{Streaming, transport::Channel};
use tracing::debug;

use super::{
    call::{Call, Forwarded, Reply, cancelled},
    leaders::Leaders,
    too_late,
};
use crate::reply;

/// Operations that wait for one peer; beyond it they are shed.
pub(crate) const QUEUE_MAX: usize = 8_192;
/// Most operations of a message.
const MESSAGE_OPERATIONS_MAX: usize = 512;
/// A message is closed when its operations reach this many bytes.
const MESSAGE_LEN_MAX: usize = 1 << 20;
/// Messages between the link and its connection.
const MESSAGES_QUEUED_MAX: usize = 2;
/// How long a peer may take to begin its answers.
const OPEN_MAX: Duration = Duration::from_secs(4);
/// How often operations past their deadline are looked for.
const SWEEP_INTERVAL: Duration = Duration::from_millis(200);
/// How long after its deadline an operation is given up: its own answer says more than the link can.
const DEADLINE_SLACK: Duration = Duration::from_millis(100);

/// A call and why it is handed on.
#[derive(Debug)]
pub(crate) struct Outgoing {
    /// The call.
    pub(crate) call: Call,
    /// On whose account.
    pub(crate) to: Forwarded,
    /// Version of the view by which it was routed.
    pub(crate) view: DirectoryVersion,
    /// To whom.
    pub(crate) node: NodeId,
    /// Who else could have been chosen.
    pub(crate) nodes: Vec<NodeId>,
}

struct Pending {
    reply: Reply,
    deadline: Instant,
    group: GroupId,
    node: NodeId,
    nodes: Vec<NodeId>,
    key: Option<IdempotencyKey>,
    is_write: bool,
    /// The peer was told that nobody waits.
    is_cancelled: bool,
}

/// The link's task.
pub(crate) struct Link {
    client: ForwardServiceClient<Channel>,
    queue: mpsc::Receiver<Outgoing>,
    leaders: Arc<Leaders>,
    alarms: PeerAlarms,
    /// Taken from the queue and not sent: what waits for a place in the connection.
    waiting: VecDeque<Outgoing>,
    /// Sent and not answered.
    pending: BTreeMap<u64, Pending>,
    /// What the peer is to be told of with the next message.
    cancel_ids: Vec<u64>,
    next_id: u64,
    /// Told when callers have cancelled.
    cancels: watch::Receiver<()>,
}

enum Wake {
    Queued,
    Sent,
    Answered(ForwardResponse),
    Broken,
    Expired,
    Cancelled,
}

impl Link {
    /// Returns a link that hands on what comes through the queue.
    pub(crate) fn new(
        channel: Channel,
        queue: mpsc::Receiver<Outgoing>,
        leaders: Arc<Leaders>,
        alarms: PeerAlarms,
        cancels: watch::Receiver<()>,
    ) -> Self {
        let client = ForwardServiceClient::new(channel)
            .max_decoding_message_size(reply::MESSAGE_DECODE_MAX)
            .max_encoding_message_size(reply::MESSAGE_DECODE_MAX);
        Self {
            client,
            queue,
            leaders,
            alarms,
            waiting: VecDeque::new(),
            pending: BTreeMap::new(),
            cancel_ids: Vec::new(),
            next_id: 1,
            cancels,
        }
    }

    /// Runs until the token fires or nobody can use the link any more.
    pub(crate) async fn run(mut self, stop: CancellationToken) -> Result<(), Infallible> {
        tokio::select! {
            () = self.serve() => {}
            () = stop.cancelled() => {}
        }
        self.end();
        Ok(())
    }

    /// The first stream is opened before anybody waits for it; after a break the next one is when somebody does.
    async fn serve(&mut self) {
        loop {
            match self.open().await {
                Some((messages, inbound)) => self.session(messages, inbound).await,
                None => self.take_queued(),
            }
            self.end();
            match self.queue.recv().await {
                Some(first) => self.waiting.push_back(first),
                None => return,
            }
        }
    }

    /// Opens the stream; calls that wait for it may be cancelled or become late meanwhile.
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

    /// One stream, until it breaks.
    async fn session(&mut self, messages: mpsc::Sender<ForwardRequest>, mut inbound: Streaming<ForwardResponse>) {
        let mut sweep = sweep();
        loop {
            match self.wait(&messages, &mut inbound, &mut sweep).await {
                Wake::Queued | Wake::Sent => {}
                Wake::Cancelled => self.cancel(),
                Wake::Answered(response) => self.answered(response),
                Wake::Broken => return,
                Wake::Expired => {
                    self.expire();
                    // A stream that has gone tells nobody.
                    self.cancel();
                }
            }
        }
    }

    /// Answers a call that never left this node, and asks another voter next time.
    fn refuse(&self, outgoing: Outgoing) {
        self.leaders.failed(outgoing.to.group, outgoing.node, &outgoing.nodes);
        refuse(outgoing.call);
    }

    /// Waits for one thing to do. Answers are read whether or not there is a place for what is to be sent: the peer may
    /// read nothing before its answers are taken.
    async fn wait(
        &mut self,
        messages: &mpsc::Sender<ForwardRequest>,
        inbound: &mut Streaming<ForwardResponse>,
        sweep: &mut Interval,
    ) -> Wake {
        let mut queued = Vec::new();
        let has_sent = !self.pending.is_empty();
        let has_waiting = !self.waiting.is_empty();
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
                Some(Ok(response)) => Wake::Answered(response),
                Some(Err(status)) => {
                    self.alarms.note(&status);
                    Wake::Broken
                }
                None => Wake::Broken,
            },
            count = self.queue.recv_many(&mut queued, MESSAGE_OPERATIONS_MAX), if !has_waiting => {
                self.waiting.extend(queued);
                if count == 0 { Wake::Broken } else { Wake::Queued }
            }
            Ok(()) = self.cancels.changed(), if has_sent || has_waiting => Wake::Cancelled,
            _ = sweep.tick(), if has_sent || has_waiting => Wake::Expired,
        }
    }

    /// Returns the next message, if there is anything that somebody still wants to be sent.
    fn message(&mut self) -> Option<ForwardRequest> {
        let mut message = ForwardRequest {
            operations: Vec::new(),
            cancel_ids: std::mem::take(&mut self.cancel_ids),
        };
        let mut len = 0;
        while message.operations.len() < MESSAGE_OPERATIONS_MAX
            && len < MESSAGE_LEN_MAX
            && let Some(outgoing) = self.waiting.pop_front()
        {
            let Some(outgoing) = wanted(outgoing) else { continue };
            len += operation::len(&outgoing.call.operation);
            message.operations.push(self.enter(outgoing));
        }
        let is_empty = message.operations.is_empty() && message.cancel_ids.is_empty();
        (!is_empty).then_some(message)
    }

    /// Takes what is queued to where it can be looked through.
    fn take_queued(&mut self) {
        while self.waiting.len() < QUEUE_MAX
            && let Ok(queued) = self.queue.try_recv()
        {
            self.waiting.push_back(queued);
        }
    }

    /// Answers those who wait here and for whom it is too late, or who wait no more.
    fn sweep_waiting(&mut self) {
        self.take_queued();
        let waiting = std::mem::take(&mut self.waiting);
        self.waiting = waiting.into_iter().filter_map(wanted).collect();
    }

    fn enter(&mut self, outgoing: Outgoing) -> ForwardedOperation {
        let Outgoing {
            call,
            to,
            view,
            node,
            nodes,
        } = outgoing;
        let mut operation = call.operation;
        let id = self.next_id;
        self.next_id += 1;
        let request = operation.request.as_ref();
        let is_write = request.is_some_and(|request| sort(request) == Sort::Write);
        let key = request.and_then(idempotency_key).cloned();
        let deadline = call.deadline;
        let left = deadline.saturating_duration_since(Instant::now());
        let (reply, group) = (call.reply, to.group);
        self.pending.insert(
            id,
            Pending {
                reply,
                deadline,
                group,
                node,
                nodes,
                key,
                is_write,
                is_cancelled: false,
            },
        );
        operation.id = id;
        operation.deadline_ms = u32::try_from(left.as_millis()).unwrap_or(u32::MAX).max(1);
        ForwardedOperation {
            operation: Some(operation),
            epoch: to.epoch.get(),
            hops: call.hops + 1,
            group: to.group.get(),
            tenant_number: to.tenant.get(),
            view_incarnation: view.incarnation.0,
            view_index: view.index,
        }
    }

    fn answered(&mut self, response: ForwardResponse) {
        for answer in response.answers {
            if let Some(pending) = self.pending.remove(&answer.id) {
                if let Some(node) = reply::home_that_answered(&answer) {
                    self.leaders.answered(pending.group, node);
                } else if reply::has_no_leader(&answer) {
                    // It may be the only one that does not reach the others.
                    self.leaders.failed(pending.group, pending.node, &pending.nodes);
                }
                pending.reply.send(answer);
            }
        }
    }

    /// Tells the peer of those for whom nobody waits any more; they are still answered.
    fn cancel(&mut self) {
        for (id, pending) in &mut self.pending {
            if !pending.is_cancelled && pending.reply.is_unwanted() {
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
                pending.fail("the home did not answer in time");
            }
        }
    }

    /// Answers all that the stream leaves behind.
    fn end(&mut self) {
        self.cancel_ids.clear();
        while let Some(outgoing) = self.waiting.pop_front() {
            self.refuse(outgoing);
        }
        for (_, pending) in std::mem::take(&mut self.pending) {
            pending.fail("the connection to the home broke");
        }
    }
}

impl Pending {
    fn fail(self, why: &str) {
        let error = if self.is_write {
            let key = self
                .key
                .as_ref()
                .and_then(|key| stead_api::convert::id::idempotency_key(key).ok());
            let message = format!("{why}: the write may have happened, ask again with the same idempotency key");
            Error::new(ErrorKind::OutcomeUnknown { key }, message)
        } else {
            Error::new(ErrorKind::Unavailable, why)
        };
        self.reply.send(reply::error(&error));
    }
}

/// Where a stream's messages go and where its answers come from.
type Streams = (mpsc::Sender<ForwardRequest>, Streaming<ForwardResponse>);

async fn open(mut client: ForwardServiceClient<Channel>) -> Option<Streams> {
    let (messages, outbound) = mpsc::channel(MESSAGES_QUEUED_MAX);
    let outbound = stream::unfold(outbound, |mut outbound| async {
        Some((outbound.recv().await?, outbound))
    });
    match timeout(OPEN_MAX, client.pipe(outbound)).await {
        Ok(Ok(inbound)) => Some((messages, inbound.into_inner())),
        Ok(Err(status)) => {
            debug!(%status, "a peer could not be reached");
            None
        }
        Err(_) => {
            debug!("a peer did not answer");
            None
        }
    }
}

fn sweep() -> Interval {
    let mut sweep = interval(SWEEP_INTERVAL);
    sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
    sweep
}

/// Answers a call that was cancelled, or became late, before it left this node; returns any other.
fn wanted(outgoing: Outgoing) -> Option<Outgoing> {
    let error = if outgoing.call.reply.is_unwanted() {
        cancelled()
    } else if outgoing.call.deadline <= Instant::now() {
        too_late()
    } else {
        return Some(outgoing);
    };
    outgoing.call.reply.send(reply::error(&error));
    None
}

/// Answers a call that never left this node.
pub(crate) fn refuse(call: Call) {
    let error = Error::new(
        ErrorKind::Unavailable,
        "the node that must serve this cannot be reached from here",
    );
    call.reply.send(reply::error(&error));
}

#[cfg(test)]
mod tests {
    use stead_api::proto::v1::{Answer, DeleteRequest, Operation, operation::Request};
    use stead_types::{Epoch, Incarnation, TenantNumber};

    use super::*;
    use crate::router::Answers;

    /// A link that is never run, and calls for it.
    struct World {
        link: Link,
        queue: mpsc::Sender<Outgoing>,
        answers: Answers,
        answered: mpsc::UnboundedReceiver<Answer>,
    }

    impl World {
        fn new() -> Self {
            let (queued, queue) = mpsc::channel(9);
            let channel = Channel::from_static("http://127.0.0.1:1").connect_lazy();
            let cancels = watch::Sender::new(()).subscribe();
            let (answers, answered) = Answers::channel();
            Self {
                link: Link::new(channel, queue, Arc::default(), PeerAlarms::default(), cancels),
                queue: queued,
                answers,
                answered,
            }
        }

        fn call(&self, id: u64) -> Outgoing {
            let operation = Operation {
                id,
                request: Some(Request::Delete(DeleteRequest::default())),
                ..Operation::default()
            };
            Outgoing {
                call: Call {
                    operation,
                    deadline: Instant::now() + Duration::from_secs(5),
                    is_repeated: false,
                    hops: 0,
                    forwarded: None,
                    reply: Reply::new(id, self.answers.clone()),
                },
                to: Forwarded {
                    group: GroupId::new(1),
                    epoch: Epoch::FIRST,
                    tenant: TenantNumber::new(1),
                },
                view: DirectoryVersion {
                    incarnation: Incarnation(1),
                    index: 1,
                },
                node: NodeId::new(1),
                nodes: Vec::new(),
            }
        }
    }

    #[tokio::test]
    async fn i3_what_was_cancelled_in_the_queue_is_not_sent_and_what_was_sent_is_cancelled_once() {
        let mut world = World::new();
        let calls = [7, 8].map(|id| world.call(id));
        world.answers.cancel(vec![7]);
        world.link.waiting.extend(calls);
        let sent = sent(&world.link.message().unwrap());
        assert_eq!(sent.len(), 1);
        assert_eq!(world.answered.try_recv().map(|answer| answer.id), Ok(7));

        world.link.cancel();
        assert_eq!(world.link.message(), None, "nobody has cancelled it");
        world.answers.cancel(vec![8]);
        world.link.cancel();
        world.link.cancel();
        let told = world.link.message().map(|message| message.cancel_ids);
        assert_eq!(told, Some(sent), "by the number that the peer knows");
        assert_eq!(world.link.message(), None, "once");
        assert!(world.answered.try_recv().is_err(), "the peer answers it");
    }

    #[tokio::test(start_paused = true)]
    async fn i3_what_became_late_before_it_was_sent_is_answered_and_not_sent() {
        let mut world = World::new();
        let [early, late, queued, later] = [7, 8, 9, 10].map(|id| world.call(id));
        world.link.waiting.push_back(early);
        assert_eq!(world.link.message().map(|message| message.operations.len()), Some(1));
        let deadline = later.call.deadline + Duration::from_secs(5);
        world.link.waiting.push_back(late);
        world.queue.try_send(queued).unwrap();
        world.queue.try_send(later_by(later, deadline)).unwrap();
        tokio::time::advance(Duration::from_secs(5)).await;
        assert_eq!(world.link.waiting.len(), 1);

        world.link.expire();
        let mut answered = std::iter::from_fn(|| world.answered.try_recv().ok());
        let ids: Vec<u64> = answered.by_ref().map(|answer| answer.id).collect();
        assert_eq!(ids, [8, 9], "what was sent is left to its peer a little longer");
        assert_eq!(sent(&world.link.message().unwrap()).len(), 1);
        assert_eq!(world.link.message(), None);
    }

    fn later_by(mut outgoing: Outgoing, deadline: Instant) -> Outgoing {
        outgoing.call.deadline = deadline;
        outgoing
    }

    fn sent(message: &ForwardRequest) -> Vec<u64> {
        let operations = message.operations.iter();
        operations
            .filter_map(|forwarded| Some(forwarded.operation.as_ref()?.id))
            .collect()
    }
}
