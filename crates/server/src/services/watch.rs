//! `KvService.Watch`: the watches of one stream.
//!
//! # Invariants
//!
//! 1. Messages are sent as they are read, and nothing is kept for a slow reader: the next request is read only when
//!    the refusal of the one before, if there was one, is on its way.
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

use crate::auth::Access;
use crate::watch::{Messages, Watches, ended};

/// Most watches of one stream.
const WATCHES_MAX: usize = 1_000;

/// The watches of one stream, merged into one stream of messages.
pub(crate) struct WatchSession {
    start_watch: Box<dyn Fn(WatchCreate) -> Messages + Send>,
    inbound: Option<BoxStream<'static, Result<WatchRequest, Status>>>,
    running: SelectAll<RunningWatch>,
    /// Tokens that cancel the watches, by id.
    cancels: BTreeMap<u64, CancellationToken>,
    /// A refusal to send before anything else.
    pending_refusal: Option<WatchResponse>,
    stop: Pin<Box<WaitForCancellationFutureOwned>>,
    is_stopping: bool,
}

/// One watch, until it is cancelled.
struct RunningWatch {
    messages: Option<Messages>,
    id: u64,
    cancelled: Pin<Box<WaitForCancellationFutureOwned>>,
}

impl WatchSession {
    /// Returns the messages of all watches of a stream; they end when the token fires.
    pub(crate) fn new(
        watches: Arc<Watches>,
        access: Access,
        inbound: Streaming<WatchRequest>,
        stop: CancellationToken,
    ) -> Self {
        let start_watch = move |create| watches.watch(create, access.clone(), None);
        Self::of(Box::new(start_watch), inbound.boxed(), stop)
    }

    fn of(
        start_watch: Box<dyn Fn(WatchCreate) -> Messages + Send>,
        inbound: BoxStream<'static, Result<WatchRequest, Status>>,
        stop: CancellationToken,
    ) -> Self {
        Self {
            start_watch,
            inbound: Some(inbound),
            running: SelectAll::new(),
            cancels: BTreeMap::new(),
            pending_refusal: None,
            stop: Box::pin(stop.cancelled_owned()),
            is_stopping: false,
        }
    }

    fn handle_request(&mut self, request: WatchRequest) {
        match request.request {
            Some(Request::Create(create)) => {
                let id = create.id;
                if let Err(error) = self.create(create) {
                    self.pending_refusal = Some(ended(id, Some(&error)));
                }
            }
            Some(Request::Cancel(cancel)) => {
                if let Some(token) = self.cancels.get(&cancel.id) {
                    token.cancel();
                }
            }
            None => {
                let error = Error::invalid("request", "request: one of create and cancel is needed");
                self.pending_refusal = Some(ended(0, Some(&error)));
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
        self.running.push(RunningWatch {
            messages: Some((self.start_watch)(create)),
            id,
            cancelled: Box::pin(token.cancelled_owned()),
        });
        Ok(())
    }

    fn poll_inbound(&mut self, context: &mut Context<'_>) {
        while self.pending_refusal.is_none()
            && let Some(inbound) = &mut self.inbound
        {
            match inbound.poll_next_unpin(context) {
                Poll::Ready(Some(Ok(request))) => self.handle_request(request),
                // A caller that has closed its side may still read.
                Poll::Ready(Some(Err(_)) | None) => self.inbound = None,
                Poll::Pending => return,
            }
        }
    }
}

impl Stream for WatchSession {
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
        if let Some(message) = self.pending_refusal.take() {
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

impl Stream for RunningWatch {
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

    fn session(requests: impl Stream<Item = Request> + Send + 'static) -> WatchSession {
        let requests = requests.map(|request| Ok(WatchRequest { request: Some(request) }));
        let quiet = |_| stream::pending().boxed();
        WatchSession::of(Box::new(quiet), requests.boxed(), CancellationToken::new())
    }

    fn create(id: u64) -> Request {
        Request::Create(WatchCreate {
            id,
            ..WatchCreate::default()
        })
    }

    async fn next_ended(session: &mut WatchSession) -> (u64, Option<ErrorKind>) {
        let message = session.next().await.unwrap().unwrap();
        let Some(Response::Ended(ended)) = message.response else {
            panic!("{message:?}");
        };
        let error = ended.error.map(|error| status::from_operation_error(error).kind);
        (message.id, error)
    }

    #[tokio::test]
    async fn session_reads_next_request_after_refusal_is_sent() {
        // Invariant 1.
        let read = Arc::new(std::sync::atomic::AtomicUsize::new(0));
        let count = read.clone();
        let requests = stream::iter(std::iter::repeat_n(1, 1_000)).map(move |id| {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            create(id)
        });
        let mut session = session(requests);
        for refused in 1..10 {
            assert_eq!(next_ended(&mut session).await.0, 1);
            let read = read.load(std::sync::atomic::Ordering::Relaxed);
            assert_eq!(read, refused + 1, "the first one runs, the others are refused");
        }
    }

    /// A request with an id in use is refused, in the order of requests, and the watch with that id goes on.
    #[tokio::test]
    async fn session_duplicate_id_is_refused_in_order() {
        // Invariant 2.
        let cancel = Request::Cancel(WatchCancel { id: 3 });
        let requests = [create(3), create(4), create(4), create(3), cancel];
        let mut session = session(stream::iter(requests).chain(stream::pending()));
        let taken = Some(ErrorKind::Invalid {
            field: "create.id".into(),
        });
        assert_eq!(next_ended(&mut session).await, (4, taken.clone()));
        assert_eq!(next_ended(&mut session).await, (3, taken));
        assert_eq!(next_ended(&mut session).await, (3, None), "the cancelled one");
        assert!(session.next().now_or_never().is_none(), "4 goes on");
    }
}
