//! Number of list items in an encoded request, found before anything is built of it: two bytes can become an operation
//! of some hundred.

use std::{collections::BTreeMap, sync::LazyLock};

use prost::{
    Message, Name,
    encoding::{DecodeContext, WireType, decode_key, decode_varint, skip_field},
};
use prost_types::{
    DescriptorProto, FileDescriptorSet,
    field_descriptor_proto::{Label, Type},
};

/// Most items in all lists of one request together, those of its parts too.
pub const MESSAGE_ITEMS_MAX: usize = 32_768;

/// Deepest nesting that is examined; the decoder's own limit is the same.
const DEPTH_MAX: usize = 100;

/// Shapes of the messages that are requests, and of their parts. Derived from a constant.
static SCHEMA: LazyLock<Schema> = LazyLock::new(|| Schema::of(crate::DESCRIPTORS));

/// Where messages have lists and other messages.
#[derive(Debug, Default)]
struct Schema {
    shapes: BTreeMap<String, Shape>,
    /// Names of the messages that are the request of a method.
    requests: Vec<String>,
}

/// Fields of a message that are lists or messages, by number.
type Shape = BTreeMap<u32, Field>;

#[derive(Debug)]
struct Field {
    is_list: bool,
    kind: Type,
    /// Name of its message, if it is one.
    message: String,
}

/// Error of a request with too many list items.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("message has more than {MESSAGE_ITEMS_MAX} list items")]
pub(crate) struct TooManyItems;

/// Checks the number of list items of an encoded message, if it is the request of a method. Bytes that are no message are
/// left to the decoder.
pub(crate) fn check<M: Name>(bytes: &[u8]) -> Result<(), TooManyItems> {
    let name = M::full_name();
    if SCHEMA.requests.binary_search(&name).is_err() {
        return Ok(());
    }
    let mut left = MESSAGE_ITEMS_MAX;
    SCHEMA.check(&name, bytes, &mut left, DEPTH_MAX)
}

impl Schema {
    fn of(descriptors: &[u8]) -> Self {
        let mut schema = Self::default();
        let files = FileDescriptorSet::decode(descriptors).unwrap_or_default();
        for file in files.file {
            let package = file.package().to_owned();
            for message in &file.message_type {
                schema.add(&package, message);
            }
            let methods = file.service.iter().flat_map(|service| &service.method);
            let requests = methods.map(|method| method.input_type().trim_start_matches('.').to_owned());
            schema.requests.extend(requests);
        }
        schema.requests.sort_unstable();
        schema
    }

    fn add(&mut self, parent: &str, message: &DescriptorProto) {
        let name = format!("{parent}.{}", message.name());
        for part in &message.nested_type {
            self.add(&name, part);
        }
        let fields = message.field.iter().map(|field| {
            let shape = Field {
                is_list: field.label() == Label::Repeated,
                kind: field.r#type(),
                message: field.type_name().trim_start_matches('.').to_owned(),
            };
            (field.number().unsigned_abs(), shape)
        });
        let shape = fields.filter(|(_, field)| field.is_list || field.kind == Type::Message);
        self.shapes.insert(name, shape.collect());
    }

    fn check(&self, name: &str, mut bytes: &[u8], left: &mut usize, depth: usize) -> Result<(), TooManyItems> {
        let Some(shape) = self.shapes.get(name).filter(|shape| !shape.is_empty()) else {
            return Ok(());
        };
        while !bytes.is_empty() {
            let Ok((number, wire_type)) = decode_key(&mut bytes) else {
                return Ok(());
            };
            let Some(field) = shape.get(&number) else {
                if skip_field(wire_type, number, &mut bytes, DecodeContext::default()).is_err() {
                    return Ok(());
                }
                continue;
            };
            let Some(content) = content(wire_type, number, &mut bytes) else {
                return Ok(());
            };
            if field.is_list {
                let items = items(field.kind, wire_type, content);
                *left = left.checked_sub(items).ok_or(TooManyItems)?;
            }
            if field.kind == Type::Message && depth > 0 {
                self.check(&field.message, content, left, depth - 1)?;
            }
        }
        Ok(())
    }
}

/// Takes the content of a field off the bytes; empty unless it has a length.
fn content<'a>(wire_type: WireType, number: u32, bytes: &mut &'a [u8]) -> Option<&'a [u8]> {
    if wire_type != WireType::LengthDelimited {
        skip_field(wire_type, number, bytes, DecodeContext::default()).ok()?;
        return Some(&[]);
    }
    let len = usize::try_from(decode_varint(bytes).ok()?).ok()?;
    let (content, rest) = bytes.split_at_checked(len)?;
    *bytes = rest;
    Some(content)
}

