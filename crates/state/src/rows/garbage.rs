//! GARBAGE: a copy that nothing reads any more, being erased in bounded steps. This node's own affair.
//!
//! Key: kind, group, install, tenant u64, copy u32. Value: empty.

use bytes::Bytes;

use super::{Copy, PLACE_LEN, Place, kind};
use crate::codec::{Malformed, Reader};

/// Returns the key of a copy's row.
pub fn key(copy: Copy) -> Bytes {
    copy.key(kind::GARBAGE, 0).finish()
}

/// Reads the copy out of a key.
pub fn parse_key(place: Place, key: Bytes) -> Result<Copy, Malformed> {
    let mut r = Reader::new(key, "garbage key");
    r.raw(PLACE_LEN)?;
    let copy = place.copy(stead_types::TenantNumber::new(r.u64()?), r.u32()?);
    r.end()?;
    Ok(copy)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stead_types::{GroupId, TenantNumber};

    use super::*;

    proptest! {
        #[test]
        fn a_key_reads_back(group: u32, install: u32, tenant: u64, number: u32) {
            let place = Place { group: GroupId::new(group), install };
            let copy = place.copy(TenantNumber::new(tenant), number);
            prop_assert_eq!(parse_key(place, key(copy)), Ok(copy));
        }
    }
}
