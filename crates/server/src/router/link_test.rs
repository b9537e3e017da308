//! Tests of a link that is not run: what it sends, answers and cancels.

use stead_api::{
    net::{Connect, Keepalive, channel},
    proto::v1::{DeleteRequest, Operation, operation::Request},
};
use stead_state::lease::loss::Confirmation;
use stead_types::{Epoch, Incarnation, TenantNumber};

use super::*;
use crate::router::{ResponseReceiver, ResponseSender};

/// A link that is not run, and calls for it.
struct World {
    link: ForwardLink,
    queue: mpsc::Sender<OutgoingCall>,
    answers: ResponseSender,
    answered: ResponseReceiver,
}

impl World {
    fn new() -> Self {
        let (queued, queue) = mpsc::channel(9);
        let channel = Channel::from_static("http://127.0.0.1:1").connect_lazy();
        let cancels = watch::Sender::new(()).subscribe();
        let (answers, answered) = ResponseSender::channel(Arc::default());
        Self {
            link: ForwardLink::new(channel, queue, Arc::default(), PeerAlarms::default(), cancels),
            queue: queued,
            answers,
            answered,
        }
    }

    fn call(&self, id: u64) -> OutgoingCall {
        let operation = Operation {
            id,
            request: Some(Request::Delete(DeleteRequest::default())),
            ..Operation::default()
        };
        OutgoingCall {
            call: Call {
                access: crate::auth::Access::node(),
                confirmation: Confirmation::Leased,
                operation,
                deadline: Instant::now() + Duration::from_secs(5),
                is_retry: false,
                hops: 0,
                forwarded: None,
                responder: Responder::new(id, self.answers.clone()),
            },
            target: ForwardTarget {
                group: GroupId::new(1),
                epoch: Epoch::FIRST,
                tenant: TenantNumber::new(1),
            },
            view_version: DirectoryVersion {
                incarnation: Incarnation(1),
                index: 1,
            },
            node: NodeId::new(1),
            candidates: Vec::new(),
        }
    }
}

/// A peer that was restarted is connected to before anybody calls it.
#[tokio::test(start_paused = true)]
async fn broken_link_is_opened_again_without_a_call() {
    let dials = watch::Sender::new(0);
    let dialled = dials.clone();
    let connect: Connect = Arc::new(move |_| {
        dialled.send_modify(|dials| *dials += 1);
        Box::pin(async { Err(std::io::ErrorKind::ConnectionRefused.into()) })
    });
    let channel = channel(&connect, "127.0.0.1:1", Keepalive::PEER).unwrap();
    let (queued, queue) = mpsc::channel(9);
    let cancels = watch::Sender::new(()).subscribe();
    let link = ForwardLink::new(channel, queue, Arc::default(), PeerAlarms::default(), cancels);
    let running = tokio::spawn(link.run(CancellationToken::new()));
    let mut dials = dials.subscribe();
    let again = timeout(Duration::from_secs(10), dials.wait_for(|dials| *dials >= 3)).await;
    assert!(again.is_ok(), "it dials once only");
    drop(queued);
    let ended = timeout(2 * REOPEN_MAX, running).await;
    assert!(ended.is_ok(), "a link that nobody can use ends");
}

/// Invariant 3: a call that is cancelled in the queue is not sent; for one that was sent, the peer is told once.
#[tokio::test]
async fn link_cancelled_calls_are_not_sent_or_cancelled_once() {
    let mut world = World::new();
    let calls = [7, 8].map(|id| world.call(id));
    world.answers.cancel(vec![7]);
    calls.into_iter().for_each(|call| world.link.push(call));
    let sent = sent(&world.link.message().unwrap());
    assert_eq!(sent.len(), 1);
    assert_eq!(world.answered.try_recv().map(|ready| ready.answer.id), Some(7));

    world.link.cancel();
    assert_eq!(world.link.message(), None, "nobody has cancelled it");
    world.answers.cancel(vec![8]);
    world.link.cancel();
    world.link.cancel();
    let cancelled = world.link.message().map(|message| message.cancel_ids);
    assert_eq!(cancelled, Some(sent), "by the number that the peer knows");
    assert_eq!(world.link.message(), None, "once");
    assert!(world.answered.try_recv().is_none(), "the peer answers it");
}

/// Invariant 3: a call whose deadline passes before it is sent is answered and not sent.
#[tokio::test(start_paused = true)]
async fn link_expired_queued_call_is_answered_unsent() {
    let mut world = World::new();
    let [early, late, queued, later] = [7, 8, 9, 10].map(|id| world.call(id));
    world.link.push(early);
    assert_eq!(world.link.message().map(|message| message.operations.len()), Some(1));
    let deadline = later.call.deadline + Duration::from_secs(5);
    world.link.push(late);
    world.queue.try_send(queued).unwrap();
    world.queue.try_send(later_by(later, deadline)).unwrap();
    tokio::time::advance(Duration::from_secs(5)).await;
    assert_eq!(world.link.waiting.len(), 1);

    world.link.expire();
    let mut answered = std::iter::from_fn(|| world.answered.try_recv());
    let ids: Vec<u64> = answered.by_ref().map(|ready| ready.answer.id).collect();
    assert_eq!(ids, [8, 9], "what was sent is left to its peer a little longer");
    assert_eq!(sent(&world.link.message().unwrap()).len(), 1);
    assert_eq!(world.link.message(), None);
}

fn later_by(mut outgoing: OutgoingCall, deadline: Instant) -> OutgoingCall {
    outgoing.call.deadline = deadline;
    outgoing
}

fn sent(message: &ForwardRequest) -> Vec<u64> {
    let operations = message.operations.iter();
    operations
        .filter_map(|forwarded| Some(forwarded.operation.as_ref()?.id))
        .collect()
}
