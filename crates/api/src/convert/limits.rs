//! Conversions of tenants' limits.

use std::time::Duration;

use stead_types::{Error, LimitUnit, TenantLimit, TenantLimits};

use super::read;
use crate::proto::admin::v1;

/// Reads the limits that a request sets.
pub fn limits(message: Option<v1::Limits>) -> Result<TenantLimits, Error> {
    let mut limits = TenantLimits::default();
    let message = message.unwrap_or_default();
    for limit in TenantLimit::ALL {
        let Some(value) = field(&message, limit)? else {
            continue;
        };
        let name = format!("limits.{limit}");
        limits
            .set(limit, value)
            .map_err(|why| Error::invalid(&name, format!("limits.{why}{}", unit(limit))))?;
    }
    Ok(limits)
}

fn field(message: &v1::Limits, limit: TenantLimit) -> Result<Option<u64>, Error> {
    Ok(match limit {
        TenantLimit::OperationsPerSecond => message.operations_per_second,
        TenantLimit::BytesPerSecond => message.bytes_per_second,
        TenantLimit::StoredBytes => message.stored_bytes,
        TenantLimit::Keys => message.keys,
        TenantLimit::Watches => message.watches,
        TenantLimit::Clients => message.clients,
        TenantLimit::InFlight => message.in_flight,
        TenantLimit::HistoryAge => message.history_age.map(age).transpose()?,
        TenantLimit::HistoryCount => message.history_count,
        TenantLimit::Outcomes => message.outcomes,
    })
}

fn age(age: prost_types::Duration) -> Result<u64, Error> {
    let millis = read::to_duration(age).filter(|age| age.subsec_nanos() % 1_000_000 == 0);
    millis
        .and_then(|age| u64::try_from(age.as_millis()).ok())
        .ok_or_else(|| {
            let message = "limits.history_age: a whole number of milliseconds that is not negative";
            Error::invalid("limits.history_age", message)
        })
}

/// Returns the unit of a limit for error messages, where the limit's name does not contain it.
fn unit(limit: TenantLimit) -> &'static str {
    match limit.unit() {
        LimitUnit::Milliseconds => " (milliseconds)",
        LimitUnit::Count | LimitUnit::Bytes => "",
    }
}

/// Reads the names of limits that are to be reset to their defaults.
pub fn default_limits(names: &[String], set: &TenantLimits) -> Result<Vec<TenantLimit>, Error> {
    let limit = |(at, name): (usize, &String)| {
        let field = format!("default_limits[{at}]");
        let limit: TenantLimit = name
            .parse()
            .map_err(|why| Error::invalid(&field, format!("{field}: {why}")))?;
        if set.get(limit).is_some() {
            let message = format!("{field}: {limit} is set in the same request: leave out one of them");
            return Err(Error::invalid(&field, message));
        }
        Ok(limit)
    };
    names.iter().enumerate().map(limit).collect()
}

/// Returns the message of limits.
pub fn from_limits(limits: &TenantLimits) -> v1::Limits {
    let age = |millis| read::duration(Duration::from_millis(millis));
    v1::Limits {
        operations_per_second: limits.get(TenantLimit::OperationsPerSecond),
        bytes_per_second: limits.get(TenantLimit::BytesPerSecond),
        stored_bytes: limits.get(TenantLimit::StoredBytes),
        keys: limits.get(TenantLimit::Keys),
        watches: limits.get(TenantLimit::Watches),
        clients: limits.get(TenantLimit::Clients),
        in_flight: limits.get(TenantLimit::InFlight),
        history_age: limits.get(TenantLimit::HistoryAge).map(age),
        history_count: limits.get(TenantLimit::HistoryCount),
        outcomes: limits.get(TenantLimit::Outcomes),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_round_trip_through_message() {
        let mut all = TenantLimits::default();
        for limit in TenantLimit::ALL {
            all.set(limit, 1_001).unwrap();
            assert_eq!(limits(Some(from_limits(&all))), Ok(all));
        }
        assert_eq!(limits(None), Ok(TenantLimits::default()));
    }

    #[test]
    fn limit_out_of_bounds_is_refused_with_field() {
        let refused = |message: v1::Limits, field: &str, words: &str| {
            let error = limits(Some(message)).unwrap_err();
            assert_eq!(error, Error::invalid(field, error.message.clone()));
            assert!(
                error.message.starts_with(field) && error.message.contains(words),
                "{error}"
            );
        };
        let zero = v1::Limits {
            in_flight: Some(0),
            ..v1::Limits::default()
        };
        refused(zero, "limits.in_flight", "at least 1 and at most 1000000, not 0");
        for (seconds, words) in [
            (-1, "not negative"),
            (0, "at least 1000"),
            (400 * 24 * 3_600, "at most 31622400000"),
        ] {
            let age = v1::Limits {
                history_age: Some(prost_types::Duration { seconds, nanos: 0 }),
                ..v1::Limits::default()
            };
            refused(age, "limits.history_age", words);
        }
    }

    #[test]
    fn limit_both_set_and_defaulted_is_refused() {
        let mut set = TenantLimits::default();
        set.set(TenantLimit::Keys, 5).unwrap();
        let names = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let read = default_limits(&names(&["watches", "in_flight"]), &set);
        assert_eq!(read, Ok(vec![TenantLimit::Watches, TenantLimit::InFlight]));
        let both = default_limits(&names(&["watches", "keys"]), &set).unwrap_err();
        assert!(both.message.starts_with("default_limits[1]: keys is set"), "{both}");
        let unknown = default_limits(&names(&["size"]), &set).unwrap_err();
        assert!(
            unknown.message.contains("no limit \"size\", but operations_per_second"),
            "{unknown}"
        );
    }
}
