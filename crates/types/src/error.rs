//! Errors of requests, by what the caller can do about them.

use std::time::Duration;

use crate::{Epoch, IdempotencyKey, RegionName, Revision, TenantTime};

/// Error of a request: a kind that programs act on, and a message for people.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// Kind of the error.
    pub kind: ErrorKind,
    /// Lowercase sentence that names the failure, the limit and what to do; never matched on.
    pub message: String,
}

/// Kind of an error. A kind exists only where a caller would act differently.
#[derive(Clone, Debug, PartialEq)]
pub enum ErrorKind {
    /// The request can never succeed as written; `field` is the request's field that is wrong.
    Invalid {
        /// Dotted path of the field.
        field: String,
    },
    /// Another region is home; nothing happened. Only for callers that asked not to be forwarded.
    NotHome {
        /// The home's region.
        region: RegionName,
        /// Epoch in which it is home.
        epoch: Epoch,
        /// Client addresses of the home's nodes.
        endpoints: Vec<String>,
    },
    /// The call has no credential, or one that does not count; nothing happened.
    Unauthenticated,
    /// The caller has no role that allows the call; nothing happened.
    PermissionDenied,
    /// No such tenant, as of a directory version read after the request arrived.
    TenantNotFound,
    /// The object does not exist: a region, a node, an operation.
    NotFound,
    /// The object exists already.
    AlreadyExists,
    /// The key does not exist, where its absence is an error.
    KeyNotFound,
    /// The group that must answer has no leader; nothing happened.
    NoLeader,
    /// The group that was asked as the home failed the serving check; nothing happened.
    NoLease,
    /// The tenant is between two homes; nothing happened.
    TenantMoving,
    /// The node is stopping, starting or overloaded; nothing happened.
    Unavailable,
    /// The write may or may not have happened: retry it with the same idempotency key.
    OutcomeUnknown {
        /// Idempotency key of the write, if it had one.
        key: Option<IdempotencyKey>,
    },
    /// A promotion cut the revision that the caller has seen.
    Forked {
        /// Epoch that was cut.
        epoch: Epoch,
        /// First revision that was cut.
        first: Revision,
        /// Last revision known to be cut: the one that the caller has seen.
        last: Revision,
        /// Last revision that is still part of the tenant's history: what the caller has seen up to it counts. Zero where it
        /// is not known.
        kept: Revision,
    },
    /// No replica that may answer is within the requested staleness bound.
    StaleBeyondBound {
        /// Measured staleness, if any.
        staleness: Option<Duration>,
    },
    /// The requested revision is below the retention floor.
    Compacted {
        /// Oldest revision that can be read.
        oldest: Revision,
    },
    /// A precondition of a single-key write did not hold; nothing happened.
    ConditionFailed {
        /// Current revision of the key, zero if it does not exist.
        current: Revision,
    },
    /// A rate limit is exceeded; nothing happened.
    RateLimited {
        /// Name of the limit.
        limit: String,
        /// Delay after which a retry is useful.
        wait: Duration,
    },
    /// A quota of the tenant is used up; nothing happened.
    QuotaExceeded {
        /// Name of the limit.
        limit: String,
    },
    /// The tenant's residency does not admit the region.
    Residency {
        /// Jurisdictions that the residency admits.
        allowed: Vec<String>,
        /// Jurisdiction of the region.
        region: String,
    },
    /// The idempotency key is outside the idempotency window; the write was not executed.
    IdempotencyExpired {
        /// Lower edge of the window.
        edge: TenantTime,
        /// Current tenant time.
        now: TenantTime,
    },
    /// A library sent a write again that has no idempotency key: an earlier attempt may have happened, this one was not
    /// executed.
    IdempotencyKeyMissing,
    /// Committed in the home region, not confirmed by another region in time.
    DurabilityUnmet {
        /// Revision of the committed write.
        revision: Revision,
    },
    /// The deadline passed, or the caller cancelled, before anything happened.
    DeadlineExceeded,
    /// The request contradicts the current state: an epoch, an etag, an operation in flight.
    Conflict,
    /// The operation has passed the point from which on it cannot be cancelled; nothing happened.
    NotCancellable,
    /// The server's version does not have the method, or what the request asks for.
    Unimplemented,
    /// A bug or broken hardware.
    Internal,
}

impl Error {
    /// Returns an error.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// Returns the error of an invalid field.
    pub fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Invalid { field: field.into() }, message)
    }

    /// Tells whether the request certainly had no effect, so that it may be sent again as a new one.
    pub fn has_no_effect(&self) -> bool {
        !matches!(
            self.kind,
            ErrorKind::OutcomeUnknown { .. }
                | ErrorKind::IdempotencyKeyMissing
                | ErrorKind::DurabilityUnmet { .. }
                | ErrorKind::Internal
        )
    }

    /// Tells whether the same request may succeed a little later.
    pub fn is_transient(&self) -> bool {
        matches!(
            self.kind,
            ErrorKind::NoLeader
                | ErrorKind::NoLease
                | ErrorKind::TenantMoving
                | ErrorKind::Unavailable
                | ErrorKind::RateLimited { .. }
        )
    }
}
