//! Rows of installs that are not the current one: of a snapshot that did not end, or that was replaced.

use bytes::Bytes;
use stead_state::rows::{Order, Place, RowsMut, Unreadable, kind};
use stead_types::GroupId;

/// Whether rows of other installs may be left. At start they may.
pub(super) struct Stale(bool);

impl Default for Stale {
    fn default() -> Self {
        Self(true)
    }
}

impl Stale {
    /// Tells whether there may be any.
    pub(super) fn may_be_left(&self) -> bool {
        self.0
    }

    /// Removes up to so many rows that do not stand under the current place.
    pub(super) fn remove(&mut self, current: Place, rows: &mut dyn RowsMut, rows_max: usize) -> Result<(), Unreadable> {
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

/// Returns the range of all rows of a kind that any install of a group has.
fn of_group(group: GroupId, kind: u8) -> std::ops::Range<Bytes> {
    let start = Place { group, install: 0 }.key(kind, 0).finish();
    let end = Place {
        group,
        install: u32::MAX,
    };
    start..end.range(kind).end
}
