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
    Serving,
    operations::{self, Asked},
    scan_stream, watch,
};
use crate::router::{Answers, Call, Reply, Router};

/// How long an operation may take when its caller names no deadline.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(5);
/// The longest deadline; a later one is cut to it.
const DEADLINE_MAX: Duration = Duration::from_secs(30);
/// The metadata with which a unary caller asks not to be forwarded.
const ROUTING: &str = "x-stead-routing";
/// The metadata in which a gRPC library counts its earlier attempts at a call; absent from the first one.
const PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";

/// The service.
#[derive(Clone)]
pub(crate) struct KvService {
    serving: Serving,
    stop: CancellationToken,
}

impl KvService {
    /// Returns the service; streams end when the token fires.
    pub(crate) fn new(serving: Serving, stop: CancellationToken) -> Self {
        Self { serving, stop }
    }

    async fn call<T>(&self, request: Request<T>, wrap: fn(T) -> operation::Request) -> Result<AnswerResponse, Status> {
        let deadline = Instant::now() + within(timeout(request.metadata()));
        let routing = routing(request.metadata())?;
        let is_repeated = is_repeated(request.metadata());
        let operation = Operation {
            id: 0,
            deadline_ms: 0,
            routing: routing.into(),
            request: Some(wrap(request.into_inner())),
        };
        operate(&self.serving.router, operation, deadline, is_repeated).await
    }
}

/// Has one operation served, which a library may have sent before.
pub(super) async fn operate(
    router: &Arc<Router>,
    operation: Operation,
    deadline: Instant,
    is_repeated: bool,
) -> Result<AnswerResponse, Status> {
    let (answers, mut answer) = Answers::channel();
    let call = Call {
        operation,
        deadline,
        is_repeated,
        hops: 0,
        forwarded: None,
        reply: Reply::new(0, answers),
    };
    router.clone().dispatch(vec![call]).await;
    match answer.recv().await.and_then(|answer| answer.response) {
        Some(AnswerResponse::Error(error)) => Err(status::to_status(&status::from_operation_error(error))),
        Some(response) => Ok(response),
        None => Err(unanswered()),
    }
}

pub(super) fn unanswered() -> Status {
    status::to_status(&Error::new(
        ErrorKind::Internal,
        "the operation was not answered: this is a bug, please report it",
    ))
}

/// Returns how long an operation may take whose caller asked for this long.
pub(crate) fn within(asked: Option<Duration>) -> Duration {
    asked.unwrap_or(DEADLINE_DEFAULT).min(DEADLINE_MAX)
}

/// Most digits of `grpc-timeout`, as gRPC has it.
const TIMEOUT_DIGITS_MAX: usize = 8;

/// Reads `grpc-timeout`: up to eight digits and a unit.
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

/// Tells whether a gRPC library says that it has sent a call before. What is no number counts as one: a write that happens
/// twice is worse than one that is refused.
fn is_repeated(metadata: &MetadataMap) -> bool {
    metadata
        .get(PREVIOUS_ATTEMPTS)
        .is_some_and(|count| count.as_bytes() != b"0")
}

fn asked(message: PipelineRequest, answers: &Answers, is_repeated: bool) -> Asked {
    let now = Instant::now();
    let call = |operation: Operation| {
        let asked = (operation.deadline_ms > 0).then(|| Duration::from_millis(operation.deadline_ms.into()));
        let reply = Reply::new(operation.id, answers.clone());
        Call {
            operation,
            deadline: now + within(asked),
            is_repeated,
            hops: 0,
            forwarded: None,
            reply,
        }
    };
    Asked {
        calls: message.operations.into_iter().map(call).collect(),
        refused: Vec::new(),
        cancel_ids: message.cancel_ids,
    }
}

#[tonic::async_trait]
impl kv_service_server::KvService for KvService {
    async fn get(&self, request: Request<GetRequest>) -> Result<Response<GetResponse>, Status> {
        let AnswerResponse::Get(response) = self.call(request, operation::Request::Get).await? else {
            return Err(unanswered());
        };
        Ok(Response::new(response))
    }

    async fn batch_get(&self, request: Request<BatchGetRequest>) -> Result<Response<BatchGetResponse>, Status> {
        let AnswerResponse::BatchGet(response) = self.call(request, operation::Request::BatchGet).await? else {
            return Err(unanswered());
        };
        Ok(Response::new(response))
    }

