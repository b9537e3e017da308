//! What is known of an attempt that gave no answer.
//!
//! tonic's status codes do not tell: a server killed in mid-call is `Unknown`, a connection that was closing
//! is `Cancelled`, and both codes are also sent by servers. Who made the status is told by its source: present, it was
//! made on this side.

use std::{error::Error as _, time::Duration};

use stead_api::status;
use stead_types::{Error, ErrorKind};
use tonic::{ConnectError, Status, TimeoutExpired};

/// An attempt that failed.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Failure {
    /// Nothing left this process.
    NeverSent(Error),
    /// It may have arrived; nobody answered.
    Ambiguous(Error),
    /// A server refused, and says how long to wait if waiting helps.
    Answered(Error, Option<Duration>),
}

impl Failure {
    pub(crate) fn error(&self) -> &Error {
        match self {
            Self::NeverSent(error) | Self::Ambiguous(error) | Self::Answered(error, _) => error,
        }
    }
}

/// Reads what is known from a status of a call to `address`.
pub(crate) fn of(status: &Status, address: &str) -> Failure {
    let mut source = status.source();
    if source.is_none() {
        return Failure::Answered(status::from_status(status), status::retry_after(status));
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
        return Failure::Ambiguous(Error::new(kind, format!("{address} did not answer in time")));
    }
    if never_sent {
        return Failure::NeverSent(unreachable(address, &cause));
    }
    let error = Error::new(
        ErrorKind::Unavailable,
        format!("the connection to {address} broke: {cause}"),
    );
    Failure::Ambiguous(error)
}

/// The error of a node that cannot be reached.
pub(crate) fn unreachable(address: &str, cause: &str) -> Error {
    Error::new(ErrorKind::Unavailable, format!("cannot reach {address}: {cause}"))
}