/// Returns the number of items of one occurrence of a list: more than one where numbers are packed.
fn items(kind: Type, wire_type: WireType, content: &[u8]) -> usize {
    if wire_type != WireType::LengthDelimited {
        return 1;
    }
    match kind {
        Type::String | Type::Bytes | Type::Message | Type::Group => 1,
        Type::Double | Type::Fixed64 | Type::Sfixed64 => content.len() / 8,
        Type::Float | Type::Fixed32 | Type::Sfixed32 => content.len() / 4,
        // The last byte of a number has no continuation bit.
        Type::Int64
        | Type::Uint64
        | Type::Int32
        | Type::Uint32
        | Type::Sint32
        | Type::Sint64
        | Type::Bool
        | Type::Enum => content.iter().filter(|byte| **byte < 0x80).count(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::proto::v1::{
        BatchGetRequest, Consistency, Operation, PipelineRequest, PipelineResponse, WatchRequest,
        consistency::{Level, Session},
        operation::Request,
    };

    fn pipeline(operations: usize, cancel_ids: usize) -> PipelineRequest {
        PipelineRequest {
            operations: vec![Operation::default(); operations],
            cancel_ids: (0..cancel_ids as u64).map(|id| id << 20).collect(),
        }
    }

    fn checked<M: Name>(message: &M) -> Result<(), TooManyItems> {
        check::<M>(&message.encode_to_vec())
    }

    #[test]
    fn items_of_request_are_counted_at_and_above_the_limit() {
        let max = MESSAGE_ITEMS_MAX;
        assert_eq!(checked(&pipeline(max, 0)), Ok(()));
        assert_eq!(checked(&pipeline(max + 1, 0)), Err(TooManyItems));
        assert_eq!(checked(&pipeline(0, max)), Ok(()));
        assert_eq!(checked(&pipeline(0, max + 1)), Err(TooManyItems));
        assert_eq!(checked(&pipeline(max / 2, max / 2 + 1)), Err(TooManyItems));
    }

    /// Eight million empty operations, as a 16 MiB message has them.
    #[test]
    fn empty_operations_are_refused_by_their_bytes() {
        let bytes = [0x0a, 0].repeat(8 << 20);
        assert_eq!(check::<PipelineRequest>(&bytes), Err(TooManyItems));
    }

    #[test]
    fn lists_of_parts_are_counted() {
        let get = BatchGetRequest {
            keys: vec![Default::default(); MESSAGE_ITEMS_MAX],
            ..BatchGetRequest::default()
        };
        assert_eq!(checked(&get), Ok(()));
        let session = Session {
            tokens: vec![Default::default()],
        };
        let more = BatchGetRequest {
            consistency: Some(Consistency {
                level: Some(Level::Session(session)),
            }),
            ..get.clone()
        };
        assert_eq!(checked(&more), Err(TooManyItems));
        let operation = Operation {
            request: Some(Request::BatchGet(get)),
            ..Operation::default()
        };
        let message = PipelineRequest {
            operations: vec![operation],
            cancel_ids: vec![],
        };
        assert_eq!(checked(&message), Err(TooManyItems));
    }

    /// A response may have as many items as fit: no client is told to send less.
    #[test]
    fn responses_and_malformed_bytes_are_not_counted() {
        let answers = PipelineResponse {
            answers: vec![Default::default(); MESSAGE_ITEMS_MAX + 1],
        };
        assert_eq!(checked(&answers), Ok(()));
        for bytes in [&[0x0a, 0x7f][..], &[0x0b], &[0x07], &[0xff; 11]] {
            assert_eq!(check::<PipelineRequest>(bytes), Ok(()));
        }
    }

    /// Unknown fields are skipped as the decoder skips them, and what follows is counted.
    #[test]
    fn items_behind_unknown_fields_are_counted() {
        let mut bytes = vec![0xa3, 0x06, 0x08, 0x01, 0xa4, 0x06];
        bytes.extend([0x0a, 0].repeat(MESSAGE_ITEMS_MAX + 1));
        assert!(PipelineRequest::decode(&bytes[..6]).is_ok());
        assert_eq!(check::<PipelineRequest>(&bytes), Err(TooManyItems));
    }

    #[test]
    fn every_request_has_a_shape() {
        for name in &SCHEMA.requests {
            assert!(
                SCHEMA.shapes.contains_key(name) || name.starts_with("google.protobuf."),
                "{name}"
            );
        }
        assert!(SCHEMA.requests.contains(&WatchRequest::full_name()));
    }
}
