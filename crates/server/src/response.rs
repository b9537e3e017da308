//! Response messages of operations: errors, headers and items.

use std::time::Duration;

use stead_api::{
    convert, operation,
    proto::v1::{
        Answer, DeleteRangeResponse, KeyValue, ResponseHeader, Role, TxnResult, Via, answer::Response,
        txn_result::Result as StepResult,
    },
    status,
};
use stead_state::shard::apply_result::{EvaluationPoint, Version};
use stead_types::{
    Error, ErrorKind, NodeId, RegionName, Revision, SessionToken, TenantNumber, limits::REQUEST_LEN_MAX,
};
use tonic::{Code, Status};

/// Most bytes of a message between nodes that is decoded: above what any has.
pub(crate) const MESSAGE_DECODE_MAX: usize = 16 << 20;
/// Most bytes of a client's message that is decoded: a batch of operations with the largest last, and above every limit of
/// one request, so that those are reported first.
pub(crate) const REQUEST_DECODE_MAX: usize = 2 * REQUEST_LEN_MAX;

/// Rewrites the status of a message that exceeds the decoder's limit into one with field and advice; any other status
/// stays.
pub(crate) fn message_too_long(refused: Status) -> Status {
    if refused.code() != Code::OutOfRange || !refused.details().is_empty() {
        return refused;
    }
    let why = refused.message().trim_start_matches("Error, ");
    let message = format!("request: {why}; send less in one message");
    status::to_status(&Error::invalid("request", message))
}

/// Returns the answer of a failed operation; its stream sets the id.
pub(crate) fn error_answer(error: &Error) -> Answer {
    answer(Response::Error(status::to_operation_error(error)))
}

/// Returns the answer with a response; its stream sets the id.
pub(crate) fn answer(response: Response) -> Answer {
    Answer {
        id: 0,
        response: Some(response),
    }
}

/// Adds the part of a range deletion that earlier homes made to the answer of the home that went on. If that failed, the
/// part is the answer, which is incomplete.
pub(crate) fn with_deletions_before(part: DeleteRangeResponse, rest: Answer) -> Answer {
    answer(Response::DeleteRange(match rest.response {
        Some(Response::DeleteRange(rest)) => add_deletions(part, rest),
        Some(_) | None => DeleteRangeResponse {
            incomplete: true,
            ..part
        },
    }))
}

/// Adds two parts of a range deletion. The later home calls its part a repeat, because the key is known there.
pub(crate) fn add_deletions(part: DeleteRangeResponse, rest: DeleteRangeResponse) -> DeleteRangeResponse {
    DeleteRangeResponse {
        deleted: part.deleted + rest.deleted,
        changes: part.changes + rest.changes,
        repeated_outcome: part.repeated_outcome,
        ..rest
    }
}

/// Node and role that answer an operation.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    /// Region of this node.
    pub(crate) region: &'a RegionName,
    /// This node.
    pub(crate) node: NodeId,
    /// Role of its group for the tenant.
    pub(crate) role: Role,
    /// Whether another node forwarded the operation.
    pub(crate) forwarded: bool,
}

/// Position of a tenant that a response header reports.
#[derive(Clone, Copy, Debug)]
pub(crate) struct HeaderPosition {
    /// The tenant.
    pub(crate) tenant: TenantNumber,
    /// Revision that was written or read.
    pub(crate) revision: Revision,
    /// State on which the answer depends: the revision that a session has seen with it, and the tenant's time.
    pub(crate) at: EvaluationPoint,
    /// Staleness, where it is known.
    pub(crate) staleness: Option<Duration>,
}

/// Returns the header of a response.
pub(crate) fn header(origin: Origin<'_>, position: HeaderPosition) -> ResponseHeader {
    let token = SessionToken {
        tenant: position.tenant,
        revision: position.at.revision,
    };
    ResponseHeader {
        revision: Some(convert::id::from_revision(position.revision)),
        tenant_number: position.tenant.get(),
        tenant_time_ms: position.at.time.0,
        session_token: token.to_bytes().to_vec().into(),
        region: origin.region.to_string(),
        node: origin.node.get(),
        role: origin.role.into(),
        staleness: position.staleness.map(convert::read::duration),
        via: if origin.forwarded { Via::Forwarded } else { Via::Direct }.into(),
        unconfirmed: false,
    }
}

/// Marks the answer of a home that had no lease. An error has no header, and is not marked.
pub(crate) fn mark_unconfirmed(answer: &mut Answer) {
    if let Some(header) = answer.response.as_mut().and_then(operation::header_mut) {
        header.unconfirmed = true;
    }
}

/// Converts one version of a key into a message.
pub(crate) fn key_value(key: bytes::Bytes, version: Version) -> KeyValue {
    KeyValue {
        key,
        create_revision: Some(convert::id::from_revision(version.value.create)),
        mod_revision: Some(convert::id::from_revision(version.revision)),
        version: version.value.version,
        expire_time: version.value.expires.map(convert::key::from_tenant_time),
        value: version.value.bytes,
    }
}

