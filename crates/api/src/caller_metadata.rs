//! Metadata in which a node tells another one, over its peer listener, who has asked it.

use base64::{Engine, engine::general_purpose::STANDARD_NO_PAD};
use http::HeaderMap;
use prost::{DecodeError, Message};
use tonic::metadata::{BinaryMetadataValue, MetadataMap};

use crate::proto::internal::v1::ForwardedCaller;

/// Name of the metadata. The suffix is gRPC's for values that are bytes.
const NAME: &str = "x-stead-caller-bin";

/// Adds the caller to the metadata of a request.
pub fn write(caller: &ForwardedCaller, metadata: &mut MetadataMap) {
    metadata.insert_bin(NAME, BinaryMetadataValue::from_bytes(&caller.encode_to_vec()));
}

/// Reads the caller from the headers of a request, if they name one.
pub fn read(headers: &HeaderMap) -> Option<Result<ForwardedCaller, DecodeError>> {
    let text = headers.get(NAME)?.as_bytes();
    let text = text.strip_suffix(b"==").or(text.strip_suffix(b"=")).unwrap_or(text);
    Some(match STANDARD_NO_PAD.decode(text) {
        Ok(bytes) => ForwardedCaller::decode(&bytes[..]),
        // Ends as any malformed message: no field begins like this.
        Err(_) => ForwardedCaller::decode(&[0xff][..]),
    })
}
