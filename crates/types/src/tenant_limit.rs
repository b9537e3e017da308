//! Limits of a tenant, which keep it from using the resources of others.

use std::{fmt, ops::RangeInclusive, str::FromStr};

/// A limited resource of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TenantLimit {
    /// Operations per second, at each node that serves the tenant.
    OperationsPerSecond,
    /// Bytes per second at each node that serves the tenant: request bytes of writes, response bytes of reads and of
    /// writes that return data.
    BytesPerSecond,
    /// Bytes of live keys and their values.
    StoredBytes,
    /// Live keys.
    Keys,
    /// Open watches at one node.
    Watches,
    /// Clients with idempotency windows.
    Clients,
    /// Operations that a node has admitted and not yet answered.
    InFlight,
    /// Retention of overwritten versions, in milliseconds.
    HistoryAge,
    /// Retention of overwritten versions, in revisions.
    HistoryCount,
    /// Outcomes in all idempotency windows.
    Outcomes,
}

/// Unit of a limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LimitUnit {
    /// Number of items.
    Count,
    /// Bytes.
    Bytes,
    /// Milliseconds.
    Milliseconds,
}

impl LimitUnit {
    /// Returns the suffix of a number in this unit.
    fn suffix(self) -> &'static str {
        match self {
            Self::Count => "",
            Self::Bytes => " bytes",
            Self::Milliseconds => " milliseconds",
        }
    }
}

/// Error of an unknown limit or of a value out of its range.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidTenantLimit {
    /// The limit does not exist.
    #[error("there is no limit {0:?}, but {names}", names = TenantLimit::names())]
    Unknown(String),
    /// The value is too small or too large.
    #[error("{limit} is at least {min} and at most {max}{unit}, not {value}", min = limit.range().start(), max = limit.range().end(), unit = limit.unit().suffix())]
    Range {
        /// The limit.
        limit: TenantLimit,
        /// The value.
        value: u64,
    },
}

const SECOND_MS: u64 = 1_000;
const DAY_MS: u64 = 24 * 3_600 * SECOND_MS;

impl TenantLimit {
    /// All limits.
    pub const ALL: [Self; 10] = [
        Self::OperationsPerSecond,
        Self::BytesPerSecond,
        Self::StoredBytes,
        Self::Keys,
        Self::Watches,
        Self::Clients,
        Self::InFlight,
        Self::HistoryAge,
        Self::HistoryCount,
        Self::Outcomes,
    ];

    /// Returns the name in requests, errors and metrics.
    pub fn name(self) -> &'static str {
        match self {
            Self::OperationsPerSecond => "operations_per_second",
            Self::BytesPerSecond => "bytes_per_second",
            Self::StoredBytes => "stored_bytes",
            Self::Keys => "keys",
            Self::Watches => "watches",
            Self::Clients => "clients",
            Self::InFlight => "in_flight",
            Self::HistoryAge => "history_age",
            Self::HistoryCount => "history_count",
            Self::Outcomes => "outcomes",
        }
    }

    /// Returns the unit of the limit.
    pub fn unit(self) -> LimitUnit {
        match self {
            Self::BytesPerSecond | Self::StoredBytes => LimitUnit::Bytes,
            Self::HistoryAge => LimitUnit::Milliseconds,
            Self::OperationsPerSecond
            | Self::Keys
            | Self::Watches
            | Self::Clients
            | Self::InFlight
            | Self::HistoryCount
            | Self::Outcomes => LimitUnit::Count,
        }
    }

    /// Returns the default for tenants without a limit of their own; `None`: unlimited.
    pub fn default_value(self) -> Option<u64> {
        match self {
            Self::OperationsPerSecond => Some(100_000),
            Self::BytesPerSecond => Some(256 << 20),
            Self::StoredBytes => Some(64 << 30),
            Self::Keys => Some(100_000_000),
            Self::Watches => Some(10_000),
            Self::Clients => Some(4_096),
            Self::InFlight => Some(16_384),
            Self::HistoryAge => Some(600 * SECOND_MS),
            Self::HistoryCount => None,
            // A minute of 34,952 a second; 128 MiB of memory when it is full.
            Self::Outcomes => Some(2 << 20),
        }
    }

    /// Returns the range of values that can be set.
    pub fn range(self) -> RangeInclusive<u64> {
        match self {
            Self::OperationsPerSecond => 1..=1_000_000_000,
            Self::BytesPerSecond => 1..=1 << 40,
            Self::StoredBytes => 0..=1 << 50,
            Self::Keys => 0..=1 << 40,
            Self::Watches => 0..=1_000_000,
            Self::Clients => 1..=65_536,
            Self::InFlight => 1..=1_000_000,
            Self::HistoryAge => SECOND_MS..=366 * DAY_MS,
            Self::HistoryCount => 1..=1 << 39,
            Self::Outcomes => 1_000..=8 << 20,
        }
    }

    fn names() -> String {
        Self::ALL.map(Self::name).join(", ")
    }

    fn index(self) -> usize {
        self as usize
    }
}

