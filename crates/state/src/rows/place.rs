//! Where a row stands: kind, group, install, tenant, copy.
//!
//! PROTOCOL's copy number has two parts. The one from the group's log, equal in all replicas, stands behind the
//! tenant. The one that the node counts by itself, an install for each snapshot taken in, stands right behind the
//! group: so the swap to a new install is one row, and erasing an old one is one range for each kind.

use std::ops::Range;

use bytes::Bytes;
use stead_types::{GroupId, TenantNumber};

use crate::codec::Writer;

/// Length of the part of a key that names the group's install.
pub const PLACE_LEN: usize = 9;
/// Length of the part of a key that names the copy of a tenant.
pub const COPY_LEN: usize = 21;

/// One group's rows on this node, as of one install.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The group.
    pub group: GroupId,
    /// Counts the snapshots that this node has installed for the group.
    pub install: u32,
}

/// One copy of a tenant's data.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Copy {
    /// Whose rows they are.
    pub place: Place,
    /// The tenant.
    pub tenant: TenantNumber,
    /// The number given out by the group's log: creation, seed.
    pub number: u32,
}

impl Place {
    /// Starts a key of this kind, with room for `more` bytes.
    pub fn key(self, kind: u8, more: usize) -> Writer {
        let mut key = Writer::with_capacity(PLACE_LEN + more);
        key.u8(kind).u32(self.group.get()).u32(self.install);
        key
    }

    /// Returns the range of all rows of this kind.
    pub fn range(self, kind: u8) -> Range<Bytes> {
        let start = self.key(kind, 0).finish();
        let end = after(&start);
        start..end
    }

    /// Returns the copy of a tenant.
    pub fn copy(self, tenant: TenantNumber, number: u32) -> Copy {
        Copy {
            place: self,
            tenant,
            number,
        }
    }
}

impl Copy {
    /// Starts a key of this kind, with room for `more` bytes.
    pub fn key(self, kind: u8, more: usize) -> Writer {
        let mut key = self.place.key(kind, COPY_LEN - PLACE_LEN + more);
        key.u64(self.tenant.get()).u32(self.number);
        key
    }

    /// Returns the range of all rows of this kind.
    pub fn range(self, kind: u8) -> Range<Bytes> {
        let start = self.key(kind, 0).finish();
        let end = after(&start);
        start..end
    }
}

/// Returns the first key behind all keys that start with `prefix`.
///
/// # Panics
///
/// When the prefix is all 0xff: no kind is.
pub fn after(prefix: &[u8]) -> Bytes {
    let last = prefix.iter().rposition(|byte| *byte != 0xff).expect("no kind is 0xff");
    let mut end = prefix[..=last].to_vec();
    end[last] += 1;
    end.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_range_holds_its_rows_and_no_neighbours() {
        let place = |install| Place {
            group: GroupId::new(u32::MAX),
            install,
        };
        let range = place(7).range(0x11);
        assert!(
            range.contains(
                &place(7)
                    .copy(TenantNumber::new(u64::MAX), u32::MAX)
                    .key(0x11, 0)
                    .finish()
            )
        );
        assert!(!range.contains(&place(8).key(0x11, 0).finish()));
        assert!(!range.contains(&place(6).copy(TenantNumber::new(1), 1).key(0x11, 0).finish()));
    }
}
