//! `KvService`: every call, unary or in a pipeline, becomes an operation for the router.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, StreamExt, TryStreamExt};
use stead_api::{
    proto::v1::{
        AppendRequest, AppendResponse, BatchGetRequest, BatchGetResponse, DeleteRangeRequest, DeleteRangeResponse,
        DeleteRequest, DeleteResponse, GetRequest, GetResponse, IncrementRequest, IncrementResponse, Operation,
        PipelineRequest, PipelineResponse, PutRequest, PutResponse, ScanRequest, ScanResponse, ScanStreamRequest,
        TxnRequest, TxnResponse, WatchRequest, WatchResponse, answer::Response as AnswerResponse, kv_service_server,
        operation,
    },
    status,
};
use stead_state::lease::loss::Confirmation;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming};

use super::{
    call_metadata::{access, bounded_timeout, is_library_retry, routing, timeout},
    data_services::DataServices,
    operations::{self, InboundOperations},
    scan_stream,
    unary::{missing_response, serve_operation},
    watch,
};
use crate::{
    answers::{AnswerAccount, ConnectionAnswers, UnsentAnswers},
    auth::Access,
    router::{Call, Responder, ResponseSender},
};

/// The service.
#[derive(Clone)]
pub(crate) struct KvService {
    data_services: DataServices,
    stop: CancellationToken,
}

impl KvService {
    /// Returns the service; streams end when the token fires.
    pub(crate) fn new(data_services: DataServices, stop: CancellationToken) -> Self {
        Self { data_services, stop }
    }

    async fn call<T>(
        &self,
        request: Request<T>,
        wrap: fn(T) -> operation::Request,
    ) -> Result<(AnswerResponse, UnsentAnswers), Status> {
        let account = self.account(&request);
        let access = access(&request).map_err(|error| status::to_status(&error))?;
        let deadline = Instant::now() + bounded_timeout(timeout(request.metadata()));
        let routing = routing(request.metadata())?;
        let is_retry = is_library_retry(request.metadata());
        let operation = Operation {
            id: 0,
            deadline_ms: 0,
            routing: routing.into(),
            request: Some(wrap(request.into_inner())),
        };
        let router = &self.data_services.router;
        let (response, permit) = serve_operation(router, account, access, operation, deadline, is_retry).await?;
        let unsent = UnsentAnswers::default();
        unsent.extend([permit]);
        Ok((response, unsent))
    }

    /// Returns the account of the answers to a request.
    fn account<T>(&self, request: &Request<T>) -> Arc<AnswerAccount> {
        let connection = request.extensions().get::<ConnectionAnswers>().cloned();
        AnswerAccount::new(self.data_services.answers.clone(), connection)
    }
}

fn read_message(
    message: PipelineRequest,
    answers: &ResponseSender,
    access: &Access,
    is_retry: bool,
) -> InboundOperations {
    let now = Instant::now();
    let call = |operation: Operation| {
        let requested = (operation.deadline_ms > 0).then(|| Duration::from_millis(operation.deadline_ms.into()));
        let responder = Responder::new(operation.id, answers.clone());
        Call {
            access: access.clone(),
            confirmation: Confirmation::Leased,
            operation,
            deadline: now + bounded_timeout(requested),
            is_retry,
            hops: 0,
            forwarded: None,
            responder,
        }
    };
    InboundOperations {
        calls: message.operations.into_iter().map(call).collect(),
        rejected: Vec::new(),
        cancel_ids: message.cancel_ids,
    }
}