impl fmt::Display for TenantLimit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl FromStr for TenantLimit {
    type Err = InvalidTenantLimit;

    /// Parses a name; on a command line its words are joined by `-`.
    fn from_str(name: &str) -> Result<Self, Self::Err> {
        let asked = name.replace('-', "_");
        let found = Self::ALL.into_iter().find(|limit| limit.name() == asked);
        found.ok_or_else(|| InvalidTenantLimit::Unknown(name.to_owned()))
    }
}

/// Limits set for one tenant; the others have their defaults.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct TenantLimits([Option<u64>; TenantLimit::ALL.len()]);

impl TenantLimits {
    /// Returns the default limits.
    pub fn defaults() -> Self {
        Self(TenantLimit::ALL.map(TenantLimit::default_value))
    }

    /// Sets a limit.
    ///
    /// # Errors
    ///
    /// The value is out of the limit's range.
    pub fn set(&mut self, limit: TenantLimit, value: u64) -> Result<(), InvalidTenantLimit> {
        if !limit.range().contains(&value) {
            return Err(InvalidTenantLimit::Range { limit, value });
        }
        self.0[limit.index()] = Some(value);
        Ok(())
    }

    /// Resets a limit to its default.
    pub fn clear(&mut self, limit: TenantLimit) {
        self.0[limit.index()] = None;
    }

    /// Returns the value that was set, if one was.
    pub fn get(&self, limit: TenantLimit) -> Option<u64> {
        self.0[limit.index()]
    }

    /// Returns the effective value: the one set, else the default; `None`: unlimited.
    pub fn effective(&self, limit: TenantLimit) -> Option<u64> {
        self.get(limit).or_else(|| limit.default_value())
    }

    /// Returns all limits that were set.
    pub fn iter(&self) -> impl Iterator<Item = (TenantLimit, u64)> + '_ {
        TenantLimit::ALL
            .into_iter()
            .filter_map(|limit| Some((limit, self.get(limit)?)))
    }

    /// Tells whether no limit is set.
    pub fn is_empty(&self) -> bool {
        self.iter().next().is_none()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_has_index_name_and_default_in_range() {
        for (index, limit) in TenantLimit::ALL.into_iter().enumerate() {
            assert_eq!(limit.index(), index);
            assert_eq!(limit.name().parse(), Ok(limit));
            assert_eq!(limit.name().replace('_', "-").parse(), Ok(limit));
            assert!(limit.default_value().is_none_or(|value| limit.range().contains(&value)));
        }
        let unknown = "operations".parse::<TenantLimit>().unwrap_err().to_string();
        assert!(
            unknown.contains("\"operations\", but operations_per_second, bytes_per_second"),
            "{unknown}"
        );
    }

    #[test]
    fn limit_is_set_within_range_and_reset() {
        let mut limits = TenantLimits::default();
        for limit in TenantLimit::ALL {
            let (min, max) = (*limit.range().start(), *limit.range().end());
            for value in [min, max] {
                assert_eq!(limits.set(limit, value), Ok(()));
                assert_eq!((limits.get(limit), limits.effective(limit)), (Some(value), Some(value)));
            }
            for value in [min.checked_sub(1), Some(max + 1)].into_iter().flatten() {
                assert_eq!(
                    limits.set(limit, value),
                    Err(InvalidTenantLimit::Range { limit, value })
                );
            }
            assert_eq!(limits.get(limit), Some(max), "a refusal changes nothing");
            limits.clear(limit);
            assert_eq!(limits.effective(limit), limit.default_value());
        }
        assert!(limits.is_empty());
        let wrong = limits.set(TenantLimit::Clients, 70_000).unwrap_err().to_string();
        assert_eq!(wrong, "clients is at least 1 and at most 65536, not 70000");
    }
}
