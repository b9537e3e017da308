//! Names and filters of operations, and what they carry as `google.protobuf.Any`.

use prost::Message;
use prost_types::Any;
use stead_types::{Error, TenantName};

use super::id;
use crate::proto::admin::v1::{
    BulkMoveResponse, MoveTenantResponse, OperationMetadata, PromoteResponse, TopologyResponse,
};

/// Collection of all operations, and what their names begin with.
pub const COLLECTION: &str = "operations";
/// Type of the metadata of an operation.
const METADATA_TYPE: &str = "type.googleapis.com/stead.admin.v1.OperationMetadata";
/// Type of the response of a move. Stock clients compare it with the one they expect.
const MOVE_RESPONSE_TYPE: &str = "type.googleapis.com/stead.admin.v1.MoveTenantResponse";
/// Type of the response of a bulk move.
const BULK_MOVE_RESPONSE_TYPE: &str = "type.googleapis.com/stead.admin.v1.BulkMoveResponse";
/// Type of the response of a promotion.
const PROMOTE_RESPONSE_TYPE: &str = "type.googleapis.com/stead.admin.v1.PromoteResponse";
/// Type of the response of a change of nodes or regions.
const TOPOLOGY_RESPONSE_TYPE: &str = "type.googleapis.com/stead.admin.v1.TopologyResponse";

/// Filter of a list of operations.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct OperationFilter {
    /// Only operations of this tenant.
    pub tenant: Option<TenantName>,
    /// Only those that are over, or only those that are not.
    pub done: Option<bool>,
}

/// Formats the name of an operation.
pub fn name(number: u64) -> String {
    format!("{COLLECTION}/{number}")
}

/// Reads the name of an operation.
pub fn number(field: &str, name: &str) -> Result<u64, Error> {
    let digits = name
        .strip_prefix(COLLECTION)
        .and_then(|rest| rest.strip_prefix('/'))
        .filter(|digits| digits.bytes().all(|digit| digit.is_ascii_digit()));
    let invalid = || {
        let message =
            format!("{field}: an operation is named {COLLECTION}/NUMBER, such as {COLLECTION}/7; got {name:?}");
        Error::invalid(field, message)
    };
    digits.and_then(|digits| digits.parse().ok()).ok_or_else(invalid)
}

/// Reads the filter of a list: terms `done=true`, `done=false` and `tenant=NAME`, joined with `AND`.
pub fn filter(text: &str) -> Result<OperationFilter, Error> {
    let mut filter = OperationFilter::default();
    if text.trim().is_empty() {
        return Ok(filter);
    }
    for term in text.split(" AND ") {
        let (key, value) = term.split_once('=').ok_or_else(|| unknown_term(term))?;
        match (key.trim(), value.trim()) {
            ("done", "true") if filter.done.is_none() => filter.done = Some(true),
            ("done", "false") if filter.done.is_none() => filter.done = Some(false),
            ("tenant", name) if filter.tenant.is_none() => filter.tenant = Some(id::tenant("filter", name)?),
            _ => return Err(unknown_term(term)),
        }
    }
    Ok(filter)
}

fn unknown_term(term: &str) -> Error {
    let message = format!(
        "filter: {:?} is not understood: write done=true, done=false or tenant=NAME, each once, joined with AND",
        term.trim()
    );
    Error::invalid("filter", message)
}

/// Packs the metadata of an operation.
pub fn pack_metadata(metadata: &OperationMetadata) -> Any {
    Any {
        type_url: METADATA_TYPE.to_owned(),
        value: metadata.encode_to_vec(),
    }
}

/// Unpacks what [`pack_metadata`] packed; `None` for another type.
pub fn unpack_metadata(any: &Any) -> Option<OperationMetadata> {
    unpack(any, METADATA_TYPE)
}

/// Packs the response of a move.
pub fn pack_move_response(response: &MoveTenantResponse) -> Any {
    Any {
        type_url: MOVE_RESPONSE_TYPE.to_owned(),
        value: response.encode_to_vec(),
    }
}

/// Unpacks what [`pack_move_response`] packed; `None` for another type.
pub fn unpack_move_response(any: &Any) -> Option<MoveTenantResponse> {
    unpack(any, MOVE_RESPONSE_TYPE)
}

/// Packs the response of a bulk move.
pub fn pack_bulk_move_response(response: &BulkMoveResponse) -> Any {
    Any {
        type_url: BULK_MOVE_RESPONSE_TYPE.to_owned(),
        value: response.encode_to_vec(),
    }
}

/// Unpacks what [`pack_bulk_move_response`] packed; `None` for another type.
pub fn unpack_bulk_move_response(any: &Any) -> Option<BulkMoveResponse> {
    unpack(any, BULK_MOVE_RESPONSE_TYPE)
}

/// Packs the response of a change of nodes or regions.
pub fn pack_topology_response(response: &TopologyResponse) -> Any {
    Any {
        type_url: TOPOLOGY_RESPONSE_TYPE.to_owned(),
        value: response.encode_to_vec(),
    }
}

/// Unpacks what [`pack_topology_response`] packed; `None` for another type.
pub fn unpack_topology_response(any: &Any) -> Option<TopologyResponse> {
    unpack(any, TOPOLOGY_RESPONSE_TYPE)
}

/// Packs the response of a promotion.
pub fn pack_promote_response(response: &PromoteResponse) -> Any {
    Any {
        type_url: PROMOTE_RESPONSE_TYPE.to_owned(),
        value: response.encode_to_vec(),
    }
}

/// Unpacks what [`pack_promote_response`] packed; `None` for another type.
pub fn unpack_promote_response(any: &Any) -> Option<PromoteResponse> {
    unpack(any, PROMOTE_RESPONSE_TYPE)
}

fn unpack<M: Message + Default>(any: &Any, type_url: &str) -> Option<M> {
    if any.type_url != type_url {
        return None;
    }
    M::decode(any.value.as_slice()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn operation_name_is_collection_and_number() {
        assert_eq!(number("name", &name(7)), Ok(7));
        for wrong in [
            "",
            "7",
            "operations",
            "operations/",
            "operations/x",
            "operations/+7",
            "operation/7",
        ] {
            let refused = number("name", wrong).unwrap_err();
            assert!(refused.message.starts_with("name: "), "{}", refused.message);
            assert!(refused.message.contains("such as operations/7"), "{}", refused.message);
        }
    }

    #[test]
    fn operation_filter_has_each_term_once() {
        let read = |text: &str| filter(text).map(|filter| (filter.tenant.map(|name| name.to_string()), filter.done));
        assert_eq!(read(""), Ok((None, None)));
        assert_eq!(read("done=false"), Ok((None, Some(false))));
        assert_eq!(
            read("tenant = acme AND done=true"),
            Ok((Some("acme".to_owned()), Some(true)))
        );
        for wrong in [
            "done",
            "done=maybe",
            "done=true AND done=true",
            "tenant=",
            "kind=move",
            "AND",
        ] {
            assert!(filter(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn packed_messages_have_their_exact_types() {
        let response = MoveTenantResponse {
            tenant: "acme".into(),
            epoch: 2,
            ..MoveTenantResponse::default()
        };
        let packed = pack_move_response(&response);
        assert_eq!(packed.type_url, "type.googleapis.com/stead.admin.v1.MoveTenantResponse");
        assert_eq!(unpack_move_response(&packed), Some(response));
        assert_eq!(unpack_metadata(&packed), None);
    }
}
