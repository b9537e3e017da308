//! Classification of failed attempts by whether the request may have arrived.
//!
//! tonic's status codes do not tell: a server killed in mid-call is `Unknown`, a connection that was closing is
//! `Cancelled`, and both codes are also sent by servers. The status's source tells who made it: present, it was made on
//! this side.

use std::{error::Error as _, time::Duration};

use stead_api::status;
use stead_types::{Error, ErrorKind};
use tonic::{ConnectError, Status, TimeoutExpired};

/// Failure of one attempt.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum AttemptFailure {
    /// Nothing left this process.
    NeverSent(Error),
    /// The request may have arrived; there was no response.
    Ambiguous(Error),
    /// A server responded with an error, and a retry delay if waiting helps.
    ErrorResponse(Error, Option<Duration>),
}

impl AttemptFailure {
    pub(crate) fn error(&self) -> &Error {
        match self {
            Self::NeverSent(error) | Self::Ambiguous(error) | Self::ErrorResponse(error, _) => error,
        }
    }
}

/// Classifies the status of a call to `address`.
pub(crate) fn of(status: &Status, address: &str) -> AttemptFailure {
    let mut source = status.source();
    if source.is_none() {
        return AttemptFailure::ErrorResponse(status::from_status(status), status::retry_after(status));
    }
    let mut cause = None;
    let mut never_sent = false;
    let mut timed_out = false;
    while let Some(error) = source {
        never_sent |= error.is::<ConnectError>();
        never_sent |= error
            .downcast_ref::<hyper::Error>()
            .is_some_and(hyper::Error::is_canceled);
        timed_out |= error.is::<TimeoutExpired>();
        cause = Some(error.to_string());
        source = error.source();
    }
    let cause = cause.unwrap_or_default();
    if timed_out {
        let kind = ErrorKind::DeadlineExceeded;
        return AttemptFailure::Ambiguous(Error::new(kind, format!("{address} did not answer in time")));
    }
    if never_sent {
        return AttemptFailure::NeverSent(unreachable(address, &cause));
    }
    let error = Error::new(
        ErrorKind::Unavailable,
        format!("the connection to {address} broke: {cause}"),
    );
    AttemptFailure::Ambiguous(error)
}

/// Returns the error for a node that cannot be reached.
pub(crate) fn unreachable(address: &str, cause: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("cannot reach {address}: {cause}"))
}
