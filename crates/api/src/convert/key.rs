//! Validation of keys, values, TTLs, and the bounds of increments and appends.

use stead_types::{
    Error, TenantTime,
    limits::{BATCH_GET_KEYS_MAX, INCREMENT_WINDOW_MS_MAX, KEY_LEN_MAX, TTL_MS_MAX, VALUE_LEN_MAX},
};

/// Checks a key of the field `field`: 1 to [`KEY_LEN_MAX`] bytes.
pub fn key(field: &str, key: &[u8]) -> Result<(), Error> {
    match key.len() {
        0 => Err(Error::invalid(
            field,
            format!("{field}: a key has at least one byte, this one is empty"),
        )),
        len if len > KEY_LEN_MAX => Err(Error::invalid(
            field,
            format!("{field}: a key has at most {KEY_LEN_MAX} bytes, this one has {len}; shorten it or use its hash"),
        )),
        _ => Ok(()),
    }
}

/// Checks a bound or prefix of a range: at most [`KEY_LEN_MAX`] bytes, empty where there is none.
pub fn bound(field: &str, bound: &[u8]) -> Result<(), Error> {
    if bound.is_empty() { Ok(()) } else { key(field, bound) }
}

/// Checks a value of the field `field`: at most [`VALUE_LEN_MAX`] bytes.
pub fn value(field: &str, value: &[u8]) -> Result<(), Error> {
    let len = value.len();
    if len <= VALUE_LEN_MAX {
        return Ok(());
    }
    let message =
        format!("{field}: a value has at most {VALUE_LEN_MAX} bytes, this one has {len}; split it over several keys");
    Err(Error::invalid(field, message))
}

/// Checks the bytes of an append, and returns the longest length that the value may reach. `at` is the prefix of the
/// fields' names in errors.
pub fn append(at: &str, value: &[u8], max_length: u32) -> Result<u32, Error> {
    let field = format!("{at}value");
    if value.is_empty() {
        let message = format!("{field}: there is nothing to append; an append has at least one byte");
        return Err(Error::invalid(field, message));
    }
    self::value(&field, value)?;
    match max_length {
        0 => Ok(VALUE_LEN_MAX as u32),
        max if max as usize <= VALUE_LEN_MAX => Ok(max),
        max => {
            let field = format!("{at}max_length");
            let message =
                format!("{field}: at most {VALUE_LEN_MAX}, the longest value, not {max}; 0 means the longest value");
            Err(Error::invalid(field, message))
        }
    }
}

/// Checks the window of an increment, and returns it in milliseconds.
pub fn window(field: &str, window: Option<prost_types::Duration>) -> Result<Option<u64>, Error> {
    let limit = format!("a window is a whole number of milliseconds, 1 to {INCREMENT_WINDOW_MS_MAX} (366 days)");
    millis(window, INCREMENT_WINDOW_MS_MAX).ok_or_else(|| Error::invalid(field, format!("{field}: {limit}")))
}

/// Checks that the bounds of an increment, the ceiling being the field `field`, do not contradict each other.
pub fn increment_bounds(field: &str, floor: Option<i64>, ceiling: Option<i64>) -> Result<(), Error> {
    match (floor, ceiling) {
        (Some(floor), Some(ceiling)) if ceiling < floor => Err(Error::invalid(
            field,
            format!("{field}: {ceiling} is below the floor, {floor}; nothing could ever be admitted"),
        )),
        _ => Ok(()),
    }
}

/// Checks the keys of a `BatchGet`: 1 to [`BATCH_GET_KEYS_MAX`].
pub fn keys(keys: &[bytes::Bytes]) -> Result<(), Error> {
    match keys.len() {
        0 => return Err(Error::invalid("keys", "keys: name at least one key")),
        len if len > BATCH_GET_KEYS_MAX => {
            let message = format!("keys: at most {BATCH_GET_KEYS_MAX} keys a request, not {len}; split it");
            return Err(Error::invalid("keys", message));
        }
        _ => {}
    }
    keys.iter()
        .enumerate()
        .try_for_each(|(at, one)| key(&format!("keys[{at}]"), one))
}

/// Checks the TTL of a key, and returns it in milliseconds.
pub fn ttl(field: &str, ttl: Option<prost_types::Duration>) -> Result<Option<u64>, Error> {
    let limit = format!("a TTL is a whole number of milliseconds, 1 to {TTL_MS_MAX} (3660 days)");
    let given = ttl.map(shown).unwrap_or_default();
    let message = || format!("{field}: {limit}, not {given}; leave it out for a key that does not expire");
    millis(ttl, TTL_MS_MAX).ok_or_else(|| Error::invalid(field, message()))
}

/// Formats a duration as the request has it, which may be out of range.
fn shown(duration: prost_types::Duration) -> String {
    let sign = if duration.seconds < 0 || duration.nanos < 0 {
        "-"
    } else {
        ""
    };
    let (seconds, nanos) = (duration.seconds.unsigned_abs(), duration.nanos.unsigned_abs());
    let fraction = format!("{nanos:09}");
    match fraction.trim_end_matches('0') {
        "" => format!("{sign}{seconds}s"),
        fraction => format!("{sign}{seconds}.{fraction}s"),
    }
}

/// Reads a duration of whole milliseconds from 1 to `max`; `None` for any other value.
fn millis(duration: Option<prost_types::Duration>, max: u64) -> Option<Option<u64>> {
    let Some(duration) = duration else { return Some(None) };
    let duration = super::read::to_duration(duration)?;
    let millis = u64::try_from(duration.as_millis()).ok()?;
    let is_whole = duration.subsec_nanos() % 1_000_000 == 0 && (1..=max).contains(&millis);
    is_whole.then_some(Some(millis))
}

/// Returns the timestamp message of a tenant's time.
pub fn from_tenant_time(time: TenantTime) -> prost_types::Timestamp {
    prost_types::Timestamp {
        seconds: i64::try_from(time.0 / 1000).unwrap_or(i64::MAX),
        nanos: i32::try_from((time.0 % 1000) * 1_000_000).unwrap_or(0),
    }
}

/// Reads a tenant's time from a timestamp message.
pub fn tenant_time(time: prost_types::Timestamp) -> TenantTime {
    let millis = time
        .seconds
        .saturating_mul(1000)
        .saturating_add(i64::from(time.nanos) / 1_000_000);
    TenantTime(u64::try_from(millis).unwrap_or(0))
}
