//! Counters: signed 64-bit numbers in values, written in decimal, so that every language and every person can read
//! them.

use stead_types::TenantTime;

use super::{apply_result::ValueError, command::Increment};

/// Outcome of an increment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum IncrementOutcome {
    /// The new value.
    Value(i64),
    /// The bound would be passed; nothing changes. Carries the current value.
    BoundReached(i64),
}

/// Parses a counter.
pub(super) fn read(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// Formats a counter.
pub(super) fn write(number: i64) -> String {
    number.to_string()
}

/// Adds to the value that a key has held since a time; a missing key holds zero.
///
/// A bound stops only what moves towards it: a counter that is above its ceiling can be decremented.
pub(super) fn add(
    held: Option<(&[u8], TenantTime)>,
    increment: Increment,
    now: TenantTime,
) -> Result<IncrementOutcome, ValueError> {
    let number = match held {
        None => 0,
        Some((bytes, since)) => {
            let number = read(bytes).ok_or(ValueError::NotANumber)?;
            let is_over = |window: u64| since.0 / window < now.0 / window;
            if increment.window.is_some_and(is_over) {
                0
            } else {
                number
            }
        }
    };
    // In 128 bits no sum overflows before it is compared with a bound.
    let sum = i128::from(number) + i128::from(increment.delta);
    let is_above = increment.delta > 0 && increment.ceiling.is_some_and(|ceiling| sum > ceiling.into());
    let is_below = increment.delta < 0 && increment.floor.is_some_and(|floor| sum < floor.into());
    if is_above || is_below {
        return Ok(IncrementOutcome::BoundReached(number));
    }
    i64::try_from(sum)
        .map(IncrementOutcome::Value)
        .map_err(|_| ValueError::Overflow { number })
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: TenantTime = TenantTime(10_000);

    fn by(delta: i64) -> Increment {
        Increment {
            delta,
            ..Increment::default()
        }
    }

    fn added(held: &str, increment: Increment) -> Result<IncrementOutcome, ValueError> {
        add(Some((held.as_bytes(), NOW)), increment, NOW)
    }

    #[test]
    fn increment_of_missing_key_starts_at_zero() {
        assert_eq!(add(None, by(5), NOW), Ok(IncrementOutcome::Value(5)));
        assert_eq!(add(None, by(-5), NOW), Ok(IncrementOutcome::Value(-5)));
    }

    #[test]
    fn only_decimal_64_bit_values_are_counters() {
        for held in ["", " 1", "1.5", "0x1", "9223372036854775808", "one", "--1"] {
            assert_eq!(added(held, by(1)), Err(ValueError::NotANumber), "{held}");
        }
        assert_eq!(add(Some((&[0xff], NOW)), by(1), NOW), Err(ValueError::NotANumber));
        assert_eq!(
            added("-9223372036854775808", by(1)),
            Ok(IncrementOutcome::Value(i64::MIN + 1))
        );
    }

    #[test]
    fn overflow_is_rejected_with_current_value() {
        let (max, min) = (i64::MAX.to_string(), i64::MIN.to_string());
        assert_eq!(added(&max, by(1)), Err(ValueError::Overflow { number: i64::MAX }));
        assert_eq!(added(&min, by(-1)), Err(ValueError::Overflow { number: i64::MIN }));
        assert_eq!(added(&max, by(0)), Ok(IncrementOutcome::Value(i64::MAX)));
    }

    #[test]
    fn bound_is_reached_and_never_passed() {
        let bounded = |delta| Increment {
            floor: Some(0),
            ceiling: Some(10),
            ..by(delta)
        };
        assert_eq!(added("9", bounded(1)), Ok(IncrementOutcome::Value(10)));
        assert_eq!(added("9", bounded(2)), Ok(IncrementOutcome::BoundReached(9)));
        assert_eq!(added("2", bounded(-2)), Ok(IncrementOutcome::Value(0)));
        assert_eq!(added("2", bounded(-3)), Ok(IncrementOutcome::BoundReached(2)));
        // Already beyond a bound: moving back is allowed, moving further is not.
        assert_eq!(added("15", bounded(-1)), Ok(IncrementOutcome::Value(14)));
        assert_eq!(added("15", bounded(1)), Ok(IncrementOutcome::BoundReached(15)));
        assert_eq!(added("-3", bounded(1)), Ok(IncrementOutcome::Value(-2)));
    }

    #[test]
    fn bound_is_checked_before_overflow() {
        let far = Increment {
            floor: Some(0),
            ceiling: Some(10),
            ..by(i64::MAX)
        };
        assert_eq!(added("1", far), Ok(IncrementOutcome::BoundReached(1)));
        let below = Increment { delta: i64::MIN, ..far };
        assert_eq!(added("-1", below), Ok(IncrementOutcome::BoundReached(-1)));
    }

    #[test]
    fn new_window_starts_at_zero() {
        let in_window = Increment {
            ceiling: Some(3),
            window: Some(1_000),
            ..by(1)
        };
        let since = |since| add(Some((b"3", TenantTime(since))), in_window, TenantTime(2_000));
        assert_eq!(since(1_999), Ok(IncrementOutcome::Value(1)));
        assert_eq!(since(2_000), Ok(IncrementOutcome::BoundReached(3)));
        assert_eq!(since(0), Ok(IncrementOutcome::Value(1)));
    }
}
