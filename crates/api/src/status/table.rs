//! Table of errors: reason, status code and retry delay of each kind.

use std::time::Duration;

use stead_types::ErrorKind;
use tonic::Code;

/// One row of the table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Row {
    /// `ErrorInfo.reason`.
    pub reason: &'static str,
    /// Status code.
    pub code: Code,
    /// Delay before a retry, where waiting helps.
    pub retry_after: Option<Duration>,
}

/// Retry delay while a group has no leader: an election takes several of these.
const LEADER_WAIT: Duration = Duration::from_millis(100);
/// Retry delay after a failed serving check: the tenant's home is known anew with the directory's next response.
const LEASE_WAIT: Duration = Duration::from_millis(500);
/// Retry delay during a move: its pause is a round trip and two commits.
const MOVE_WAIT: Duration = Duration::from_millis(100);
/// Retry delay under overload and during restarts.
const UNAVAILABLE_WAIT: Duration = Duration::from_millis(200);
/// Default retry delay of rate limits, where the error has none.
pub(super) const RATE_WAIT: Duration = Duration::from_secs(1);

/// Returns a kind's row of the table.
pub fn row(kind: &ErrorKind) -> Row {
    let (reason, code, retry_after) = match kind {
        ErrorKind::Invalid { .. } => ("INVALID", Code::InvalidArgument, None),
        ErrorKind::NotHome { .. } => ("NOT_HOME", Code::FailedPrecondition, None),
        ErrorKind::Unauthenticated => ("UNAUTHENTICATED", Code::Unauthenticated, None),
        ErrorKind::PermissionDenied => ("PERMISSION_DENIED", Code::PermissionDenied, None),
        ErrorKind::TenantNotFound => ("TENANT_NOT_FOUND", Code::NotFound, None),
        ErrorKind::NotFound => ("NOT_FOUND", Code::NotFound, None),
        ErrorKind::AlreadyExists => ("ALREADY_EXISTS", Code::AlreadyExists, None),
        ErrorKind::KeyNotFound => ("KEY_NOT_FOUND", Code::NotFound, None),
        ErrorKind::NoLeader => ("NO_LEADER", Code::Unavailable, Some(LEADER_WAIT)),
        ErrorKind::NoLease => ("NO_LEASE", Code::Unavailable, Some(LEASE_WAIT)),
        ErrorKind::TenantMoving => ("TENANT_MOVING", Code::Unavailable, Some(MOVE_WAIT)),
        ErrorKind::Unavailable => ("UNAVAILABLE", Code::Unavailable, Some(UNAVAILABLE_WAIT)),
        ErrorKind::OutcomeUnknown { .. } => ("OUTCOME_UNKNOWN", Code::Unknown, None),
        ErrorKind::Forked { .. } => ("FORKED", Code::DataLoss, None),
        ErrorKind::StaleBeyondBound { .. } => ("STALE_BEYOND_BOUND", Code::FailedPrecondition, None),
        ErrorKind::Compacted { .. } => ("COMPACTED", Code::OutOfRange, None),
        ErrorKind::ConditionFailed { .. } => ("CONDITION_FAILED", Code::Aborted, None),
        ErrorKind::RateLimited { wait, .. } => ("RATE_LIMITED", Code::ResourceExhausted, Some(*wait)),
        ErrorKind::QuotaExceeded { .. } => ("QUOTA_EXCEEDED", Code::ResourceExhausted, None),
        ErrorKind::Residency { .. } => ("RESIDENCY", Code::PermissionDenied, None),
        ErrorKind::IdempotencyExpired { .. } => ("IDEMPOTENCY_EXPIRED", Code::FailedPrecondition, None),
        ErrorKind::IdempotencyKeyMissing => ("IDEMPOTENCY_KEY_MISSING", Code::FailedPrecondition, None),
        ErrorKind::DurabilityUnmet { .. } => ("DURABILITY_UNMET", Code::DeadlineExceeded, None),
        ErrorKind::DeadlineExceeded => ("DEADLINE_EXCEEDED", Code::DeadlineExceeded, None),
        ErrorKind::Conflict => ("CONFLICT", Code::Aborted, None),
        ErrorKind::NotCancellable => ("NOT_CANCELLABLE", Code::FailedPrecondition, None),
        ErrorKind::Unimplemented => ("UNIMPLEMENTED", Code::Unimplemented, None),
        ErrorKind::Internal => ("INTERNAL", Code::Internal, None),
    };
    Row {
        reason,
        code,
        retry_after,
    }
}

/// Returns a sample of each error kind, in the order of the table: for documentation and tests.
pub fn samples() -> Vec<ErrorKind> {
    use stead_types::{ClientId, Epoch, IdempotencyKey, Revision, TenantTime};
    let revision = |number: u64| Revision::from_u64((3 << 40) | number);
    let key = IdempotencyKey {
        client: ClientId(0x1234_5678_9abc),
        sequence: 7,
        first_sent: TenantTime(1_700_000_000_000),
    };
    vec![
        ErrorKind::Invalid { field: "key".into() },
        ErrorKind::NotHome {
            region: "eu-west".parse().expect("a valid name"),
            epoch: Epoch::FIRST,
            endpoints: vec!["10.0.0.1:7400".into(), "10.0.0.2:7400".into()],
        },
        ErrorKind::Unauthenticated,
        ErrorKind::PermissionDenied,
        ErrorKind::TenantNotFound,
        ErrorKind::NotFound,
        ErrorKind::AlreadyExists,
        ErrorKind::KeyNotFound,
        ErrorKind::NoLeader,
        ErrorKind::NoLease,
        ErrorKind::TenantMoving,
        ErrorKind::Unavailable,
        ErrorKind::OutcomeUnknown { key: Some(key) },
        ErrorKind::Forked {
            epoch: Epoch::FIRST,
            first: revision(5),
            last: revision(9),
            kept: revision(4),
        },
        ErrorKind::StaleBeyondBound {
            staleness: Some(Duration::from_micros(127_500)),
        },
        ErrorKind::Compacted { oldest: revision(1) },
        ErrorKind::ConditionFailed { current: revision(2) },
        ErrorKind::RateLimited {
            limit: "operations_per_second".into(),
            wait: RATE_WAIT,
        },
        ErrorKind::QuotaExceeded {
            limit: "stored_bytes".into(),
        },
        ErrorKind::Residency {
            allowed: vec!["EU".into(), "CH".into()],
            region: "US".into(),
        },
        ErrorKind::IdempotencyExpired {
            edge: TenantTime(5),
            now: TenantTime(9),
        },
        ErrorKind::IdempotencyKeyMissing,
        ErrorKind::DurabilityUnmet { revision: revision(4) },
        ErrorKind::DeadlineExceeded,
        ErrorKind::Conflict,
        ErrorKind::NotCancellable,
        ErrorKind::Unimplemented,
        ErrorKind::Internal,
    ]
}
