//! Deadline, routing and earlier attempts of a call, from its metadata.

use std::time::Duration;

use stead_api::{proto::v1::Routing, status};
use stead_types::{Error, ErrorKind};
use tonic::{Request, Status, metadata::MetadataMap};

use crate::auth::Access;

/// Deadline of an operation whose caller sets none.
const DEADLINE_DEFAULT: Duration = Duration::from_secs(5);
/// Longest deadline; a later one is cut to it.
const DEADLINE_MAX: Duration = Duration::from_secs(30);
/// Metadata by which a unary caller asks not to be forwarded.
const ROUTING: &str = "x-stead-routing";
/// Metadata in which a gRPC library counts its earlier attempts of a call; absent from the first one.
const PREVIOUS_ATTEMPTS: &str = "grpc-previous-rpc-attempts";

/// Returns the requested timeout, bounded, or the default.
pub(super) fn bounded_timeout(requested: Option<Duration>) -> Duration {
    requested.unwrap_or(DEADLINE_DEFAULT).min(DEADLINE_MAX)
}

/// Most digits of `grpc-timeout`, as gRPC defines it.
const TIMEOUT_DIGITS_MAX: usize = 8;

/// Parses `grpc-timeout`: up to eight digits and a unit.
pub(super) fn timeout(metadata: &MetadataMap) -> Option<Duration> {
    let text = metadata.get("grpc-timeout")?.to_str().ok()?;
    let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    if digits.len() > TIMEOUT_DIGITS_MAX || !digits.bytes().all(|digit| digit.is_ascii_digit()) {
        return None;
    }
    let number: u64 = digits.parse().ok()?;
    match unit {
        "H" => Some(Duration::from_secs(number.saturating_mul(3600))),
        "M" => Some(Duration::from_secs(number.saturating_mul(60))),
        "S" => Some(Duration::from_secs(number)),
        "m" => Some(Duration::from_millis(number)),
        "u" => Some(Duration::from_micros(number)),
        "n" => Some(Duration::from_nanos(number)),
        _ => None,
    }
}

/// Returns whether a unary caller wants its call to be forwarded.
///
/// # Errors
///
/// `INVALID_ARGUMENT`, for any word but the two that are known.
pub(super) fn routing(metadata: &MetadataMap) -> Result<Routing, Status> {
    match metadata.get(ROUTING).map(|value| value.as_bytes()) {
        None | Some(b"forward") => Ok(Routing::Forward),
        Some(b"direct") => Ok(Routing::Direct),
        Some(_) => {
            let message = format!("metadata {ROUTING}: `direct` or `forward`");
            Err(status::to_status(&Error::invalid(ROUTING, message)))
        }
    }
}

/// Returns who asks, as the listener has found out.
///
/// # Errors
///
/// `INTERNAL`, where the listener has not: nothing is done for a caller that nobody has looked at.
pub(crate) fn access<T>(request: &Request<T>) -> Result<Access, Error> {
    let missing = || {
        Error::new(
            ErrorKind::Internal,
            "the listener has not looked at the caller: this is a bug, please report it",
        )
    };
    request.extensions().get::<Access>().cloned().ok_or_else(missing)
}

/// Tells whether a gRPC library has sent a call before. A count that is no number means yes: a write that happens
/// twice is worse than one that is refused.
pub(super) fn is_library_retry(metadata: &MetadataMap) -> bool {
    metadata
        .get(PREVIOUS_ATTEMPTS)
        .is_some_and(|count| count.as_bytes() != b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn library_retry_is_any_nonzero_attempt_count() {
        let read = |text: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert(PREVIOUS_ATTEMPTS, text.parse().unwrap());
            is_library_retry(&metadata)
        };
        assert!(!is_library_retry(&MetadataMap::new()));
        assert_eq!(["0", "1", "4", "", "x"].map(read), [false, true, true, true, true]);
    }

    #[test]
    fn timeout_has_at_most_eight_digits_and_unit() {
        let read = |text: &'static str| {
            let mut metadata = MetadataMap::new();
            metadata.insert("grpc-timeout", text.parse().unwrap());
            timeout(&metadata)
        };
        assert_eq!(read("20m"), Some(Duration::from_millis(20)));
        assert_eq!(read("99999999H"), Some(Duration::from_secs(99_999_999 * 3_600)));
        for wrong in ["100000000H", "18446744073709551615S", "+5S", "5", "S", "", "5x"] {
            assert_eq!(read(wrong), None, "{wrong}");
        }
    }
}
