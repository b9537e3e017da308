//! What can go wrong for a caller, and what the caller can do about it.

use std::time::Duration;

use crate::{Epoch, IdempotencyKey, RegionName, Revision, TenantTime};

/// A failed request: a kind that programs act on, and a sentence for people.
#[derive(Clone, Debug, PartialEq, thiserror::Error)]
#[error("{message}")]
pub struct Error {
    /// What a program can do about it.
    pub kind: ErrorKind,
    /// A lowercase sentence that names what is wrong, the limit and what to do; never matched on.
    pub message: String,
}

/// Why a request failed. A kind exists only where a caller would act differently.
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
        /// The epoch on whose account it is home.
        epoch: Epoch,
        /// Addresses of the home's nodes.
        endpoints: Vec<String>,
    },
    /// No such tenant, as of a directory version read after the request arrived.
    TenantNotFound,
    /// No such thing: a region, a node, an operation.
    NotFound,
    /// The thing exists already.
    AlreadyExists,
    /// The key does not exist, where its absence is an error.
    KeyNotFound,
    /// The group that must answer has no leader; nothing happened.
    NoLeader,
    /// The group that must answer has no lease; nothing happened.
    NoLease,
    /// The tenant is between two homes; nothing happened.
    TenantMoving,
    /// The node is stopping, starting or overloaded; nothing happened.
    Unavailable,
    /// The write may or may not have happened: ask again with this key.
    OutcomeUnknown {
        /// The key to ask again with, if the request had one.
        key: Option<IdempotencyKey>,
    },
    /// A promotion cut the revision that the caller has seen.
    Forked {
        /// The epoch that was cut.
        epoch: Epoch,
        /// First lost revision.
        first: Revision,
        /// Last lost revision that is known.
        last: Revision,
    },
    /// No replica that may answer is as fresh as asked.
    StaleBeyondBound {
        /// What was measured, if anything was.
        staleness: Option<Duration>,
    },
    /// The revision asked for is no longer kept.
    Compacted {
        /// Oldest revision that is left.
        oldest: Revision,
    },
    /// A precondition of a single-key write did not hold; nothing happened.
    ConditionFailed {
        /// The key's revision now, zero if it does not exist.
        current: Revision,
    },
    /// Too much at once; nothing happened.
    RateLimited {
        /// Name of the limit.
        limit: String,
        /// After how long the same request is worth another attempt.
        wait: Duration,
    },
    /// The tenant is full; nothing happened.
    QuotaExceeded {
        /// Name of the limit.
        limit: String,
    },
    /// The tenant's policy forbids the place.
    Residency {
        /// Jurisdictions that the policy admits.
        wanted: Vec<String>,
        /// Jurisdiction of the region.
        region: String,
    },
    /// The key is outside the window in which outcomes are remembered; the write was not executed.
    IdempotencyExpired {
        /// The window's lower edge.
        edge: TenantTime,
        /// The tenant's time now.
        now: TenantTime,
    },
    /// A library sent a write again that has no idempotency key: an earlier attempt may have happened, this one was not
    /// executed.
    IdempotencyKeyMissing,
    /// Committed in the home region, not confirmed in another one in time.
    DurabilityUnmet {
        /// Where it is committed.
        revision: Revision,
    },
    /// The deadline passed, or the caller cancelled, before anything happened.
    DeadlineExceeded,
    /// A state that the request contradicts: an epoch, an etag, an operation in flight.
    Conflict,
    /// The server does not know the method.
    Unimplemented,
    /// A bug or broken hardware.
    Internal,
}

impl Error {
    /// Returns an error of this kind.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }

    /// Returns the error of a wrong field.
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
