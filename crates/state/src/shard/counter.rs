//! Numbers in values: signed, of 64 bits, written in decimal, so that every language and every person can read them.

use stead_types::TenantTime;

use super::{answer::Unfit, command::Increment};

/// What adding came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    /// The new number.
    To(i64),
    /// Nothing: a bound would be passed. The number as it is.
    BoundReached(i64),
}

/// Reads a number.
pub(super) fn read(bytes: &[u8]) -> Option<i64> {
    std::str::from_utf8(bytes).ok()?.parse().ok()
}

/// Writes a number.
pub(super) fn write(number: i64) -> String {
    number.to_string()
}

/// Adds to what a key holds since a time; a key that does not exist holds zero.
///
/// A bound stops what moves towards it: a number that is beyond its ceiling already can be decremented.
pub(super) fn add(held: Option<(&[u8], TenantTime)>, increment: Increment, now: TenantTime) -> Result<Added, Unfit> {
    let number = match held {
        None => 0,
        Some((bytes, since)) => {
            let number = read(bytes).ok_or(Unfit::NotANumber)?;
            let is_over = |window: u64| since.0 / window < now.0 / window;
            if increment.window.is_some_and(is_over) {
                0
            } else {
                number
            }
        }
    };
    // In 128 bits no sum is too large to be held against a bound.
    let sum = i128::from(number) + i128::from(increment.delta);
    let is_above = increment.delta > 0 && increment.ceiling.is_some_and(|ceiling| sum > ceiling.into());
    let is_below = increment.delta < 0 && increment.floor.is_some_and(|floor| sum < floor.into());
    if is_above || is_below {
        return Ok(Added::BoundReached(number));
    }
    i64::try_from(sum)
        .map(Added::To)
        .map_err(|_| Unfit::Overflow { number })
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

    fn added(held: &str, increment: Increment) -> Result<Added, Unfit> {
        add(Some((held.as_bytes(), NOW)), increment, NOW)
    }

    #[test]
    fn a_missing_key_counts_from_zero() {
        assert_eq!(add(None, by(5), NOW), Ok(Added::To(5)));
        assert_eq!(add(None, by(-5), NOW), Ok(Added::To(-5)));
    }

    #[test]
    fn only_decimal_numbers_of_64_bits_are_numbers() {
        for held in ["", " 1", "1.5", "0x1", "9223372036854775808", "one", "--1"] {
            assert_eq!(added(held, by(1)), Err(Unfit::NotANumber), "{held}");
        }
        assert_eq!(add(Some((&[0xff], NOW)), by(1), NOW), Err(Unfit::NotANumber));
        assert_eq!(added("-9223372036854775808", by(1)), Ok(Added::To(i64::MIN + 1)));
    }

    #[test]
    fn a_sum_beyond_64_bits_is_refused_with_the_number() {
        let (max, min) = (i64::MAX.to_string(), i64::MIN.to_string());
        assert_eq!(added(&max, by(1)), Err(Unfit::Overflow { number: i64::MAX }));
        assert_eq!(added(&min, by(-1)), Err(Unfit::Overflow { number: i64::MIN }));
        assert_eq!(added(&max, by(0)), Ok(Added::To(i64::MAX)));
    }

    #[test]
    fn a_bound_is_reached_and_never_passed() {
        let bounded = |delta| Increment {
            floor: Some(0),
            ceiling: Some(10),
            ..by(delta)
        };
        assert_eq!(added("9", bounded(1)), Ok(Added::To(10)));
        assert_eq!(added("9", bounded(2)), Ok(Added::BoundReached(9)));
        assert_eq!(added("2", bounded(-2)), Ok(Added::To(0)));
        assert_eq!(added("2", bounded(-3)), Ok(Added::BoundReached(2)));
        // Beyond a bound already: back is allowed, further is not.
        assert_eq!(added("15", bounded(-1)), Ok(Added::To(14)));
        assert_eq!(added("15", bounded(1)), Ok(Added::BoundReached(15)));
        assert_eq!(added("-3", bounded(1)), Ok(Added::To(-2)));
    }

    #[test]
    fn a_bound_is_reached_before_a_sum_is_too_large() {
        let far = Increment {
            floor: Some(0),
            ceiling: Some(10),
            ..by(i64::MAX)
        };
        assert_eq!(added("1", far), Ok(Added::BoundReached(1)));
        let below = Increment { delta: i64::MIN, ..far };
        assert_eq!(added("-1", below), Ok(Added::BoundReached(-1)));
    }

    #[test]
    fn a_window_begins_at_zero() {
        let in_window = Increment {
            ceiling: Some(3),
            window: Some(1_000),
            ..by(1)
        };
        let since = |since| add(Some((b"3", TenantTime(since))), in_window, TenantTime(2_000));
        assert_eq!(since(1_999), Ok(Added::To(1)));
        assert_eq!(since(2_000), Ok(Added::BoundReached(3)));
        assert_eq!(since(0), Ok(Added::To(1)));
    }
}
