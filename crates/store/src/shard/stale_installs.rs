//! Removal of the rows of stale installs: of a snapshot whose install did not end, or that was replaced.

use bytes::Bytes;
use stead_state::rows::{GroupPrefix, Order, RowsMut, Unreadable, kind};
use stead_types::GroupId;

/// Whether rows of stale installs may be left. At start they may.
pub(super) struct StaleInstalls(bool);

impl Default for StaleInstalls {
    fn default() -> Self {
        Self(true)
    }
}

impl StaleInstalls {
    /// Tells whether rows of stale installs may be left.
    pub(super) fn may_be_left(&self) -> bool {
        self.0
    }

    /// Removes up to `rows_max` rows that do not belong to the current install.
    pub(super) fn remove(
        &mut self,
        current: GroupPrefix,
        rows: &mut dyn RowsMut,
        rows_max: usize,
    ) -> Result<(), Unreadable> {
        let mut keys: Vec<Bytes> = Vec::new();
        for kind in kind::SHARD {
            let group = of_group(current.group, kind);
            let own = current.range(kind);
            for range in [&group.start..&own.start, &own.end..&group.end] {
                let left = rows_max - keys.len();
                for row in rows
                    .range(&range.start[..]..&range.end[..], Order::Ascending)
                    .take(left)
                {
                    keys.push(row?.0);
                }
            }
        }
        self.0 = !keys.is_empty();
        for key in keys {
            rows.delete(key);
        }
        Ok(())
    }
}

/// Returns the range of all rows of a kind, of any install of a group.
fn of_group(group: GroupId, kind: u8) -> std::ops::Range<Bytes> {
    let start = GroupPrefix { group, install: 0 }.key(kind, 0).finish();
    let end = GroupPrefix {
        group,
        install: u32::MAX,
    };
    start..end.range(kind).end
}
