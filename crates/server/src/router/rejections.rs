//! Errors of operations that were not executed: nothing happened.

use stead_state::directory::Tenant;
use stead_types::{Error, ErrorKind};

/// Returns the error of an operation that was cancelled before it began.
pub(super) fn cancelled() -> Error {
    let message = "cancelled by the caller before it was executed";
    Error::new(ErrorKind::DeadlineExceeded, message)
}

/// Returns the error of an operation whose deadline passed before it began.
pub(super) fn deadline_exceeded() -> Error {
    Error::new(
        ErrorKind::DeadlineExceeded,
        "the deadline passed before the operation was executed",
    )
}

/// Returns the error of a retried write without an idempotency key.
pub(super) fn idempotency_key_missing() -> Error {
    let message = "the gRPC library has sent this write again, and it has no idempotency_key: an earlier attempt may have \
                   been executed, this one was not; read what is there, and send an idempotency_key with every write \
                   that may be repeated";
    Error::new(ErrorKind::IdempotencyKeyMissing, message)
}

/// Returns the error of an operation whose home has no leader that is known here.
pub(super) fn no_leader(tenant: &Tenant) -> Error {
    let message = format!("the home of tenant {} is electing a leader: try again", tenant.name);
    Error::new(ErrorKind::NoLeader, message)
}

/// Returns the error of an operation whose tenant no group may serve at the moment.
pub(super) fn between_homes(tenant: impl std::fmt::Display) -> Error {
    let message = format!("tenant {tenant} is between two homes: try again");
    Error::new(ErrorKind::TenantMoving, message)
}

/// Returns the error of an operation whose tenant was just created, or just moved, and is not yet owned here.
pub(super) fn not_ready() -> Error {
    let message = "the tenant's home is not ready to serve it yet: try again";
    Error::new(ErrorKind::TenantMoving, message)
}
