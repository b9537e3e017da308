//! Answers to operations: of an error, and of each kind of response.

use std::time::Duration;

use stead_api::{
    convert, operation,
    proto::v1::{
        Answer, KeyValue, ResponseHeader, Role, TxnResult, Via, answer::Response, txn_result::Result as StepResult,
    },
    status,
};
use stead_state::shard::answer::{Evaluated, Version};
use stead_types::{Error, ErrorKind, NodeId, RegionName, Revision, SessionToken, TenantNumber};
use tonic::{Code, Status};

/// Most bytes of a message that is read: above every limit of our own, so that those speak first.
pub(crate) const MESSAGE_DECODE_MAX: usize = 16 << 20;

/// Says in our words what a reader of messages refuses by itself: one that is longer than it reads.
pub(crate) fn too_long(refused: Status) -> Status {
    if refused.code() != Code::OutOfRange || !refused.details().is_empty() {
        return refused;
    }
    let why = refused.message().trim_start_matches("Error, ");
    let message = format!("request: {why}; send less in one message");
    status::to_status(&Error::invalid("request", message))
}

/// Returns the answer of a failed operation; its stream sets the id.
pub(crate) fn error(error: &Error) -> Answer {
    response(Response::Error(status::to_operation_error(error)))
}

/// Returns the answer of an operation; its stream sets the id.
pub(crate) fn response(response: Response) -> Answer {
    Answer {
        id: 0,
        response: Some(response),
    }
}

/// Where an answer comes from.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Origin<'a> {
    /// Region of this node.
    pub(crate) region: &'a RegionName,
    /// This node.
    pub(crate) node: NodeId,
    /// What its group is to the tenant.
    pub(crate) role: Role,
    /// Whether another node handed the operation on.
    pub(crate) forwarded: bool,
}

/// What an answer says about a tenant.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Seen {
    /// Whose.
    pub(crate) tenant: TenantNumber,
    /// What was written or read.
    pub(crate) revision: Revision,
    /// What the answer depends on: what a session has seen with it, and the tenant's clock.
    pub(crate) at: Evaluated,
    /// How far behind the home it can be, where that is known.
    pub(crate) staleness: Option<Duration>,
}

/// Returns the header of an answer.
pub(crate) fn header(origin: Origin<'_>, seen: Seen) -> ResponseHeader {
    let token = SessionToken {
        tenant: seen.tenant,
        revision: seen.at.revision,
    };
    ResponseHeader {
        revision: Some(convert::id::from_revision(seen.revision)),
        tenant_number: seen.tenant.get(),
        tenant_time_ms: seen.at.time.0,
        session_token: token.to_bytes().to_vec().into(),
        region: origin.region.to_string(),
        node: origin.node.get(),
        role: origin.role.into(),
        staleness: seen.staleness.map(convert::read::duration),
        via: if origin.forwarded { Via::Forwarded } else { Via::Direct }.into(),
    }
}

/// Writes one version of a key.
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

/// Returns the key that a result of a transaction carries.
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
pub(crate) fn home_that_answered(answer: &Answer) -> Option<NodeId> {
    let header = operation::header(answer.response.as_ref()?)?;
    (header.role == i32::from(Role::Home)).then(|| NodeId::new(header.node))
}

/// Tells whether the answer is that the node knows no leader of the group.
pub(crate) fn has_no_leader(answer: &Answer) -> bool {
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
    fn previous_values_are_data_of_an_answer() {
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
        assert_eq!(answers.map(|answer| data_len(&response(answer))), [10; 4]);
        assert_eq!(data_len(&response(Response::Put(PutResponse::default()))), 0);
    }
}
