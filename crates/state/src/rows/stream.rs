//! STREAM: a follower group's offset in a home group's feed.
//!
//! Key: kind, group, install, home group u32. Value: incarnation of the home varint, offset varint. The tenants'
//! records tell which of them are attached: an attach does not rewrite the rows of 10,000 others.

use bytes::Bytes;
use stead_types::{FeedOffset, GroupId, Incarnation};

use super::{GROUP_PREFIX_LEN, GroupPrefix, kind};
use crate::codec::{Malformed, Reader, Writer};

/// Returns the key of a stream's row.
pub fn key(prefix: GroupPrefix, home: GroupId) -> Bytes {
    prefix.key(kind::STREAM, 4).u32(home.get()).finish()
}

/// Parses the home group from a key.
pub fn parse_key(key: Bytes) -> Result<GroupId, Malformed> {
    let mut r = Reader::new(key, "stream key");
    r.raw(GROUP_PREFIX_LEN)?;
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
        fn row_round_trips(incarnation: u32, index: u64, home: u32) {
            let offset = FeedOffset { incarnation: Incarnation(incarnation), index };
            prop_assert_eq!(decode(encode(offset)), Ok(offset));
            let prefix = GroupPrefix { group: GroupId::new(9), install: 1 };
            prop_assert_eq!(parse_key(key(prefix, GroupId::new(home))), Ok(GroupId::new(home)));
        }
    }
}
