//! `KvService.ScanStream`: a scan whose pages are sent as fast as the caller reads.
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

use super::{
    call_metadata::bounded_timeout,
    unary::{missing_response, serve_operation},
};
use crate::{
    answers::{AnswerAccount, UnsentAnswers},
    auth::Access,
    router::Router,
};

/// Response stream of the service.
pub(crate) type ResponseStream = Pin<Box<dyn Stream<Item = Result<ScanStreamResponse, Status>> + Send>>;

/// Caller of a scan.
#[derive(Clone)]
pub(crate) struct ScanCaller {
    /// Account of its answers.
    pub(crate) account: Arc<AnswerAccount>,
    /// Caller; decided anew for each page.
    pub(crate) access: Access,
}

/// Pages of one scan.
pub(crate) struct ScanPages {
    router: Arc<Router>,
    caller: ScanCaller,
    unsent: UnsentAnswers,
    routing: Routing,
    /// The caller's deadline, if it set one.
    until: Option<Instant>,
    /// Request of the next page; `None` after the last one.
    next: Option<ScanRequest>,
    /// Number of keys that may still be sent.
    left: u64,
}

impl ScanPages {
    /// Returns the pages of a request.
    pub(crate) fn new(
        router: Arc<Router>,
        caller: ScanCaller,
        request: ScanStreamRequest,
        until: Option<Instant>,
        routing: Routing,
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
            caller,
            unsent: UnsentAnswers::default(),
            routing,
            until,
            next: Some(first),
            left: if limit == 0 { u64::MAX } else { limit },
        }
    }

    /// Returns where the pages keep their room among the answers that wait.
    pub(crate) fn unsent(&self) -> UnsentAnswers {
        self.unsent.clone()
    }

    /// Returns the messages; they end with an error when the token fires.
    pub(crate) fn into_stream(self, stop: CancellationToken) -> ResponseStream {
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
                self.prepare_next(request, &page);
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
        let page_by = Instant::now() + bounded_timeout(None);
        let operation = Operation {
            id: 0,
            deadline_ms: 0,
            routing: self.routing.into(),
            request: Some(operation::Request::Scan(request)),
        };
        let deadline = self.until.map_or(page_by, |until| until.min(page_by));
        let ScanCaller { account, access } = self.caller.clone();
        let served = serve_operation(&self.router, account, access, operation, deadline, false).await?;
        let (Response::Scan(page), permit) = served else {
            return Err(missing_response());
        };
        self.unsent.extend([permit]);
        Ok(page)
    }

    /// Prepares the request of the next page, which any replica can serve that has reached the first page's revision.
    fn prepare_next(&mut self, mut request: ScanRequest, page: &ScanResponse) {
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