#[tonic::async_trait]
impl kv_service_server::KvService for KvService {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let (AnswerResponse::Get(response), unsent) = self.call(request, operation::Request::Get).await? else {
            return Err(missing_response());
        };
        Ok(unsent.attach(response))
    }

    async fn batch_get(&self, request: Request<BatchGetRequest>) -> Result<Response<BatchGetResponse>, Status> {
        let (AnswerResponse::BatchGet(response), unsent) = self.call(request, operation::Request::BatchGet).await?
        else {
            return Err(missing_response());
        };
        Ok(unsent.attach(response))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let (AnswerResponse::Put(response), unsent) = self.call(request, operation::Request::Put).await? else {
            return Err(missing_response());
        };
        Ok(unsent.attach(response))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let (AnswerResponse::Delete(response), unsent) = self.call(request, operation::Request::Delete).await? else {
            return Err(missing_response());
        };
        Ok(unsent.attach(response))
    }

    async fn increment(&self, request: Request<IncrementRequest>) -> Result<Response<IncrementResponse>, Status> {
        let (AnswerResponse::Increment(response), unsent) = self.call(request, operation::Request::Increment).await?
        else {
            return Err(missing_response());
        };
        Ok(unsent.attach(response))
    }

    async fn append(&self, request: Request<AppendRequest>) -> Result<Response<AppendResponse>, Status> {
        let (AnswerResponse::Append(response), unsent) = self.call(request, operation::Request::Append).await? else {
            return Err(missing_response());
        };
        Ok(unsent.attach(response))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let (AnswerResponse::DeleteRange(response), unsent) =
            self.call(request, operation::Request::DeleteRange).await?
        else {
            return Err(missing_response());
        };
        Ok(unsent.attach(response))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let (AnswerResponse::Txn(response), unsent) = self.call(request, operation::Request::Txn).await? else {
            return Err(missing_response());
        };
        Ok(unsent.attach(response))
    }

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<ScanResponse>, Status> {
        let (AnswerResponse::Scan(response), unsent) = self.call(request, operation::Request::Scan).await? else {
            return Err(missing_response());
        };
        Ok(unsent.attach(response))
    }

    type ScanStreamStream = scan_stream::ResponseStream;

    async fn scan_stream(
        &self,
        request: Request<ScanStreamRequest>,
    ) -> Result<Response<Self::ScanStreamStream>, Status> {
        let until = timeout(request.metadata()).and_then(|requested| Instant::now().checked_add(requested));
        let routing = routing(request.metadata())?;
        let caller = scan_stream::ScanCaller {
            account: self.account(&request),
            access: access(&request).map_err(|error| status::to_status(&error))?,
        };
        let router = self.data_services.router.clone();
        let pages = scan_stream::ScanPages::new(router, caller, request.into_inner(), until, routing);
        let unsent = pages.unsent();
        Ok(unsent.attach(pages.into_stream(self.stop.clone())))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let session = watch::WatchSession::new(
            self.data_services.watches.clone(),
            access(&request).map_err(|error| status::to_status(&error))?,
            request.into_inner(),
            self.stop.clone(),
        );
        Ok(Response::new(Box::pin(session)))
    }

    type PipelineStream = Pin<Box<dyn Stream<Item = Result<PipelineResponse, Status>> + Send>>;

    async fn pipeline(
        &self,
        request: Request<Streaming<PipelineRequest>>,
    ) -> Result<Response<Self::PipelineStream>, Status> {
        // A library that retries a stream sends its messages again.
        let is_retry = is_library_retry(request.metadata());
        let access = access(&request).map_err(|error| status::to_status(&error))?;
        let ended = access.wait_for_end();
        let read = move |message, answers: &ResponseSender| read_message(message, answers, &access, is_retry);
        let connection = request.extensions().get::<ConnectionAnswers>().cloned();
        let unsent = UnsentAnswers::default();
        // A client opens another stream with its next token: what it has sent here is answered.
        let inbound = operations::inbound(request.into_inner().take_until(ended), read);
        let (data_services, stop) = (self.data_services.clone(), self.stop.clone());
        let answers = operations::serve(data_services, inbound, connection, unsent.clone(), stop);
        let messages: Self::PipelineStream = Box::pin(answers.map_ok(|answers| PipelineResponse { answers }));
        Ok(unsent.attach(messages))
    }
}
