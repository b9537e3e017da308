//! FEED_FLOOR: up to which entry the feed of a group is forgotten. Rows up to it go at another time in each replica.
//!
//! Key: kind, group, install. Value: Raft index varint.

use bytes::Bytes;

use super::{Place, Rows, Unreadable, kind};
use crate::codec::{Reader, Writer};

/// Returns the key of the row.
pub fn key(place: Place) -> Bytes {
    place.key(kind::FEED_FLOOR, 0).finish()
}

/// Writes the row's value.
pub fn encode(index: u64) -> Bytes {
    Writer::with_capacity(10).varint(index).finish()
}

/// Reads the row; zero if there is none.
pub fn read(rows: &dyn Rows, place: Place) -> Result<u64, Unreadable> {
    let Some(value) = rows.get(&key(place))? else {
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
        fn a_row_reads_back(index: u64) {
            let place = Place { group: GroupId::new(1), install: 2 };
            let mut rows = MemoryRows::default();
            prop_assert_eq!(read(&rows, place).unwrap(), 0);
            rows.put(key(place), encode(index));
            prop_assert_eq!(read(&rows, place).unwrap(), index);
        }
    }
}
