//! Quota of a tenant's stored data, and the growth by a write. Pure.

use bytes::Bytes;
use stead_state::{
    directory::Tenant,
    shard::command::{Effect, Operation},
};
use stead_types::TenantLimit;

use super::LimitExceeded;

/// Longest decimal text of a 64-bit number.
const NUMBER_LEN_MAX: u64 = 20;

/// Stored data of a tenant.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct StoredUsage {
    /// Live keys.
    pub(crate) keys: u64,
    /// Bytes of them and their values.
    pub(crate) bytes: u64,
}

/// Upper bound of what a write adds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Growth {
    /// Keys.
    pub(crate) keys: u64,
    /// Bytes of keys and values.
    pub(crate) bytes: u64,
}

impl Growth {
    /// Returns the growth by a write at most, whatever its key holds now; none if it can only remove.
    pub(crate) fn at_most(operation: &Operation) -> Self {
        Self::of(operation, None)
    }

    /// Returns the growth by a write to a key that holds `now` bytes, or that does not exist. A counter that becomes
    /// longer by some digits is not counted.
    pub(crate) fn of(operation: &Operation, now: Option<u64>) -> Self {
        let key = operation.key.len() as u64;
        let new = |len: u64| Self {
            keys: 1,
            bytes: key + len,
        };
        let longer = |by: u64| Self { keys: 0, bytes: by };
        match (&operation.effect, now) {
            (Effect::Delete, _) => Self::default(),
            (Effect::Put { value, .. }, None) => new(len(value)),
            (Effect::Put { value, .. }, Some(now)) => longer(len(value).saturating_sub(now)),
            (Effect::Increment(_), None) => new(NUMBER_LEN_MAX),
            (Effect::Increment(_), Some(_)) => longer(0),
            (Effect::Append { bytes, .. }, None) => new(len(bytes)),
            (Effect::Append { bytes, .. }, Some(_)) => longer(len(bytes)),
        }
    }

    /// Returns the sum.
    pub(crate) fn plus(self, other: Self) -> Self {
        Self {
            keys: self.keys + other.keys,
            bytes: self.bytes + other.bytes,
        }
    }

    /// Returns the maximum of each field.
    pub(crate) fn max(self, other: Self) -> Self {
        Self {
            keys: self.keys.max(other.keys),
            bytes: self.bytes.max(other.bytes),
        }
    }

    pub(super) fn minus(self, other: Self) -> Self {
        Self {
            keys: self.keys.saturating_sub(other.keys),
            bytes: self.bytes.saturating_sub(other.bytes),
        }
    }

    /// Tells whether it is zero.
    pub(crate) fn is_nothing(self) -> bool {
        self == Self::default()
    }
}

fn len(bytes: &Bytes) -> u64 {
    bytes.len() as u64
}

/// Checks that stored data, growth in flight and new growth together are within the tenant's limits. Zero growth is
/// always within them.
pub(super) fn check(
    tenant: &Tenant,
    stored: StoredUsage,
    in_flight: Growth,
    growth: Growth,
) -> Result<(), LimitExceeded> {
    let amounts = [
        (TenantLimit::Keys, stored.keys, in_flight.keys, growth.keys),
        (TenantLimit::StoredBytes, stored.bytes, in_flight.bytes, growth.bytes),
    ];
    for (limit, stored, in_flight, growth) in amounts {
        let Some(max) = tenant.limit(limit) else { continue };
        if growth > 0 && stored.saturating_add(growth) > max {
            return Err(LimitExceeded::full(limit, max));
        }
        if growth > 0 && stored.saturating_add(in_flight).saturating_add(growth) > max {
            return Err(LimitExceeded::busy(limit, max));
        }
    }
    Ok(())
}
