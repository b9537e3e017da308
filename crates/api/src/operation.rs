//! What all operations and their answers have in common.

use crate::proto::v1::{Answer, IdempotencyKey, Operation, ResponseHeader, answer::Response, operation::Request};

/// What an operation does, as it is counted and repeated.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sort {
    /// It changes data: repeated only under its idempotency key.
    Write,
    /// It reads keys that it names.
    Read,
    /// It reads a range.
    Scan,
}

/// Returns what a request does.
pub fn sort(request: &Request) -> Sort {
    match request {
        Request::Put(_)
        | Request::Delete(_)
        | Request::Increment(_)
        | Request::Append(_)
        | Request::Txn(_)
        | Request::DeleteRange(_) => Sort::Write,
        Request::Get(_) | Request::BatchGet(_) => Sort::Read,
        Request::Scan(_) => Sort::Scan,
    }
}

/// Returns the name of the tenant that a request is about.
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

/// Returns the idempotency key of a write, to be changed.
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

/// Returns where an answer comes from; an error does not say.
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

/// Returns how many bytes an answer takes on the wire.
pub fn answer_len(answer: &Answer) -> usize {
    prost::Message::encoded_len(answer)
}

/// Returns how many bytes an operation takes on the wire.
pub fn len(operation: &Operation) -> usize {
    prost::Message::encoded_len(operation)
}
