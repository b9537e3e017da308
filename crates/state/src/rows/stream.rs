//! STREAM: how far a follower group has a home group's stream.
//!
//! Key: kind, group, install, home group u32. Value: incarnation of the home varint, offset varint. Which tenants are
//! attached stands in their records: an attach does not rewrite what may be 10,000 others.

use bytes::Bytes;
use stead_types::{FeedOffset, GroupId, Incarnation};

use super::{PLACE_LEN, Place, kind};
use crate::codec::{Malformed, Reader, Writer};

/// Returns the key of a stream's row.
pub fn key(place: Place, home: GroupId) -> Bytes {
    place.key(kind::STREAM, 4).u32(home.get()).finish()
}

/// Reads the home out of a key.
pub fn parse_key(key: Bytes) -> Result<GroupId, Malformed> {
    let mut r = Reader::new(key, "stream key");
    r.raw(PLACE_LEN)?;
    let home = GroupId::new(r.u32()?);
    r.end()?;
    Ok(home)
}

/// Writes a row's value.
pub fn encode(offset: FeedOffset) -> Bytes {
    let mut w = Writer::with_capacity(12);
    w.varint(u64::from(offset.incarnation.0)).varint(offset.index).finish()
}

/// Reads what [`encode`] wrote.
pub fn decode(value: Bytes) -> Result<FeedOffset, Malformed> {
    let mut r = Reader::new(value, "stream row");
    let offset = FeedOffset {
        incarnation: Incarnation(r.varint_u32()?),
        index: r.varint()?,
    };
    r.end()?;
    Ok(offset)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn a_row_reads_back(incarnation: u32, index: u64, home: u32) {
            let offset = FeedOffset { incarnation: Incarnation(incarnation), index };
            prop_assert_eq!(decode(encode(offset)), Ok(offset));
            let place = Place { group: GroupId::new(9), install: 1 };
            prop_assert_eq!(parse_key(key(place, GroupId::new(home))), Ok(GroupId::new(home)));
        }
    }
}
