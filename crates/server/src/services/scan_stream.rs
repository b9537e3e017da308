//! `KvService.ScanStream`: a scan whose pages follow each other as fast as the caller reads.
//!
//! # Invariants
//!
//! 1. All pages show the first one's revision.
//! 2. At most two pages are in memory: the one being sent and the one being read.

use std::{pin::Pin, sync::Arc};

use futures::{
    Stream, StreamExt,
    stream::{self, BoxStream},
};
use stead_api::{
    proto::v1::{
        Consistency, Operation, ResponseHeader, Routing, ScanRequest, ScanResponse, ScanStreamRequest,
        ScanStreamResponse,
        answer::Response,
        consistency::{Level, Session},
        operation,
    },
    status,
};
use stead_types::{Error, ErrorKind, limits::PAGE_KEYS_STREAMED};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use super::kv::{operate, unanswered, within};
use crate::router::Router;

/// What the service answers with.
pub(crate) type Messages = Pin<Box<dyn Stream<Item = Result<ScanStreamResponse, Status>> + Send>>;

/// The pages of one scan.
pub(crate) struct Pages {
    router: Arc<Router>,
    routing: Routing,
    /// When the caller stops waiting, if it said so.
    until: Option<Instant>,
    /// Asks for the next page; `None` behind the last.
    next: Option<ScanRequest>,
    /// Keys that may still be sent.
    left: u64,
}

impl Pages {
    /// Returns the pages that a request asks for.
    pub(crate) fn new(
        router: Arc<Router>,
        request: ScanStreamRequest,
        (until, routing): (Option<Instant>, Routing),
    ) -> Self {
        let limit = request.limit;
        let first = ScanRequest {
            tenant: request.tenant,
            start: request.start,
            end: request.end,
            prefix: request.prefix,
            reverse: request.reverse,
            keys_only: request.keys_only,
            consistency: request.consistency,
            revision: request.revision,
            ..ScanRequest::default()
        };
        Self {
            router,
            routing,
            until,
            next: Some(first),
            left: if limit == 0 { u64::MAX } else { limit },
        }
    }

    /// Returns the messages; they end when the token fires, with an error that says so.
    pub(crate) fn into_stream(self, stop: CancellationToken) -> Messages {
        let pages: BoxStream<'_, _> = Box::pin(stream::unfold(self, |mut pages| async move {
            let page = pages.next().await?;
            Some((page, pages))
        }));
        let stopping = async move {
            stop.cancelled().await;
            let message = "the node is stopping: scan again, from the last key on";
            Err(status::to_status(&Error::new(ErrorKind::Unavailable, message)))
        };
        Box::pin(stream::unfold(
            (pages, Some(Box::pin(stopping))),
            |(mut pages, stopping)| async move {
                let mut stopping = stopping?;
                tokio::select! {
                    biased;
                    page = pages.next() => Some((page?, (pages, Some(stopping)))),
                    ended = &mut stopping => Some((ended, (pages, None))),
                }
            },
        ))
    }

    async fn next(&mut self) -> Option<Result<ScanStreamResponse, Status>> {
        let mut request = self.next.take().filter(|_| self.left > 0)?;
        request.page_size = self.left.min(PAGE_KEYS_STREAMED.into()) as i32;
        match self.page(request.clone()).await {
            Ok(page) => {
                self.go_on(request, &page);
                self.left = self.left.saturating_sub(page.items.len() as u64);
                Some(Ok(ScanStreamResponse {
                    header: page.header,
                    items: page.items,
                }))
            }
            Err(status) => Some(Err(status)),
        }
    }

    async fn page(&self, request: ScanRequest) -> Result<ScanResponse, Status> {
        let page_by = Instant::now() + within(None);
        let operation = Operation {
            id: 0,
            deadline_ms: 0,
            routing: self.routing.into(),
            request: Some(operation::Request::Scan(request)),
        };
        let deadline = self.until.map_or(page_by, |until| until.min(page_by));
        let Response::Scan(page) = operate(&self.router, operation, deadline, false).await? else {
            return Err(unanswered());
        };
        Ok(page)
    }

    /// Asks for the page behind this one: any replica that has come as far as the first one's can serve it.
    fn go_on(&mut self, mut request: ScanRequest, page: &ScanResponse) {
        if page.next_page_token.is_empty() {
            return;
        }
        let token = |header: &ResponseHeader| Session {
            tokens: vec![header.session_token.clone()],
        };
        request.page_token.clone_from(&page.next_page_token);
        request.consistency = Some(Consistency {
            level: page.header.as_ref().map(|header| Level::Session(token(header))),
        });
        self.next = Some(request);
    }
}
