//! A link to one peer, over which operations are handed on: one stream, many operations in a message.
//!
//! What queues while a message is on its way into the connection is the next message. When the stream breaks, what was
//! sent and is a write has an unknown outcome; everything else certainly did not happen.
//!
//! # Invariants
//!
//! 1. Every call that enters a link is answered once.
//! 2. A call that was sent is never sent again by the link: retrying is the client's.
//! 3. A call that was cancelled before it was sent is not sent; for one that was sent the peer is told, once.

use std::{
    collections::{BTreeMap, VecDeque},
    convert::Infallible,
    sync::Arc,
    time::Duration,
};

use futures::{StreamExt, stream};
use stead_api::{
    operation::{self, Sort, idempotency_key, sort},
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
    pending: BTreeMap<u64, Pending>,
    /// Messages that wait for a place in the connection; meanwhile nothing is taken from the queue.
    outbox: VecDeque<ForwardRequest>,
    next_id: u64,
    /// Told when callers have cancelled.
    cancels: watch::Receiver<()>,
}

enum Wake {
    Queued(Vec<Outgoing>),
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
        cancels: watch::Receiver<()>,
    ) -> Self {
        let client = ForwardServiceClient::new(channel)
            .max_decoding_message_size(reply::MESSAGE_DECODE_MAX)
            .max_encoding_message_size(reply::MESSAGE_DECODE_MAX);
        Self {
            client,
            queue,
            leaders,
            pending: BTreeMap::new(),
            outbox: VecDeque::new(),
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
        self.fail_pending();
        Ok(())
    }

    /// The first stream is opened before anybody waits for it; after a break the next one is when somebody does.
    async fn serve(&mut self) {
        let mut first = None;
        loop {
            match self.open(&mut first).await {
                Some((messages, inbound)) => self.session(first.take(), messages, inbound).await,
                None => {
                    first.take().into_iter().for_each(|outgoing| self.refuse(outgoing));
                    while let Ok(queued) = self.queue.try_recv() {
                        self.refuse(queued);
                    }
                }
            }
            self.fail_pending();
            first = self.queue.recv().await;
            if first.is_none() {
                return;
            }
        }
    }

    /// Opens the stream; the call that waits for it may be cancelled meanwhile.
    async fn open(&mut self, first: &mut Option<Outgoing>) -> Option<Streams> {
        let mut opening = std::pin::pin!(open(self.client.clone()));
        loop {
            tokio::select! {
                opened = &mut opening => return opened,
                Ok(()) = self.cancels.changed(), if first.is_some() => {
                    *first = first.take().and_then(wanted);
                }
            }
        }
    }

    /// One stream, until it breaks.
    async fn session(
        &mut self,
        first: Option<Outgoing>,
        messages: mpsc::Sender<ForwardRequest>,
        mut inbound: Streaming<ForwardResponse>,
    ) {
        let mut wake = Wake::Queued(first.into_iter().collect());
        let mut sweep = interval(SWEEP_INTERVAL);
        sweep.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            match wake {
                Wake::Queued(calls) => self.outbox = self.messages(calls),
                Wake::Cancelled => self.cancel(),
                Wake::Sent => {}
                Wake::Answered(response) => self.answered(response),
                Wake::Broken => return,
                Wake::Expired => {
                    self.expire();
                    // A stream that has gone tells nobody.
                    self.cancel();
                }
            }
            wake = self.wait(&messages, &mut inbound, &mut sweep).await;
        }
    }

    /// Answers a call that never left this node, and asks another voter next time.
    fn refuse(&self, outgoing: Outgoing) {
        self.leaders.failed(outgoing.to.group, outgoing.node, &outgoing.nodes);
        refuse(outgoing);
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
        tokio::select! {
            place = messages.reserve(), if !self.outbox.is_empty() => match (place, self.outbox.pop_front()) {
                (Ok(place), Some(message)) => {
                    place.send(message);
                    Wake::Sent
                }
                (Ok(_), None) | (Err(_), _) => Wake::Broken,
            },
            answer = inbound.next() => match answer {
                Some(Ok(response)) => Wake::Answered(response),
                Some(Err(_)) | None => Wake::Broken,
            },
            count = self.queue.recv_many(&mut queued, MESSAGE_OPERATIONS_MAX), if self.outbox.is_empty() => {
                if count == 0 { Wake::Broken } else { Wake::Queued(queued) }
            }
            Ok(()) = self.cancels.changed(), if !self.pending.is_empty() => Wake::Cancelled,
            _ = sweep.tick(), if !self.pending.is_empty() => Wake::Expired,
        }
    }

    fn messages(&mut self, calls: Vec<Outgoing>) -> VecDeque<ForwardRequest> {
        let mut messages = VecDeque::new();
        let mut message = ForwardRequest::default();
        let mut len = 0;
        for outgoing in calls.into_iter().filter_map(wanted) {
            len += operation::len(&outgoing.call.operation);
            message.operations.push(self.enter(outgoing));
            if len >= MESSAGE_LEN_MAX {
                messages.push_back(std::mem::take(&mut message));
                len = 0;
            }
        }
        if !message.operations.is_empty() {
            messages.push_back(message);
        }
        messages
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
        let mut cancel_ids = Vec::new();
        for (id, pending) in &mut self.pending {
            if !pending.is_cancelled && pending.reply.is_unwanted() {
                pending.is_cancelled = true;
                cancel_ids.push(*id);
            }
        }
        if !cancel_ids.is_empty() {
            self.outbox.push_back(ForwardRequest {
                operations: Vec::new(),
                cancel_ids,
            });
        }
    }

    fn expire(&mut self) {
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

    fn fail_pending(&mut self) {
        self.outbox.clear();
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

/// Answers a call that was cancelled before it left this node; returns any other.
fn wanted(outgoing: Outgoing) -> Option<Outgoing> {
    if !outgoing.call.reply.is_unwanted() {
        return Some(outgoing);
    }
    outgoing.call.reply.send(reply::error(&cancelled()));
    None
}

/// Answers a call that never left this node.
pub(crate) fn refuse(outgoing: Outgoing) {
    let error = Error::new(
        ErrorKind::Unavailable,
        "the node that must serve this cannot be reached from here",
    );
    outgoing.call.reply.send(reply::error(&error));
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
        answers: Answers,
        answered: mpsc::UnboundedReceiver<Answer>,
    }

    impl World {
        fn new() -> Self {
            let (_, queue) = mpsc::channel(1);
            let channel = Channel::from_static("http://127.0.0.1:1").connect_lazy();
            let cancels = watch::Sender::new(()).subscribe();
            let (answers, answered) = Answers::channel();
            Self {
                link: Link::new(channel, queue, Arc::default(), cancels),
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
        let messages = world.link.messages(calls.into());
        let sent: Vec<u64> = messages
            .iter()
            .flat_map(|message| &message.operations)
            .filter_map(|forwarded| Some(forwarded.operation.as_ref()?.id))
            .collect();
        assert_eq!(sent.len(), 1);
        assert_eq!(world.answered.try_recv().map(|answer| answer.id), Ok(7));

        world.link.cancel();
        assert!(world.link.outbox.is_empty(), "nobody has cancelled it");
        world.answers.cancel(vec![8]);
        world.link.cancel();
        world.link.cancel();
        let told: Vec<Vec<u64>> = world
            .link
            .outbox
            .iter()
            .map(|message| message.cancel_ids.clone())
            .collect();
        assert_eq!(told, [sent], "by the number that the peer knows");
        assert!(world.answered.try_recv().is_err(), "the peer answers it");
    }
}
