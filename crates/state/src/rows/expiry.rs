//! EXPIRY: the keys of a copy that expire, in the order of their expiry times.
//!
//! Key: kind, group, install, tenant, copy, tenant time u64, then the key's bytes. Value: empty. There is one for
//! each live key with an expiry, and no other.

use bytes::Bytes;
use stead_types::{TenantTime, limits::KEY_LEN_MAX};

use super::{COPY_PREFIX_LEN, CopyPrefix, Order, Rows, Unreadable, kind};
use crate::codec::{Malformed, Reader};

/// Longest key of an expiry row, and of any row.
pub const KEY_ROW_LEN_MAX: usize = COPY_PREFIX_LEN + 8 + KEY_LEN_MAX;

/// Returns the key of a row.
pub fn key(copy: CopyPrefix, time: TenantTime, key: &[u8]) -> Bytes {
    copy.key(kind::EXPIRY, 8 + key.len()).u64(time.0).raw(key).finish()
}

/// Parses the time and the tenant's key from a row's key.
pub fn parse_key(row: Bytes) -> Result<(TenantTime, Bytes), Malformed> {
    let mut r = Reader::new(row, "expiry key");
    r.raw(COPY_PREFIX_LEN)?;
    let time = TenantTime(r.u64()?);
    Ok((time, r.rest()))
}

/// Returns the earliest expiry time of a copy's keys.
pub fn next(rows: &dyn Rows, copy: CopyPrefix) -> Result<Option<TenantTime>, Unreadable> {
    let range = copy.range(kind::EXPIRY);
    let first = rows.range(&range.start..&range.end, Order::Ascending).next();
    let Some((row, _)) = first.transpose()? else {
        return Ok(None);
    };
    Ok(Some(parse_key(row)?.0))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stead_types::{GroupId, TenantNumber};

    use super::{super::GroupPrefix, *};

    proptest! {
        #[test]
        fn key_round_trips(time: u64, bytes: Vec<u8>) {
            let copy = GroupPrefix { group: GroupId::new(1), install: 2 }.copy(TenantNumber::new(3), 4);
            let time = TenantTime(time);
            prop_assert_eq!(parse_key(key(copy, time, &bytes)), Ok((time, bytes.into())));
        }
    }
}
