//! Key prefixes of rows: kind, group, install, tenant, copy.
//!
//! PROTOCOL's copy number has two parts. The one from the group's log, equal in all replicas, follows the tenant. The
//! one that the node counts by itself, an install for each snapshot installed, follows the group: so the swap to a
//! new install is one row, and erasing an old one is one range for each kind.

use std::ops::Range;

use bytes::Bytes;
use stead_types::{GroupId, TenantNumber};

use crate::codec::Writer;

/// Length of a key's prefix up to the install.
pub const GROUP_PREFIX_LEN: usize = 9;
/// Length of a key's prefix up to the copy.
pub const COPY_PREFIX_LEN: usize = 21;

/// Prefix of one group's rows on this node, as of one install.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct GroupPrefix {
    /// The group.
    pub group: GroupId,
    /// Number of snapshots that this node has installed for the group.
    pub install: u32,
}

/// Prefix of the rows of one copy of a tenant.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct CopyPrefix {
    /// Prefix of the group.
    pub group: GroupPrefix,
    /// The tenant.
    pub tenant: TenantNumber,
    /// Number of the copy, assigned by the group's log at creation or seed.
    pub number: u32,
}

impl GroupPrefix {
    /// Starts a key of this kind, with room for `more` bytes.
    pub fn key(self, kind: u8, more: usize) -> Writer {
        let mut key = Writer::with_capacity(GROUP_PREFIX_LEN + more);
        key.u8(kind).u32(self.group.get()).u32(self.install);
        key
    }

    /// Returns the range of all rows of this kind.
    pub fn range(self, kind: u8) -> Range<Bytes> {
        let start = self.key(kind, 0).finish();
        let end = prefix_end(&start);
        start..end
    }

    /// Returns the prefix of a tenant's copy.
    pub fn copy(self, tenant: TenantNumber, number: u32) -> CopyPrefix {
        CopyPrefix {
            group: self,
            tenant,
            number,
        }
    }
}

impl CopyPrefix {
    /// Starts a key of this kind, with room for `more` bytes.
    pub fn key(self, kind: u8, more: usize) -> Writer {
        let mut key = self.group.key(kind, COPY_PREFIX_LEN - GROUP_PREFIX_LEN + more);
        key.u64(self.tenant.get()).u32(self.number);
        key
    }

    /// Returns the range of all rows of this kind.
    pub fn range(self, kind: u8) -> Range<Bytes> {
        let start = self.key(kind, 0).finish();
        let end = prefix_end(&start);
        start..end
    }
}

/// Returns the first key after all keys that start with `prefix`.
///
/// # Panics
///
/// When the prefix is all 0xff: no kind is.
pub fn prefix_end(prefix: &[u8]) -> Bytes {
    let last = prefix.iter().rposition(|byte| *byte != 0xff).expect("no kind is 0xff");
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    end.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefix_range_contains_only_its_rows() {
        let group = |install| GroupPrefix {
            group: GroupId::new(u32::MAX),
            install,
        };
        let range = group(7).range(0x11);
        assert!(
            range.contains(
                &group(7)
                    .copy(TenantNumber::new(u64::MAX), u32::MAX)
                    .key(0x11, 0)
                    .finish()
            )
        );
        assert!(!range.contains(&group(8).key(0x11, 0).finish()));
        assert!(!range.contains(&group(6).copy(TenantNumber::new(1), 1).key(0x11, 0).finish()));
    }
}
