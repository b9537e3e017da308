//! Keys, values and conditions.

use stead_types::{
    Error, Revision,
    limits::{BATCH_GET_KEYS_MAX, KEY_LEN_MAX, VALUE_LEN_MAX, WINDOW_MS_MAX},
};

use super::id;
use crate::proto::v1;

/// What must hold for a write to happen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Precondition {
    /// The key's last change is this one.
    ModRevision(Revision),
    /// The key does not exist.
    MustNotExist,
}

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

/// Checks a value: at most [`VALUE_LEN_MAX`] bytes.
pub fn value(value: &[u8]) -> Result<(), Error> {
    let len = value.len();
    if len <= VALUE_LEN_MAX {
        return Ok(());
    }
    let message =
        format!("value: a value has at most {VALUE_LEN_MAX} bytes, this one has {len}; split it over several keys");
    Err(Error::invalid("value", message))
}

/// Checks what is appended, and returns the longest that the value may become.
pub fn append(value: &[u8], max_length: u32) -> Result<u32, Error> {
    if value.is_empty() {
        return Err(Error::invalid(
            "value",
            "value: there is nothing to append; an append has at least one byte",
        ));
    }
    self::value(value)?;
    match max_length {
        0 => Ok(VALUE_LEN_MAX as u32),
        max if max as usize <= VALUE_LEN_MAX => Ok(max),
        max => Err(Error::invalid(
            "max_length",
            format!("max_length: a value has at most {VALUE_LEN_MAX} bytes, not {max}; 0 stands for that"),
        )),
    }
}

/// Checks the window of an increment, and returns it in milliseconds.
pub fn window(window: Option<prost_types::Duration>) -> Result<Option<u64>, Error> {
    let Some(window) = window else { return Ok(None) };
    let window = std::time::Duration::try_from(window).unwrap_or_default();
    let millis = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
    if window.subsec_nanos() % 1_000_000 == 0 && (1..=WINDOW_MS_MAX).contains(&millis) {
        return Ok(Some(millis));
    }
    let message = format!("window: a window is a whole number of milliseconds, 1 to {WINDOW_MS_MAX} (366 days)");
    Err(Error::invalid("window", message))
}

/// Checks that the bounds of an increment do not contradict each other.
pub fn bounds(floor: Option<i64>, ceiling: Option<i64>) -> Result<(), Error> {
    match (floor, ceiling) {
        (Some(floor), Some(ceiling)) if ceiling < floor => Err(Error::invalid(
            "ceiling",
            format!("ceiling: {ceiling} is below the floor, {floor}; nothing could ever be admitted"),
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

/// Reads a precondition; an empty one is an error, because its sender believes that it protects something.
pub fn precondition(precondition: Option<v1::Precondition>) -> Result<Option<Precondition>, Error> {
    use v1::precondition::Condition;
    let Some(precondition) = precondition else {
        return Ok(None);
    };
    match precondition.condition {
        Some(Condition::ModRevision(revision)) => {
            let revision = id::revision("precondition.mod_revision", revision)?;
            Ok(Some(Precondition::ModRevision(revision)))
        }
        Some(Condition::MustNotExist(true)) => Ok(Some(Precondition::MustNotExist)),
        Some(Condition::MustNotExist(false)) | None => Err(Error::invalid(
            "precondition",
            "precondition: names no condition; set mod_revision, or must_not_exist to true, or leave it out",
        )),
    }
}

/// Writes a precondition.
pub fn from_precondition(precondition: Precondition) -> v1::Precondition {
    use v1::precondition::Condition;
    let condition = match precondition {
        Precondition::ModRevision(revision) => Condition::ModRevision(id::from_revision(revision)),
        Precondition::MustNotExist => Condition::MustNotExist(true),
    };
    v1::Precondition {
        condition: Some(condition),
    }
}
