//! FEED_FLOOR: retention floor of a group's feed: entries up to it are no longer served. Each replica removes their
//! rows at its own time.
//!
//! Key: kind, group, install. Value: Raft index varint.

use bytes::Bytes;

use super::{GroupPrefix, Rows, Unreadable, kind};
use crate::codec::{Reader, Writer};

/// Returns the key of the row.
pub fn key(prefix: GroupPrefix) -> Bytes {
    prefix.key(kind::FEED_FLOOR, 0).finish()
}

/// Writes the row's value.
pub fn encode(index: u64) -> Bytes {
    Writer::with_capacity(10).varint(index).finish()
}

/// Reads the row; zero if there is none.
pub fn read(rows: &dyn Rows, prefix: GroupPrefix) -> Result<u64, Unreadable> {
    let Some(value) = rows.get(&key(prefix))? else {
        return Ok(0);
    };
    let mut r = Reader::new(value, "feed floor");
    let index = r.varint()?;
    r.end()?;
    Ok(index)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stead_types::GroupId;

    use super::*;
    use crate::rows::{RowsMut, memory::MemoryRows};

    proptest! {
        #[test]
        fn row_round_trips(index: u64) {
            let prefix = GroupPrefix { group: GroupId::new(1), install: 2 };
            let mut rows = MemoryRows::default();
            prop_assert_eq!(read(&rows, prefix).unwrap(), 0);
            rows.put(key(prefix), encode(index));
            prop_assert_eq!(read(&rows, prefix).unwrap(), index);
        }
    }
}
