//! Keys of a credit account, and the records in them.

use bytes::Bytes;
use stead_types::{Error, ErrorKind, TenantTime};

use super::text;
use crate::Item;

/// Longest name of an account, in bytes.
const ACCOUNT_LEN_MAX: usize = 1_024;
/// Longest id of a reservation or a grant, in bytes.
const ID_LEN_MAX: usize = 256;

/// Names of an account's keys.
#[derive(Clone, Debug)]
pub(super) struct Keys {
    account: String,
}

impl Keys {
    pub(super) fn new(account: &str) -> Result<Self, Error> {
        Ok(Self {
            account: checked("account", account, ACCOUNT_LEN_MAX)?.to_owned(),
        })
    }

    pub(super) fn balance(&self) -> Bytes {
        self.key("balance")
    }

    pub(super) fn spent(&self) -> Bytes {
        self.key("spent")
    }

    pub(super) fn granted(&self) -> Bytes {
        self.key("granted")
    }

    pub(super) fn grant(&self, id: &str) -> Result<Bytes, Error> {
        Ok(self.key(&format!("grant/{}", checked("id", id, ID_LEN_MAX)?)))
    }

    pub(super) fn reservation(&self, id: &str) -> Result<Bytes, Error> {
        Ok(self.known_reservation(checked("id", id, ID_LEN_MAX)?))
    }

    /// Returns the key of an existing reservation.
    pub(super) fn known_reservation(&self, id: &str) -> Bytes {
        self.key(&format!("reservation/{id}"))
    }

    /// Returns the prefix of all keys of [`Keys::due`].
    pub(super) fn dues(&self) -> Bytes {
        self.key("due/")
    }

    /// Returns a key that sorts by deadline.
    pub(super) fn due(&self, deadline: TenantTime, id: &str) -> Bytes {
        self.key(&format!("due/{:020}/{id}", deadline.0))
    }

    /// Parses the deadline of a key of [`Keys::due`].
    pub(super) fn deadline(&self, item: &Item) -> Result<TenantTime, Error> {
        Ok(self.due_parts(item)?.0)
    }

    /// Parses the id of a key of [`Keys::due`].
    pub(super) fn id(&self, item: &Item) -> Result<String, Error> {
        Ok(self.due_parts(item)?.1.to_owned())
    }

    fn due_parts<'a>(&self, item: &'a Item) -> Result<(TenantTime, &'a str), Error> {
        let parts = || {
            let rest = item.key.strip_prefix(self.dues().as_ref())?;
            let (deadline, id) = std::str::from_utf8(rest).ok()?.split_once('/')?;
            Some((TenantTime(deadline.parse().ok()?), id))
        };
        parts().ok_or_else(|| unexpected_value(item))
    }

    fn key(&self, name: &str) -> Bytes {
        format!("{}/{name}", self.account).into()
    }
}

/// State of a reservation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum ReservationRecord {
    /// The estimate is set aside until the deadline.
    Open { estimate: u64, deadline: TenantTime },
    /// This amount was spent.
    Settled { actual: u64 },
    /// The deadline passed, and the estimate was returned to the balance.
    Returned { estimate: u64 },
}

impl ReservationRecord {
    pub(super) fn text(self) -> String {
        match self {
            Self::Open { estimate, deadline } => format!("open {estimate} {}", deadline.0),
            Self::Settled { actual } => format!("settled {actual}"),
            Self::Returned { estimate } => format!("returned {estimate}"),
        }
    }

    pub(super) fn read(item: &Item) -> Result<Self, Error> {
        Self::parse(text(&item.value).unwrap_or_default()).ok_or_else(|| unexpected_value(item))
    }

    fn parse(text: &str) -> Option<Self> {
        let words: Vec<&str> = text.split(' ').collect();
        let record = match words.as_slice() {
            ["open", estimate, deadline] => Self::Open {
                estimate: estimate.parse().ok()?,
                deadline: TenantTime(deadline.parse().ok()?),
            },
            ["settled", actual] => Self::Settled {
                actual: actual.parse().ok()?,
            },
            ["returned", estimate] => Self::Returned {
                estimate: estimate.parse().ok()?,
            },
            _ => return None,
        };
        Some(record)
    }
}

/// Parses the number that a key holds.
pub(super) fn number<N: std::str::FromStr>(item: &Item) -> Result<N, Error> {
    let number = text(&item.value).and_then(|text| text.parse().ok());
    number.ok_or_else(|| unexpected_value(item))
}

/// Returns the error for a key below the account's prefix that somebody else has written.
pub(super) fn unexpected_value(item: &Item) -> Error {
    let (key, value) = (item.key.escape_ascii(), item.value.escape_ascii());
    let message = format!("the key {key} holds {value}, which no account of credits writes there: use another prefix");
    Error::new(ErrorKind::Conflict, message)
}

fn checked<'a>(field: &str, name: &'a str, len_max: usize) -> Result<&'a str, Error> {
    if name.is_empty() || name.len() > len_max {
        let message = format!("{field}: 1 to {len_max} bytes, not {}", name.len());
        return Err(Error::invalid(field, message));
    }
    Ok(name)
}

#[cfg(test)]
mod tests {
    use stead_types::Revision;

    use super::*;

    fn item(key: Bytes, value: &str) -> Item {
        Item {
            key,
            value: value.to_owned().into(),
            created: Revision::ZERO,
            modified: Revision::ZERO,
            version: 1,
            expires: None,
        }
    }

    #[test]
    fn reservation_record_round_trips_and_rejects_other_text() {
        let records = [
            ReservationRecord::Open {
                estimate: 7,
                deadline: TenantTime(99),
            },
            ReservationRecord::Settled { actual: 0 },
            ReservationRecord::Returned { estimate: 7 },
        ];
        for record in records {
            assert_eq!(ReservationRecord::read(&item("k".into(), &record.text())), Ok(record));
        }
        for wrong in ["", "open 7", "open 7 x", "settled -1", "gone", "settled 1 2"] {
            let error = ReservationRecord::read(&item("credits/reservation/a".into(), wrong)).unwrap_err();
            assert!(error.message.contains("credits/reservation/a"), "{error}");
        }
    }

    #[test]
    fn due_keys_sort_by_deadline() {
        let keys = Keys::new("credits").unwrap();
        let due = [(9, "b"), (10, "a/with/slashes"), (1_000_000, "")];
        let written: Vec<Bytes> = due.iter().map(|(time, id)| keys.due(TenantTime(*time), id)).collect();
        assert!(written.is_sorted());
        for ((time, id), key) in due.into_iter().zip(written) {
            let item = item(key, "5");
            assert_eq!(keys.deadline(&item), Ok(TenantTime(time)));
            assert_eq!(keys.id(&item), Ok(id.to_owned()));
            assert_eq!(number(&item), Ok(5_u64));
        }
        assert!(keys.deadline(&item("credits/due/x".into(), "5")).is_err());
        assert_eq!(
            keys.reservation("").unwrap_err().kind,
            ErrorKind::Invalid { field: "id".into() }
        );
    }
}
