//! A stream of operations and their answers, as services and other nodes send it.
//!
//! The stream is driven by whoever reads its answers, without a task of its own: what became ready while a message was
//! being sent is the next message, and a caller who stops reading stops being read.
//!
//! # Invariants
//!
//! 1. At most [`STREAM_OPERATIONS_MAX`] operations (and one message more) of a stream are in flight; further messages
//!    wait in the connection.
//! 2. Every operation is answered once, in any order; one that was cancelled too. Those of a message that cannot be read
//!    are not: the stream ends behind the others' answers, and says why.

use std::{pin::Pin, sync::Arc};

use futures::{
    Stream, StreamExt, TryStreamExt,
    future::BoxFuture,
    stream::{self, FuturesUnordered},
};
use stead_api::proto::v1::Answer;
use stead_types::Error;
use tokio::sync::mpsc;
use tokio_util::sync::CancellationToken;
use tonic::{Status, Streaming};

use super::messages::messages;
use crate::{
    reply,
    router::{Answers, Call, Reply, Router, STREAM_OPERATIONS_MAX},
};

/// Most answers of a message.
const MESSAGE_ANSWERS_MAX: usize = 512;

/// What one inbound message asks for.
#[derive(Default)]
pub(crate) struct Asked {
    /// To be done.
    pub(crate) calls: Vec<Call>,
    /// Not to be done, and why.
    pub(crate) refused: Vec<(Reply, Error)>,
    /// Operations of this or an earlier message for which nobody waits any more.
    pub(crate) cancel_ids: Vec<u64>,
}

impl Asked {
    /// Answers what is not to be done, and returns how many there were.
    pub(super) fn refuse(self) -> usize {
        let count = self.refused.len();
        for (reply, error) in self.refused {
            reply.send(reply::error(&error));
        }
        count
    }
}

/// The inbound messages; each is read with where its answers go.
pub(crate) type Inbound = Pin<Box<dyn Stream<Item = Result<Read, Status>> + Send>>;
type Read = Box<dyn FnOnce(&Answers) -> Asked + Send>;

/// Returns the messages of a stream; `asked` reads one message.
pub(crate) fn inbound<M: Send + 'static>(messages: Streaming<M>, asked: fn(M, &Answers) -> Asked) -> Inbound {
    let read = move |message| -> Read { Box::new(move |answers| asked(message, answers)) };
    Box::pin(messages.map(move |message| message.map(read)))
}

struct Session {
    router: Arc<Router>,
    inbound: Option<Inbound>,
    running: FuturesUnordered<BoxFuture<'static, ()>>,
    answers: (Answers, mpsc::UnboundedReceiver<Answer>),
    in_flight: usize,
    /// Why nothing more can be read.
    broken: Option<Status>,
    stop: CancellationToken,
}

/// Returns the answers to the operations of a stream, as messages; it ends when the last of them is answered, and when the token
/// fires, with the operations that it has taken answered.
pub(crate) fn serve(
    router: Arc<Router>,
    inbound: Inbound,
    stop: CancellationToken,
) -> impl Stream<Item = Result<Vec<Answer>, Status>> {
    let session = Session {
        router,
        inbound: Some(inbound),
        running: FuturesUnordered::new(),
        answers: Answers::channel(),
        in_flight: 0,
        broken: None,
        stop,
    };
    let answers = stream::unfold(
        session,
        |mut session| async move { Some((session.next().await?, session)) },
    );
    let split = answers.map_ok(|answers| stream::iter(messages(answers).into_iter().map(Ok)));
    split.try_flatten()
}

impl Session {
    async fn next(&mut self) -> Option<Result<Vec<Answer>, Status>> {
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
                count = self.answers.1.recv_many(&mut answers, MESSAGE_ANSWERS_MAX), if self.in_flight > 0 => {
                    self.in_flight -= count;
                    if self.in_flight == 0 {
                        self.answers.0.forget_cancelled();
                    }
                    return Some(Ok(answers));
                }
                message = inbound => match message {
                    Some(Ok(read)) => self.take(read),
                    Some(Err(status)) => {
                        self.router.host().peer_alarms.note(&status);
                        self.inbound = None;
                        self.broken = Some(reply::too_long(status));
                    }
                    None => self.inbound = None,
                },
                () = self.stop.cancelled(), if taking => self.inbound = None,
            }
        }
        self.broken.take().map(Err)
    }

    fn take(&mut self, read: Read) {
        let mut asked = read(&self.answers.0);
        let (calls, cancel_ids) = (std::mem::take(&mut asked.calls), std::mem::take(&mut asked.cancel_ids));
        self.in_flight += asked.refuse();
        if !cancel_ids.is_empty() {
            self.answers.0.cancel(cancel_ids);
            self.router.cancelled();
        }
        if !calls.is_empty() {
            self.in_flight += calls.len();
            self.running.push(Box::pin(self.router.clone().dispatch(calls)));
        }
    }
}
