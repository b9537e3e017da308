//! Conversion of the fields of error kinds to metadata and back.

use std::time::Duration;

use stead_types::{ClientId, Epoch, ErrorKind, IdempotencyKey, Revision, TenantTime};

use super::{Metadata, table::RATE_WAIT};

/// Returns the metadata of a kind.
pub(super) fn of(kind: &ErrorKind) -> Metadata {
    let mut metadata = Metadata::new();
    let mut put = |name: &str, value: String| drop(metadata.insert(name.to_owned(), value));
    match kind {
        ErrorKind::Invalid { field } => put("field", field.clone()),
        ErrorKind::NotHome {
            region,
            epoch,
            endpoints,
        } => {
            put("home_region", region.to_string());
            put("epoch", epoch.to_string());
            put("endpoints", endpoints.join(","));
        }
        ErrorKind::OutcomeUnknown { key: Some(key) } => {
            put("client_id", key.client.to_string());
            put("sequence", key.sequence.to_string());
            put("first_sent_ms", key.first_sent.0.to_string());
        }
        ErrorKind::Forked {
            epoch,
            first,
            last,
            kept,
        } => {
            put("epoch", epoch.to_string());
            put("first_lost_revision", first.to_string());
            put("last_lost_revision", last.to_string());
            put("kept_revision", kept.to_string());
        }
        ErrorKind::StaleBeyondBound {
            staleness: Some(staleness),
        } => put("staleness_us", staleness.as_micros().to_string()),
        ErrorKind::Compacted { oldest } => put("oldest_revision", oldest.to_string()),
        ErrorKind::ConditionFailed { current } => put("current_revision", current.to_string()),
        ErrorKind::RateLimited { limit, wait: _ } | ErrorKind::QuotaExceeded { limit } => put("limit", limit.clone()),
        ErrorKind::Residency { allowed, region } => {
            put("jurisdictions_wanted", allowed.join(","));
            put("jurisdiction", region.clone());
        }
        ErrorKind::IdempotencyExpired { edge, now } => {
            put("edge_ms", edge.0.to_string());
            put("now_ms", now.0.to_string());
        }
        ErrorKind::DurabilityUnmet { revision } => put("revision", revision.to_string()),
        ErrorKind::OutcomeUnknown { key: None }
        | ErrorKind::StaleBeyondBound { staleness: None }
        | ErrorKind::Unauthenticated
        | ErrorKind::PermissionDenied
        | ErrorKind::TenantNotFound
        | ErrorKind::NotFound
        | ErrorKind::AlreadyExists
        | ErrorKind::KeyNotFound
        | ErrorKind::NoLeader
        | ErrorKind::NoLease
        | ErrorKind::TenantMoving
        | ErrorKind::Unavailable
        | ErrorKind::IdempotencyKeyMissing
        | ErrorKind::DeadlineExceeded
        | ErrorKind::Conflict
        | ErrorKind::NotCancellable
        | ErrorKind::Unimplemented
        | ErrorKind::Internal => {}
    }
    metadata
}

/// Reads a kind from its reason, metadata and retry delay; `None` if the reason is unknown (from a newer server) or
/// metadata is missing.
pub(super) fn kind(reason: &str, metadata: &Metadata, wait: Option<Duration>) -> Option<ErrorKind> {
    let read = MetadataReader(metadata);
    Some(match reason {
        "INVALID" => ErrorKind::Invalid {
            field: read.text("field")?,
        },
        "NOT_HOME" => ErrorKind::NotHome {
            region: read.parsed("home_region")?,
            epoch: read.epoch()?,
            endpoints: read.list("endpoints")?,
        },
        "UNAUTHENTICATED" => ErrorKind::Unauthenticated,
        "PERMISSION_DENIED" => ErrorKind::PermissionDenied,
        "TENANT_NOT_FOUND" => ErrorKind::TenantNotFound,
        "NOT_FOUND" => ErrorKind::NotFound,
        "ALREADY_EXISTS" => ErrorKind::AlreadyExists,
        "KEY_NOT_FOUND" => ErrorKind::KeyNotFound,
        "NO_LEADER" => ErrorKind::NoLeader,
        "NO_LEASE" => ErrorKind::NoLease,
        "TENANT_MOVING" => ErrorKind::TenantMoving,
        "UNAVAILABLE" => ErrorKind::Unavailable,
        "OUTCOME_UNKNOWN" => ErrorKind::OutcomeUnknown { key: read.key() },
        "FORKED" => ErrorKind::Forked {
            epoch: read.epoch()?,
            first: read.parsed("first_lost_revision")?,
            last: read.parsed("last_lost_revision")?,
            // Earlier versions do not send it.
            kept: read.parsed("kept_revision").unwrap_or(Revision::ZERO),
        },
        "STALE_BEYOND_BOUND" => ErrorKind::StaleBeyondBound {
            staleness: read.parsed("staleness_us").map(Duration::from_micros),
        },
        "COMPACTED" => ErrorKind::Compacted {
            oldest: read.parsed("oldest_revision")?,
        },
        "CONDITION_FAILED" => ErrorKind::ConditionFailed {
            current: read.parsed::<Revision>("current_revision")?,
        },
        "RATE_LIMITED" => ErrorKind::RateLimited {
            limit: read.text("limit")?,
            wait: wait.unwrap_or(RATE_WAIT),
        },
        "QUOTA_EXCEEDED" => ErrorKind::QuotaExceeded {
            limit: read.text("limit")?,
        },
        "RESIDENCY" => ErrorKind::Residency {
            allowed: read.list("jurisdictions_wanted")?,
            region: read.text("jurisdiction")?,
        },
        "IDEMPOTENCY_EXPIRED" => ErrorKind::IdempotencyExpired {
            edge: TenantTime(read.parsed("edge_ms")?),
            now: TenantTime(read.parsed("now_ms")?),
        },
        "IDEMPOTENCY_KEY_MISSING" => ErrorKind::IdempotencyKeyMissing,
        "DURABILITY_UNMET" => ErrorKind::DurabilityUnmet {
            revision: read.parsed("revision")?,
        },
        "DEADLINE_EXCEEDED" => ErrorKind::DeadlineExceeded,
        "CONFLICT" => ErrorKind::Conflict,
        "NOT_CANCELLABLE" => ErrorKind::NotCancellable,
        "UNIMPLEMENTED" => ErrorKind::Unimplemented,
        "INTERNAL" => ErrorKind::Internal,
        _ => return None,
    })
}

struct MetadataReader<'a>(&'a Metadata);

impl MetadataReader<'_> {
    fn text(&self, name: &str) -> Option<String> {
        self.0.get(name).cloned()
    }

    fn parsed<T: std::str::FromStr>(&self, name: &str) -> Option<T> {
        self.0.get(name)?.parse().ok()
    }

    fn list(&self, name: &str) -> Option<Vec<String>> {
        let text = self.0.get(name)?;
        Some(
            text.split(',')
                .filter(|item| !item.is_empty())
                .map(ToOwned::to_owned)
                .collect(),
        )
    }

    fn epoch(&self) -> Option<Epoch> {
        self.parsed("epoch").and_then(Epoch::new)
    }

    fn key(&self) -> Option<IdempotencyKey> {
        Some(IdempotencyKey {
            client: ClientId(u128::from_str_radix(self.0.get("client_id")?, 16).ok()?),
            sequence: self.parsed("sequence")?,
            first_sent: TenantTime(self.parsed("first_sent_ms")?),
        })
    }
}
