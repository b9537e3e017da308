//! Writes that a gRPC library retries by itself: with an idempotency key they are applied once, without one the retry
//! is refused.

use futures::stream;
use stead_api::{
    proto::v1::{
        AppendRequest, DeleteRangeRequest, DeleteRequest, GetRequest, IdempotencyKey, IncrementRequest, Operation,
        PipelineRequest, PutRequest, TxnOperation, TxnRequest, answer::Response, kv_service_client::KvServiceClient,
        operation, txn_operation,
    },
    status,
};
use stead_client::ErrorKind;
use stead_testing::Fixture;
use stead_tests::process::{binary, exclusive_lock};
use tonic::{Request, Status, transport::Channel};

const TENANT: &str = "acme";

/// Marks a request as a library's retry.
fn again<T>(message: T) -> Request<T> {
    let mut request = Request::new(message);
    let attempts = "1".parse().unwrap();
    request.metadata_mut().insert("grpc-previous-rpc-attempts", attempts);
    request
}

fn assert_refused<T: std::fmt::Debug>(answer: Result<T, Status>) {
    let error = status::from_status(&answer.unwrap_err());
    assert_eq!(error.kind, ErrorKind::IdempotencyKeyMissing, "{error}");
    assert!(error.message.contains("send an idempotency_key"), "{error}");
    assert!(!error.has_no_effect(), "an earlier attempt may have happened");
}

fn increment(key: Option<IdempotencyKey>) -> IncrementRequest {
    IncrementRequest {
        tenant: TENANT.into(),
        key: "n".into(),
        delta: 1,
        idempotency_key: key,
        ..IncrementRequest::default()
    }
}

fn get() -> GetRequest {
    GetRequest {
        tenant: TENANT.into(),
        key: "n".into(),
        ..GetRequest::default()
    }
}

fn txn(operation: txn_operation::Operation) -> TxnRequest {
    let operation = TxnOperation {
        operation: Some(operation),
    };
    TxnRequest {
        tenant: TENANT.into(),
        otherwise: vec![operation.clone()],
        then: vec![operation],
        ..TxnRequest::default()
    }
}

fn txn_that_reads() -> TxnRequest {
    txn(txn_operation::Operation::Get(txn_operation::Get { key: "n".into() }))
}

async fn every_write_without_a_key_is_refused(kv: &mut KvServiceClient<Channel>) {
    let tenant = || TENANT.to_owned();
    assert_refused(kv.increment(again(increment(None))).await);
    let put = PutRequest {
        tenant: tenant(),
        key: "n".into(),
        ..PutRequest::default()
    };
    assert_refused(kv.put(again(put)).await);
    let delete = DeleteRequest {
        tenant: tenant(),
        key: "n".into(),
        ..DeleteRequest::default()
    };
    assert_refused(kv.delete(again(delete)).await);
    let append = AppendRequest {
        tenant: tenant(),
        key: "n".into(),
        value: "1".into(),
        ..AppendRequest::default()
    };
    assert_refused(kv.append(again(append)).await);
    let range = DeleteRangeRequest {
        tenant: tenant(),
        all: true,
        ..DeleteRangeRequest::default()
    };
    assert_refused(kv.delete_range(again(range)).await);
    let delete = txn_operation::Operation::Delete(txn_operation::Delete {
        key: "n".into(),
        ..txn_operation::Delete::default()
    });
    assert_refused(kv.txn(again(txn(delete))).await);
    pipeline(kv).await;
}

/// A retried stream carries its writes again.
async fn pipeline(kv: &mut KvServiceClient<Channel>) {
    let requests = [
        operation::Request::Increment(increment(None)),
        operation::Request::Get(get()),
    ];
    let operations = requests.into_iter().zip(1..).map(|(request, id)| Operation {
        id,
        request: Some(request),
        ..Operation::default()
    });
    let message = PipelineRequest {
        operations: operations.collect(),
        ..PipelineRequest::default()
    };
    let answers = kv.pipeline(again(stream::iter([message]))).await.unwrap();
    let mut answers = answers.into_inner();
    let mut answered = Vec::new();
    while let Some(message) = answers.message().await.unwrap() {
        answered.extend(message.answers);
    }
    answered.sort_by_key(|answer| answer.id);
    let [write, read] = answered.try_into().unwrap();
    let Some(Response::Error(error)) = write.response else {
        panic!("{write:?}")
    };
    assert_eq!(
        status::from_operation_error(error).kind,
        ErrorKind::IdempotencyKeyMissing
    );
    assert!(matches!(read.response, Some(Response::Get(_))), "{read:?}");
}

#[tokio::test]
async fn repeated_attempt_without_key_is_refused_at_every_node() {
    let _lock = exclusive_lock();
    let builder = Fixture::builder().binary(binary());
    let cluster = builder.region("us-east", 1).region("eu-west", 1).start().await.unwrap();
    cluster.create_tenant(TENANT, "us-east").await.unwrap();
    let mut sequence = 0;
    for node in cluster.nodes() {
        let channel = Channel::from_shared(format!("http://{}", node.client)).unwrap();
        let mut kv = KvServiceClient::new(channel.connect().await.unwrap());
        kv.increment(increment(None)).await.unwrap();
        every_write_without_a_key_is_refused(&mut kv).await;
        sequence += 1;
        let key = IdempotencyKey {
            client_id: vec![7; 16].into(),
            sequence,
            first_sent_ms: 0,
        };
        for repeated in [false, true] {
            let counted = kv.increment(again(increment(Some(key.clone())))).await.unwrap();
            let counted = counted.into_inner();
            assert_eq!(
                (counted.value, counted.repeated_outcome),
                (Some(2 * sequence as i64), repeated)
            );
        }
        kv.txn(again(txn_that_reads())).await.unwrap();
        let held = kv.get(again(get())).await.unwrap().into_inner();
        let expected = (2 * sequence).to_string();
        assert_eq!(held.item.unwrap().value, expected.as_bytes(), "each counts once");
    }
}