/// Returns the bytes of keys and values in an answer.
pub(crate) fn data_len(answer: &Answer) -> u64 {
    let of = |item: &KeyValue| (item.key.len() + item.value.len()) as u64;
    match &answer.response {
        Some(Response::Get(get)) => get.item.as_ref().map_or(0, of),
        Some(Response::BatchGet(get)) => get
            .results
            .iter()
            .filter_map(|result| result.item.as_ref())
            .map(of)
            .sum(),
        Some(Response::Scan(scan)) => scan.items.iter().map(of).sum(),
        Some(Response::Txn(txn)) => txn.results.iter().filter_map(item_of).map(of).sum(),
        Some(Response::Put(put)) => put.previous.as_ref().map_or(0, of),
        Some(Response::Delete(delete)) => delete.previous.as_ref().map_or(0, of),
        Some(Response::Increment(increment)) => increment.previous.as_ref().map_or(0, of),
        Some(Response::Append(append)) => append.previous.as_ref().map_or(0, of),
        Some(Response::DeleteRange(_) | Response::Error(_)) | None => 0,
    }
}

/// Memory that an item takes beside its key and value.
const ITEM_LEN: u64 = 160;

/// Returns the approximate bytes of memory of an answer.
pub(crate) fn memory_len(answer: &Answer) -> u64 {
    let items = match &answer.response {
        Some(Response::Scan(scan)) => scan.items.len(),
        Some(Response::BatchGet(get)) => get.results.len(),
        Some(Response::Txn(txn)) => txn.results.len(),
        Some(
            Response::Get(_)
            | Response::Put(_)
            | Response::Delete(_)
            | Response::Increment(_)
            | Response::Append(_)
            | Response::DeleteRange(_)
            | Response::Error(_),
        )
        | None => 1,
    };
    size_of::<Answer>() as u64 + items as u64 * ITEM_LEN + data_len(answer)
}

/// Returns the item that a result of a transaction carries.
fn item_of(result: &TxnResult) -> Option<&KeyValue> {
    match result.result.as_ref()? {
        StepResult::Get(get) => get.item.as_ref(),
        StepResult::Put(put) => put.previous.as_ref(),
        StepResult::Delete(delete) => delete.previous.as_ref(),
        StepResult::Increment(increment) => increment.previous.as_ref(),
        StepResult::Append(append) => append.previous.as_ref(),
    }
}

/// Returns the node that answered as the tenant's home, if the answer says so.
pub(crate) fn responding_home(answer: &Answer) -> Option<NodeId> {
    let header = operation::header(answer.response.as_ref()?)?;
    (header.role == i32::from(Role::Home)).then(|| NodeId::new(header.node))
}

/// Tells whether the answer is the error that the node knows no leader of the group.
pub(crate) fn is_no_leader(answer: &Answer) -> bool {
    match &answer.response {
        Some(Response::Error(error)) => matches!(status::from_operation_error(error.clone()).kind, ErrorKind::NoLeader),
        Some(_) | None => false,
    }
}

#[cfg(test)]
mod tests {
    use stead_api::proto::v1::{AppendResponse, DeleteResponse, IncrementResponse, PutResponse};

    use super::*;

    #[test]
    fn answer_without_lease_is_marked() {
        let put = PutResponse {
            header: Some(ResponseHeader::default()),
            ..PutResponse::default()
        };
        let mut marked = answer(Response::Put(put));
        mark_unconfirmed(&mut marked);
        let header = operation::header(marked.response.as_ref().unwrap());
        assert!(header.unwrap().unconfirmed);
        let mut error = error_answer(&Error::new(ErrorKind::NoLeader, "an election"));
        mark_unconfirmed(&mut error);
    }

    #[test]
    fn data_len_includes_previous_values() {
        let previous = Some(KeyValue {
            key: "abc".into(),
            value: "1234567".into(),
            ..KeyValue::default()
        });
        let put = PutResponse {
            previous: previous.clone(),
            ..PutResponse::default()
        };
        let delete = DeleteResponse {
            previous: previous.clone(),
            ..DeleteResponse::default()
        };
        let increment = IncrementResponse {
            previous: previous.clone(),
            ..IncrementResponse::default()
        };
        let append = AppendResponse {
            previous,
            ..AppendResponse::default()
        };
        let answers = [
            Response::Put(put),
            Response::Delete(delete),
            Response::Increment(increment),
            Response::Append(append),
        ];
        assert_eq!(answers.map(|response| data_len(&answer(response))), [10; 4]);
        assert_eq!(data_len(&answer(Response::Put(PutResponse::default()))), 0);
    }
}