    async fn put(&self, request: Request<PutRequest>) -> Result<Response<PutResponse>, Status> {
        let AnswerResponse::Put(response) = self.call(request, operation::Request::Put).await? else {
            return Err(unanswered());
        };
        Ok(Response::new(response))
    }

    async fn delete(&self, request: Request<DeleteRequest>) -> Result<Response<DeleteResponse>, Status> {
        let AnswerResponse::Delete(response) = self.call(request, operation::Request::Delete).await? else {
            return Err(unanswered());
        };
        Ok(Response::new(response))
    }

    async fn increment(&self, request: Request<IncrementRequest>) -> Result<Response<IncrementResponse>, Status> {
        let AnswerResponse::Increment(response) = self.call(request, operation::Request::Increment).await? else {
            return Err(unanswered());
        };
        Ok(Response::new(response))
    }

    async fn append(&self, request: Request<AppendRequest>) -> Result<Response<AppendResponse>, Status> {
        let AnswerResponse::Append(response) = self.call(request, operation::Request::Append).await? else {
            return Err(unanswered());
        };
        Ok(Response::new(response))
    }

    async fn delete_range(
        &self,
        request: Request<DeleteRangeRequest>,
    ) -> Result<Response<DeleteRangeResponse>, Status> {
        let AnswerResponse::DeleteRange(response) = self.call(request, operation::Request::DeleteRange).await? else {
            return Err(unanswered());
        };
        Ok(Response::new(response))
    }

    async fn txn(&self, request: Request<TxnRequest>) -> Result<Response<TxnResponse>, Status> {
        let AnswerResponse::Txn(response) = self.call(request, operation::Request::Txn).await? else {
            return Err(unanswered());
        };
        Ok(Response::new(response))
    }

    async fn scan(&self, request: Request<ScanRequest>) -> Result<Response<ScanResponse>, Status> {
        let AnswerResponse::Scan(response) = self.call(request, operation::Request::Scan).await? else {
            return Err(unanswered());
        };
        Ok(Response::new(response))
    }

    type ScanStreamStream = scan_stream::Messages;

    async fn scan_stream(
        &self,
        request: Request<ScanStreamRequest>,
    ) -> Result<Response<Self::ScanStreamStream>, Status> {
        let until = timeout(request.metadata()).and_then(|asked| Instant::now().checked_add(asked));
        let routing = routing(request.metadata())?;
        let pages = scan_stream::Pages::new(self.serving.router.clone(), request.into_inner(), (until, routing));
        Ok(Response::new(pages.into_stream(self.stop.clone())))
    }

    type WatchStream = Pin<Box<dyn Stream<Item = Result<WatchResponse, Status>> + Send>>;

    async fn watch(&self, request: Request<Streaming<WatchRequest>>) -> Result<Response<Self::WatchStream>, Status> {
        let session = watch::Session::new(self.serving.watches.clone(), request.into_inner(), self.stop.clone());
        Ok(Response::new(Box::pin(session)))
    }

    type PipelineStream = Pin<Box<dyn Stream<Item = Result<PipelineResponse, Status>> + Send>>;

    async fn pipeline(
        &self,
        request: Request<Streaming<PipelineRequest>>,
    ) -> Result<Response<Self::PipelineStream>, Status> {
        // A library that repeats a stream sends again what it had sent on it.
        let read: fn(PipelineRequest, &Answers) -> Asked = if is_repeated(request.metadata()) {
            |message, answers| asked(message, answers, true)
        } else {
            |message, answers| asked(message, answers, false)
        };
        let inbound = operations::inbound(request.into_inner(), read);
        let answers = operations::serve(self.serving.router.clone(), inbound, self.stop.clone());
        Ok(Response::new(Box::pin(
            answers.map_ok(|answers| PipelineResponse { answers }),
        )))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn attempts_before_are_what_is_not_zero() {
        let read = |text: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert(PREVIOUS_ATTEMPTS, text.parse().unwrap());
            is_repeated(&metadata)
        };
        assert!(!is_repeated(&MetadataMap::new()));
        assert_eq!(["0", "1", "4", "", "x"].map(read), [false, true, true, true, true]);
    }

    #[test]
    fn a_timeout_has_at_most_eight_digits_and_a_unit() {
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
