//! `KvService`: every call, unary or in a pipeline, becomes an operation for the router.

use std::{pin::Pin, sync::Arc, time::Duration};

use futures::{Stream, TryStreamExt};
use stead_api::{
    proto::v1::{
        AppendRequest, AppendResponse, BatchGetRequest, BatchGetResponse, DeleteRangeRequest, DeleteRangeResponse,
        DeleteRequest, DeleteResponse, GetRequest, GetResponse, IncrementRequest, IncrementResponse, Operation,
        PipelineRequest, PipelineResponse, PutRequest, PutResponse, Routing, ScanRequest, ScanResponse,
        ScanStreamRequest, TxnRequest, TxnResponse, WatchRequest, WatchResponse, answer::Response as AnswerResponse,
        kv_service_server, operation,
    },
    status,
};
use stead_types::{Error, ErrorKind};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;
use tonic::{Request, Response, Status, Streaming, metadata::MetadataMap};

use super::{
    DataServices,
    operations::{self, InboundOperations},
    scan_stream, watch,
};
use crate::router::{Call, Responder, ResponseSender, Router};

/// Deadline of an operation whose caller sets none.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(5);
/// Longest deadline; a later one is cut to it.
const DEADLINE_MAX: Duration = Duration::from_secs(30);
/// Metadata by which a unary caller asks not to be forwarded.
const ROUTING: &str = "x-stead-routing";
/// Metadata in which a gRPC library counts its earlier attempts of a call; absent from the first one.
const PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";

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

    async fn call<T>(&self, request: Request<T>, wrap: fn(T) -> operation::Request) -> Result<AnswerResponse, Status> {
        let deadline = Instant::now() + bounded_timeout(timeout(request.metadata()));
        let routing = routing(request.metadata())?;
        let is_retry = is_library_retry(request.metadata());
        let operation = Operation {
            id: 0,
            deadline_ms: 0,
            routing: routing.into(),
            request: Some(wrap(request.into_inner())),
        };
        serve_operation(&self.data_services.router, operation, deadline, is_retry).await
    }
}

/// Serves one operation and waits for its response; `is_retry` if a gRPC library may have sent it before.
pub(super) async fn serve_operation(
    router: &Arc<Router>,
    operation: Operation,
    deadline: Instant,
    is_retry: bool,
) -> Result<AnswerResponse, Status> {
    let (answers, mut answer) = ResponseSender::channel();
    let call = Call {
        operation,
        deadline,
        is_retry,
        hops: 0,
        forwarded: None,
        responder: Responder::new(0, answers),
    };
    router.clone().dispatch(vec![call]).await;
    match answer.recv().await.and_then(|answer| answer.response) {
        Some(AnswerResponse::Error(error)) => Err(status::to_status(&status::from_operation_error(error))),
        Some(response) => Ok(response),
        None => Err(missing_response()),
    }
}

pub(super) fn missing_response() -> Status {
    status::to_status(&Error::new(
        ErrorKind::Internal,
        "the operation was not answered: this is a bug, please report it",
    ))
}

/// Returns the requested timeout, bounded, or the default.
pub(crate) fn bounded_timeout(requested: Option<Duration>) -> Duration {
    requested.unwrap_or(DEADLINE_DEFAULT).min(DEADLINE_MAX)
}

/// Most digits of `grpc-timeout`, as gRPC defines it.
const TIMEOUT_DIGITS_MAX: usize = 8;

/// Parses `grpc-timeout`: up to eight digits and a unit.
pub(super) fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > TIMEOUT_DIGITS_MAX || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number.saturating_mul(3600))),
        "M" => Some(Duration::from_secs(number.saturating_mul(60))),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

pub(super) fn routing(metadata: &MetadataMap) -> Result<Routing, Status> {
    match metadata.get(ROUTING).map(|value| value.as_bytes()) {
        None | Some(b"forward") => Ok(Routing::Forward),
        Some(b"direct") => Ok(Routing::Direct),
        Some(_) => {
            let message = format!("metadata {ROUTING}: `direct` or `forward`");
            Err(status::to_status(&Error::invalid(ROUTING, message)))
        }
    }
}

