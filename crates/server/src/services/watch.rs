//! `KvService.Watch`: the watches of one stream.
//!
//! # Invariants
//!
//! 1. What comes is sent as it is read, and nothing is kept for a slow reader: the next request is read only when the
//!    refusal of the one before, if there was one, is on its way.
//! 2. Refusals come in the order of their requests.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{
    FutureExt, Stream, StreamExt,
    stream::{BoxStream, SelectAll},
};
use stead_api::proto::v1::{
    WatchCreate, WatchRequest, WatchResponse, watch_request::Request, watch_response::Response,
};
use stead_types::{Error, ErrorKind};
use tokio_util::sync::{CancellationToken, WaitForCancellationFutureOwned};
use tonic::{Status, Streaming};

use crate::watch::{Messages, Watches, ended};

/// Most watches of one stream.
const WATCHES_MAX: usize = 1_000;

/// The watches of one stream, as their messages come.
pub(crate) struct Session {
    begin: Box<dyn Fn(WatchCreate) -> Messages + Send>,
    inbound: Option<BoxStream<'static, Result<WatchRequest, Status>>>,
    running: SelectAll<Running>,
    /// Fires when a watch is cancelled.
    cancels: BTreeMap<u64, CancellationToken>,
    /// What is to be said before anything else.
    refusal: Option<WatchResponse>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    is_stopping: bool,
}

/// One watch, until it is cancelled.
struct Running {
    messages: Option<Messages>,
    id: u64,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl Session {
    /// Returns the messages of all watches that the stream asks for; they end when the token fires.
    pub(crate) fn new(watches: Arc<Watches>, inbound: Streaming<WatchRequest>, stop: CancellationToken) -> Self {
        let begin = move |create| watches.watch(create, None);
        Self::of(Box::new(begin), inbound.boxed(), stop)
    }

    fn of(
        begin: Box<dyn Fn(WatchCreate) -> Messages + Send>,
        inbound: BoxStream<'static, Result<WatchRequest, Status>>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            begin,
            inbound: Some(inbound),
            running: SelectAll::new(),
            cancels: BTreeMap::new(),
            refusal: None,
            stop: Box::pin(stop.cancelled_owned()),
            is_stopping: false,
        }
    }

    fn asked(&mut self, request: WatchRequest) {
        match request.request {
            Some(Request::Create(create)) => {
                let id = create.id;
                if let Err(error) = self.create(create) {
                    self.refusal = Some(ended(id, Some(&error)));
                }
            }
            Some(Request::Cancel(cancel)) => {
                if let Some(token) = self.cancels.get(&cancel.id) {
                    token.cancel();
                }
            }
            None => {
                let error = Error::invalid("request", "request: one of create and cancel is needed");
                self.refusal = Some(ended(0, Some(&error)));
            }
        }
    }

    fn create(&mut self, create: WatchCreate) -> Result<(), Error> {
        let id = create.id;
        if self.cancels.contains_key(&id) {
            let message = format!(
                "create.id: a watch of this stream has the id {id} already, and goes on; choose another one for this one"
            );
            return Err(Error::invalid("create.id", message));
        }
        if self.cancels.len() >= WATCHES_MAX {
            let limit = "stream.watches".to_owned();
            let message =
                format!("at most {WATCHES_MAX} watches a stream; open another stream, or watch more ranges in one");
            return Err(Error::new(ErrorKind::QuotaExceeded { limit }, message));
        }
        let token = CancellationToken::new();
        self.cancels.insert(id, token.clone());
        self.running.push(Running {
            messages: Some((self.begin)(create)),
            id,
            cancelled: Box::pin(token.cancelled_owned()),
        });
        Ok(())
    }

    fn poll_inbound(&mut self, context: &mut Context<'_>) {
        while self.refusal.is_none()
            && let Some(inbound) = &mut self.inbound
        {
            match inbound.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(request))) => self.asked(request),
                // A caller that says no more may still listen.
                Poll::Ready(Some(Err(_)) | None) => self.inbound = None,
                Poll::Pending => return,
            }
        }
    }
}

impl Stream for Session {
    type Item = Result<WatchResponse, Status>;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.is_stopping {
            return Poll::Ready(None);
        }
        if self.stop.poll_unpin(context).is_ready() {
            self.is_stopping = true;
            let error = Error::new(
                ErrorKind::Unavailable,
                "the node is stopping: resume the watches elsewhere",
            );
            return Poll::Ready(Some(Err(stead_api::status::to_status(&error))));
        }
        self.poll_inbound(context);
        if let Some(message) = self.refusal.take() {
            return Poll::Ready(Some(Ok(message)));
        }
        match self.running.poll_next_unpin(context) {
            Poll::Ready(Some(message)) => {
                if matches!(message.response, Some(Response::Ended(_))) {
                    self.cancels.remove(&message.id);
                }
                Poll::Ready(Some(Ok(message)))
            }
            Poll::Ready(None) if self.inbound.is_none() => Poll::Ready(None),
            Poll::Ready(None) | Poll::Pending => Poll::Pending,
        }
    }
}

impl Stream for Running {
    type Item = WatchResponse;

    fn poll_next(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        if self.messages.is_some() && self.cancelled.poll_unpin(context).is_ready() {
            self.messages = None;
            return Poll::Ready(Some(ended(self.id, None)));
        }
        match &mut self.messages {
            Some(messages) => messages.poll_next_unpin(context),
            None => Poll::Ready(None),
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::stream;
    use stead_api::{proto::v1::WatchCancel, status};

    use super::*;

    fn session(requests: impl Stream<Item = Request> + Send + 'static) -> Session {
        let requests = requests.map(|request| Ok(WatchRequest { request: Some(request) }));
        let quiet = |_| stream::pending().boxed();
        Session::of(Box::new(quiet), requests.boxed(), CancellationToken::new())
    }

    fn create(id: u64) -> Request {
        Request::Create(WatchCreate {
            id,
            ..WatchCreate::default()
        })
    }

    async fn said(session: &mut Session) -> (u64, Option<ErrorKind>) {
        let message = session.next().await.unwrap().unwrap();
        let Some(Response::Ended(ended)) = message.response else {
            panic!("{message:?}");
        };
        let error = ended.error.map(|error| status::from_operation_error(error).kind);
        (message.id, error)
    }

    #[tokio::test]
    async fn a_request_is_read_when_the_refusal_before_it_was_taken() {
        // Invariant 1.
        let read = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = read.clone();
        let requests = stream::iter(std::iter::repeat_n(1, 1_000)).map(move |id| {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            create(id)
        });
        let mut session = session(requests);
        for refused in 1..10 {
            assert_eq!(said(&mut session).await.0, 1);
            let read = read.load(std::sync::atomic::Ordering::Relaxed);
            assert_eq!(read, refused + 1, "the first one runs, the others are refused");
        }
    }

    #[tokio::test]
    async fn refusals_come_in_order_and_a_watch_whose_id_is_asked_for_again_goes_on() {
        // Invariant 2.
        let cancel = Request::Cancel(WatchCancel { id: 3 });
        let requests = [create(3), create(4), create(4), create(3), cancel];
        let mut session = session(stream::iter(requests).chain(stream::pending()));
        let taken = Some(ErrorKind::Invalid {
            field: "create.id".into(),
        });
        assert_eq!(said(&mut session).await, (4, taken.clone()));
        assert_eq!(said(&mut session).await, (3, taken));
        assert_eq!(said(&mut session).await, (3, None), "the cancelled one");
        assert!(session.next().now_or_never().is_none(), "4 goes on");
    }
}
