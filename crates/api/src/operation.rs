//! Fields that all operations and their responses have in common.

use crate::proto::v1::{Answer, IdempotencyKey, Operation, ResponseHeader, answer::Response, operation::Request};

/// Kind of an operation, by which it is counted and retried.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OperationKind {
    /// Change of data: retried only with its idempotency key.
    Write,
    /// Read of named keys.
    Read,
    /// Read of a range.
    Scan,
}

/// Returns the kind of a request.
pub fn operation_kind(request: &Request) -> OperationKind {
    match request {
        Request::Put(_)
        | Request::Delete(_)
        | Request::Increment(_)
        | Request::Append(_)
        | Request::Txn(_)
        | Request::DeleteRange(_) => OperationKind::Write,
        Request::Get(_) | Request::BatchGet(_) => OperationKind::Read,
        Request::Scan(_) => OperationKind::Scan,
    }
}

/// Returns the name of a request's tenant.
pub fn tenant(request: &Request) -> &str {
    match request {
        Request::Get(request) => &request.tenant,
        Request::BatchGet(request) => &request.tenant,
        Request::Put(request) => &request.tenant,
        Request::Delete(request) => &request.tenant,
        Request::Increment(request) => &request.tenant,
        Request::Append(request) => &request.tenant,
        Request::Scan(request) => &request.tenant,
        Request::Txn(request) => &request.tenant,
        Request::DeleteRange(request) => &request.tenant,
    }
}

/// Returns the idempotency key of a write.
pub fn idempotency_key(request: &Request) -> Option<&IdempotencyKey> {
    match request {
        Request::Put(put) => put.idempotency_key.as_ref(),
        Request::Delete(delete) => delete.idempotency_key.as_ref(),
        Request::Increment(increment) => increment.idempotency_key.as_ref(),
        Request::Append(append) => append.idempotency_key.as_ref(),
        Request::Txn(txn) => txn.idempotency_key.as_ref(),
        Request::DeleteRange(range) => range.idempotency_key.as_ref(),
        Request::Get(_) | Request::BatchGet(_) | Request::Scan(_) => None,
    }
}

/// Returns the idempotency key of a write for modification.
pub fn idempotency_key_mut(request: &mut Request) -> Option<&mut IdempotencyKey> {
    match request {
        Request::Put(put) => put.idempotency_key.as_mut(),
        Request::Delete(delete) => delete.idempotency_key.as_mut(),
        Request::Increment(increment) => increment.idempotency_key.as_mut(),
        Request::Append(append) => append.idempotency_key.as_mut(),
        Request::Txn(txn) => txn.idempotency_key.as_mut(),
        Request::DeleteRange(range) => range.idempotency_key.as_mut(),
        Request::Get(_) | Request::BatchGet(_) | Request::Scan(_) => None,
    }
}

/// Returns the header of a response; an error has none.
pub fn header(response: &Response) -> Option<&ResponseHeader> {
    match response {
        Response::Get(get) => get.header.as_ref(),
        Response::BatchGet(get) => get.header.as_ref(),
        Response::Put(put) => put.header.as_ref(),
        Response::Delete(delete) => delete.header.as_ref(),
        Response::Increment(increment) => increment.header.as_ref(),
        Response::Append(append) => append.header.as_ref(),
        Response::Scan(scan) => scan.header.as_ref(),
        Response::Txn(txn) => txn.header.as_ref(),
        Response::DeleteRange(range) => range.header.as_ref(),
        Response::Error(_) => None,
    }
}

/// Returns the header of a response, to be changed; an error has none.
pub fn header_mut(response: &mut Response) -> Option<&mut ResponseHeader> {
    match response {
        Response::Get(get) => get.header.as_mut(),
        Response::BatchGet(get) => get.header.as_mut(),
        Response::Put(put) => put.header.as_mut(),
        Response::Delete(delete) => delete.header.as_mut(),
        Response::Increment(increment) => increment.header.as_mut(),
        Response::Append(append) => append.header.as_mut(),
        Response::Scan(scan) => scan.header.as_mut(),
        Response::Txn(txn) => txn.header.as_mut(),
        Response::DeleteRange(range) => range.header.as_mut(),
        Response::Error(_) => None,
    }
}

/// Returns the encoded length of an answer message.
pub fn answer_len(answer: &Answer) -> usize {
    prost::Message::encoded_len(answer)
}

/// Returns the encoded length of an operation.
pub fn len(operation: &Operation) -> usize {
    prost::Message::encoded_len(operation)
}
