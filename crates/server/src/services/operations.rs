//! Streams of operations and their answers, from services and from other nodes.
//!
//! The stream has no task of its own; reading its answers drives it. Answers that become ready while a message is
//! being sent go into the next one, and a caller who stops reading stops being read: backpressure.
//!
//! # Invariants
//!
//! 1. At most [`STREAM_OPERATIONS_MAX`] operations (and one message more) of a stream are in flight; further messages
//!    wait in the connection.
//! 2. Every operation is answered once, in any order; one that was cancelled too. Those of a message that cannot be
//!    decoded are not: the stream ends behind the others' answers, with an error.

use std::pin::Pin;

use futures::{
    Stream, StreamExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use stead_api::proto::v1::Answer;
use stead_types::Error;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::{
    data_services::DataServices,
    messages::{MESSAGE_LEN_MAX, split_messages},
};
use crate::{
    answers::{AnswerAccount, ConnectionAnswers, UnsentAnswers},
    response,
    router::{Call, ReadyAnswer, Responder, ResponseReceiver, ResponseSender, STREAM_OPERATIONS_MAX},
};

/// Most answers of a message.
const MESSAGE_ANSWERS_MAX: usize = 512;

/// Operations and cancellations of one inbound message.
#[derive(Default)]
pub(crate) struct InboundOperations {
    /// Calls to serve.
    pub(crate) calls: Vec<Call>,
    /// Calls to reject, with their errors.
    pub(crate) rejected: Vec<(Responder, Error)>,
    /// Ids of operations, of this or an earlier message, that were cancelled.
    pub(crate) cancel_ids: Vec<u64>,
}

impl InboundOperations {
    /// Answers the rejected calls, and returns their number.
    pub(super) fn reject_all(self) -> usize {
        let count = self.rejected.len();
        for (responder, error) in self.rejected {
            responder.send(response::error_answer(&error));
        }
        count
    }
}

/// Stream of inbound messages, each with a function that turns it into calls.
pub(crate) type Inbound = Pin<Box<dyn Stream<Item = Result<MessageReader, Status>> + Send>>;
type MessageReader = Box<dyn FnOnce(&ResponseSender) -> InboundOperations + Send>;

/// Returns the inbound messages of a stream; `read_message` decodes one.
pub(crate) fn inbound<M: Send + 'static>(
    messages: impl Stream<Item = Result<M, Status>> + Send + 'static,
    read_message: impl Fn(M, &ResponseSender) -> InboundOperations + Clone + Send + 'static,
) -> Inbound {
    let read = move |message| -> MessageReader {
        let read_message = read_message.clone();
        Box::new(move |answers| read_message(message, answers))
    };
    Box::pin(messages.map(move |message| message.map(&read)))
}

struct OperationStream {
    data_services: DataServices,
    inbound: Option<Inbound>,
    running: FuturesUnordered<BoxFuture<'static, ()>>,
    answers: (ResponseSender, ResponseReceiver),
    in_flight: usize,
    /// The error that ended the inbound stream.
    inbound_error: Option<Status>,
    stop: CancellationToken,
}

/// Returns the answers to a stream of operations, as messages. It ends when the last operation is answered; when the
/// token fires it reads no more and answers what it has read. Answers have their room on a client's connection until
/// their bytes are sent, as `unsent` keeps it; `None` is that of another node.
pub(crate) fn serve(
    data_services: DataServices,
    inbound: Inbound,
    connection: Option<ConnectionAnswers>,
    unsent: UnsentAnswers,
    stop: CancellationToken,
) -> impl Stream<Item = Result<Vec<Answer>, Status>> {
    let account = AnswerAccount::new(data_services.answers.clone(), connection);
    let stream_state = OperationStream {
        data_services,
        inbound: Some(inbound),
        running: FuturesUnordered::new(),
        answers: ResponseSender::channel(account),
        in_flight: 0,
        inbound_error: None,
        stop,
    };
    let answers = stream::unfold(stream_state, |mut stream_state| async move {
        Some((stream_state.next().await?, stream_state))
    });
    let split = answers.map_ok(|answers| stream::iter(split_messages(answers).into_iter().map(Ok)));
    split.try_flatten().map_ok(move |answers: Vec<ReadyAnswer>| {
        let room = answers.into_iter().map(|ready| (ready.answer, ready.permit));
        let (answers, permits): (_, Vec<_>) = room.unzip();
        unsent.extend(permits);
        answers
    })
}

impl OperationStream {
    async fn next(&mut self) -> Option<Result<Vec<ReadyAnswer>, Status>> {
        let mut answers = Vec::new();
        while self.inbound.is_some() || self.in_flight > 0 {
            let room = self.in_flight < STREAM_OPERATIONS_MAX;
            let taking = self.inbound.is_some();
            let inbound = async {
                match &mut self.inbound {
                    Some(inbound) if room => inbound.next().await,
                    Some(_) | None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                Some(()) = self.running.next() => {}
                count = self.answers.1.recv_many(&mut answers, MESSAGE_ANSWERS_MAX, MESSAGE_LEN_MAX as u64), if self.in_flight > 0 => {
                    self.in_flight -= count;
                    if self.in_flight == 0 {
                        self.answers.0.forget_cancelled();
                    }
                    return Some(Ok(answers));
                }
                message = inbound => match message {
                    Some(Ok(read)) => self.accept(read),
                    Some(Err(status)) => {
                        self.data_services.peer_alarms.record_status(&status);
                        self.inbound = None;
                        self.inbound_error = Some(response::message_too_long(status));
                    }
                    None => self.inbound = None,
                },
                () = self.stop.cancelled(), if taking => self.inbound = None,
            }
        }
        self.inbound_error.take().map(Err)
    }

    fn accept(&mut self, read: MessageReader) {
        let mut operations = read(&self.answers.0);
        let (calls, cancel_ids) = (
            std::mem::take(&mut operations.calls),
            std::mem::take(&mut operations.cancel_ids),
        );
        self.in_flight += operations.reject_all();
        if !cancel_ids.is_empty() {
            self.answers.0.cancel(cancel_ids);
            self.data_services.links.notify_cancelled();
        }
        if !calls.is_empty() {
            self.in_flight += calls.len();
            self.running
                .push(Box::pin(self.data_services.router.clone().dispatch(calls)));
        }
    }
}
