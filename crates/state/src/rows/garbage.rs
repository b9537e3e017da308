//! GARBAGE: a discarded copy whose rows are removed in bounded steps. Local to this node.
//!
//! Key: kind, group, install, tenant u64, copy u32. Value: empty.

use bytes::Bytes;

use super::{CopyPrefix, GROUP_PREFIX_LEN, GroupPrefix, kind};
use crate::codec::{Malformed, Reader};

/// Returns the key of a copy's row.
pub fn key(copy: CopyPrefix) -> Bytes {
    copy.key(kind::GARBAGE, 0).finish()
}

/// Parses the copy from a key.
pub fn parse_key(prefix: GroupPrefix, key: Bytes) -> Result<CopyPrefix, Malformed> {
    let mut r = Reader::new(key, "garbage key");
    r.raw(GROUP_PREFIX_LEN)?;
    let copy = prefix.copy(stead_types::TenantNumber::new(r.u64()?), r.u32()?);
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
        fn key_round_trips(group: u32, install: u32, tenant: u64, number: u32) {
            let prefix = GroupPrefix { group: GroupId::new(group), install };
            let copy = prefix.copy(TenantNumber::new(tenant), number);
            prop_assert_eq!(parse_key(prefix, key(copy)), Ok(copy));
        }
    }
}