/// Tells whether a gRPC library has sent a call before. A count that is no number means yes: a write that happens
/// twice is worse than one that is refused.
fn is_library_retry(metadata: &MetadataMap) -> bool {
    metadata
        .get(PREVIOUS_ATTEMPTS)
        .is_some_and(|count| count.as_bytes() != b"0")
}

fn read_message(message: PipelineRequest, answers: &ResponseSender, is_retry: bool) -> InboundOperations {
    let now = Instant::now();
    let call = |operation: Operation| {
        let requested = (operation.deadline_ms > 0).then(|| Duration::from_millis(operation.deadline_ms.into()));
        let responder = Responder::new(operation.id, answers.clone());
        Call {
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
        let AnswerResponse::Get(response) = self.call(request, operation::Request::Get).await? else {
            return Err(missing_response());
        };
        Ok(Response::new(response))
    }

    async fn batch_get(&self, request: Request<BatchGetRequest>) -> Result<Response<BatchGetResponse>, Status> {
        let AnswerResponse::BatchGet(response) = self.call(request, operation::Request::BatchGet).await? else {
            return Err(missing_response());
        };
        Ok(Response::new(response))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let AnswerResponse::Put(response) = self.call(request, operation::Request::Put).await? else {
            return Err(missing_response());
        };
        Ok(Response::new(response))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let AnswerResponse::Delete(response) = self.call(request, operation::Request::Delete).await? else {
            return Err(missing_response());
        };
        Ok(Response::new(response))
    }

    async fn increment(&self, request: Request<IncrementRequest>) -> Result<Response<IncrementResponse>, Status> {
        let AnswerResponse::Increment(response) = self.call(request, operation::Request::Increment).await? else {
            return Err(missing_response());
        };
        Ok(Response::new(response))
    }

    async fn append(&self, request: Request<AppendRequest>) -> Result<Response<AppendResponse>, Status> {
        let AnswerResponse::Append(response) = self.call(request, operation::Request::Append).await? else {
            return Err(missing_response());
        };
        Ok(Response::new(response))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let AnswerResponse::DeleteRange(response) = self.call(request, operation::Request::DeleteRange).await? else {
            return Err(missing_response());
        };
        Ok(Response::new(response))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let AnswerResponse::Txn(response) = self.call(request, operation::Request::Txn).await? else {
            return Err(missing_response());
        };
        Ok(Response::new(response))
    }

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<ScanResponse>, Status> {
        let AnswerResponse::Scan(response) = self.call(request, operation::Request::Scan).await? else {
            return Err(missing_response());
        };
        Ok(Response::new(response))
    }

    type ScanStreamStream = scan_stream::ResponseStream;

    async fn scan_stream(
        &self,
        request: Request<ScanStreamRequest>,
    ) -> Result<Response<Self::ScanStreamStream>, Status> {
        let until = timeout(request.metadata()).and_then(|requested| Instant::now().checked_add(requested));
        let routing = routing(request.metadata())?;
        let pages =
            scan_stream::ScanPages::new(self.data_services.router.clone(), request.into_inner(), until, routing);
        Ok(Response::new(pages.into_stream(self.stop.clone())))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let session = watch::WatchSession::new(
            self.data_services.watches.clone(),
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
        let read: fn(PipelineRequest, &ResponseSender) -> InboundOperations = if is_library_retry(request.metadata()) {
            |message, answers| read_message(message, answers, true)
        } else {
            |message, answers| read_message(message, answers, false)
        };
        let inbound = operations::inbound(request.into_inner(), read);
        let answers = operations::serve(self.data_services.router.clone(), inbound, self.stop.clone());
        Ok(Response::new(Box::pin(
            answers.map_ok(|answers| PipelineResponse { answers }),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn library_retry_is_any_nonzero_attempt_count() {
        let read = |text: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert(PREVIOUS_ATTEMPTS, text.parse().unwrap());
            is_library_retry(&metadata)
        };
        assert!(!is_library_retry(&MetadataMap::new()));
        assert_eq!(["0", "1", "4", "", "x"].map(read), [false, true, true, true, true]);
    }

    #[test]
    fn timeout_has_at_most_eight_digits_and_unit() {
        let read = |text: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            timeout(&metadata)
        };
        assert_eq!(read("20m"), Some(Duration::from_millis(20)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for wrong in ["100000000H", "18446744073709551615S", "+5S", "5", "S", "", "5x"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
