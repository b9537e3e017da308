//! Conversion of errors: to a gRPC status with `google.rpc` details for unary calls, to [`OperationError`] in a
//! pipeline, to a `google.rpc.Status` in a long-running operation.
//!
//! All forms are made from one [`table`]; a program acts on the reason and its metadata, never on the message.
//!
//! # Invariants
//!
//! * **S1** An error that is converted to any form and back has the same kind and message.
//!   In the status of a unary call its texts may be cut: see S3.
//! * **S2** Each kind has a reason of its own.
//! * **S3** The trailers of a unary call's status have at most 4 KiB, whatever the error's texts.

mod metadata;
pub mod table;
#[cfg(test)]
mod tests;
mod trailers;

use std::{
    collections::{BTreeMap, HashMap},
    time::Duration,
};

use prost::Message;
use stead_types::{Error, ErrorKind};
use tonic::{Code, Status, metadata::MetadataValue};
use tonic_types::{ErrorDetails, StatusExt};

use crate::proto::v1::OperationError;

/// Domain of every `ErrorInfo`.
pub const DOMAIN: &str = "stead";
/// Trailer with the retry delay that stock gRPC clients honour.
const PUSHBACK: &str = "grpc-retry-pushback-ms";
/// Shortest retry delay of stock clients during an election: they make at most five attempts, so their four delays must
/// outlast it.
const ELECTION_PUSHBACK: Duration = Duration::from_millis(400);

/// Converts an error to the status of a unary call; texts that are too long for its trailers are cut.
pub fn to_status(error: &Error) -> Status {
    let status = whole_status(error);
    if trailers::fit(&status) {
        status
    } else {
        whole_status(&trailers::shorten(error))
    }
}

/// Converts an error to a status of any length.
fn whole_status(error: &Error) -> Status {
    let row = table::row(&error.kind);
    let metadata: HashMap<_, _> = metadata::of(&error.kind).into_iter().collect();
    let mut details = ErrorDetails::with_error_info(row.reason, DOMAIN, metadata);
    if let Some(delay) = row.retry_after {
        details.set_retry_info(Some(delay));
    }
    if let ErrorKind::Invalid { field } = &error.kind {
        details.add_bad_request_violation(field, &error.message);
    }
    let mut status = Status::with_error_details(row.code, &error.message, details);
    if let Some(delay) = row.retry_after {
        let is_election = row.code == Code::Unavailable;
        let delay = if is_election {
            delay.max(ELECTION_PUSHBACK)
        } else {
            delay
        };
        // Rounded up: a retry that comes a little early is refused again.
        let millis = delay.as_nanos().div_ceil(1_000_000);
        let millis = MetadataValue::from(u64::try_from(millis).unwrap_or(u64::MAX));
        status.metadata_mut().insert(PUSHBACK, millis);
    }
    status
}

/// Converts a status back to an error. A status that [`to_status`] has not made gets the kind that its code suggests:
/// where the code leaves open whether the request had an effect, [`ErrorKind::OutcomeUnknown`].
pub fn from_status(status: &Status) -> Error {
    let kind = status
        .get_details_error_info()
        .filter(|info| info.domain == DOMAIN)
        .and_then(|info| {
            let metadata = info.metadata.into_iter().collect();
            metadata::kind(&info.reason, &metadata, retry_after(status))
        });
    Error::new(
        kind.unwrap_or_else(|| kind_of_code(status.code(), retry_after(status))),
        status.message().to_owned(),
    )
}

/// Returns the retry delay of a status.
pub fn retry_after(status: &Status) -> Option<Duration> {
    status.get_details_retry_info()?.retry_delay
}

/// Converts an error to the error of a long-running operation.
pub fn to_rpc_status(error: &Error) -> tonic_types::Status {
    let status = whole_status(error);
    tonic_types::Status::decode(status.details()).unwrap_or_else(|_| tonic_types::Status {
        code: status.code() as i32,
        message: status.message().to_owned(),
        details: Vec::new(),
    })
}

/// Converts the error of a long-running operation back.
pub fn from_rpc_status(status: &tonic_types::Status) -> Error {
    let details = status.encode_to_vec().into();
    from_status(&Status::with_details(
        Code::from_i32(status.code),
        status.message.clone(),
        details,
    ))
}

/// Returns the error of a long-running operation that was given up on request, which stock clients expect.
pub fn cancelled(message: impl Into<String>) -> tonic_types::Status {
    tonic_types::Status {
        code: Code::Cancelled as i32,
        message: message.into(),
        details: Vec::new(),
    }
}

/// Tells whether a long-running operation was given up on request.
pub fn is_cancelled(status: &tonic_types::Status) -> bool {
    status.code == Code::Cancelled as i32
}

/// Converts an error to the error of an operation in a pipeline.
pub fn to_operation_error(error: &Error) -> OperationError {
    let row = table::row(&error.kind);
    OperationError {
        code: row.code as i32,
        reason: row.reason.to_owned(),
        message: error.message.clone(),
        metadata: metadata::of(&error.kind),
        retry_after: row.retry_after.and_then(|delay| delay.try_into().ok()),
    }
}

/// Converts an operation's error back; one with an unknown reason gets the kind that its code suggests.
pub fn from_operation_error(error: OperationError) -> Error {
    let wait = operation_retry_after(&error);
    let kind = metadata::kind(&error.reason, &error.metadata, wait);
    Error::new(
        kind.unwrap_or_else(|| kind_of_code(Code::from_i32(error.code), wait)),
        error.message,
    )
}

/// Returns the retry delay of an operation's error.
pub fn operation_retry_after(error: &OperationError) -> Option<Duration> {
    error.retry_after?.try_into().ok()
}

fn kind_of_code(code: Code, wait: Option<Duration>) -> ErrorKind {
    match code {
        Code::InvalidArgument | Code::OutOfRange => ErrorKind::Invalid { field: String::new() },
        Code::NotFound => ErrorKind::NotFound,
        Code::AlreadyExists => ErrorKind::AlreadyExists,
        Code::ResourceExhausted => ErrorKind::RateLimited {
            limit: String::new(),
            wait: wait.unwrap_or(table::RATE_WAIT),
        },
        Code::FailedPrecondition | Code::Aborted => ErrorKind::Conflict,
        Code::Unavailable => ErrorKind::Unavailable,
        Code::Unimplemented => ErrorKind::Unimplemented,
        Code::Unauthenticated => ErrorKind::Unauthenticated,
        Code::PermissionDenied => ErrorKind::PermissionDenied,
        Code::Internal | Code::DataLoss => ErrorKind::Internal,
        Code::Ok | Code::Cancelled | Code::Unknown | Code::DeadlineExceeded => ErrorKind::OutcomeUnknown { key: None },
    }
}

/// Metadata of a reason: name -> value.
type Metadata = BTreeMap<String, String>;
