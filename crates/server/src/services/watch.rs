//! `KvService.Watch`: the watches of one stream. What comes is sent as it is read; nothing is kept for a slow reader.

use std::{
    collections::BTreeMap,
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
};

use futures::{FutureExt, Stream, StreamExt, stream::SelectAll};
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
    watches: Arc<Watches>,
    inbound: Option<Streaming<WatchRequest>>,
    running: SelectAll<Running>,
    /// Fires when a watch is cancelled.
    cancels: BTreeMap<u64, CancellationToken>,
    /// What is to be said before anything else.
    first: Vec<WatchResponse>,
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
        Self {
            watches,
            inbound: Some(inbound),
            running: SelectAll::new(),
            cancels: BTreeMap::new(),
            first: Vec::new(),
            stop: Box::pin(stop.cancelled_owned()),
            is_stopping: false,
        }
    }

    fn asked(&mut self, request: WatchRequest) {
        match request.request {
            Some(Request::Create(create)) => {
                let id = create.id;
                if let Err(error) = self.create(create) {
                    self.first.push(ended(id, Some(&error)));
                }
            }
            Some(Request::Cancel(cancel)) => {
                if let Some(token) = self.cancels.get(&cancel.id) {
                    token.cancel();
                }
            }
            None => {
                let error = Error::invalid("request", "request: one of create and cancel is needed");
                self.first.push(ended(0, Some(&error)));
            }
        }
    }

    fn create(&mut self, create: WatchCreate) -> Result<(), Error> {
        let id = create.id;
        if self.cancels.contains_key(&id) {
            let message = format!("create.id: a watch of this stream has the id {id} already; choose another one");
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
            messages: Some(self.watches.watch(create, None)),
            id,
            cancelled: Box::pin(token.cancelled_owned()),
        });
        Ok(())
    }

    fn poll_inbound(&mut self, context: &mut Context<'_>) {
        while let Some(inbound) = &mut self.inbound {
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
        if let Some(message) = self.first.pop() {
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
