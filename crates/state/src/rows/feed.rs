//! FEED: which tenants an entry of a home group touched. What no follower needs any more is removed by the floor.
//!
//! Key: kind, group, install, Raft index u64. Value: logged time varint, bytes written varint, then for each tenant its
//! number varint, epoch varint, first sequence varint, count of further sequences varint.

use bytes::Bytes;
use stead_types::{Epoch, Revision, Sequence, TenantNumber};

use super::{PLACE_LEN, Place, kind};
use crate::{
    codec::{Malformed, Reader, Writer},
    lineage::decode_epoch,
};

/// What one entry changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Feed {
    /// The entry's logged time, in milliseconds since 1970.
    pub time: u64,
    /// Bytes of keys and values written.
    pub len: u64,
    /// What it touched.
    pub touched: Vec<Touched>,
}

/// Changes of one tenant in one entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Touched {
    /// The tenant.
    pub tenant: TenantNumber,
    /// The epoch of the last change.
    pub epoch: Epoch,
    /// The first change.
    pub first: Sequence,
    /// The last change.
    pub last: Sequence,
}

impl Touched {
    /// Returns the revision of the last change.
    pub fn revision(&self) -> Revision {
        Revision::new(self.epoch, self.last)
    }
}

/// Returns the key of an entry's row.
pub fn key(place: Place, index: u64) -> Bytes {
    place.key(kind::FEED, 8).u64(index).finish()
}

/// Reads the index out of a key.
pub fn parse_key(key: Bytes) -> Result<u64, Malformed> {
    let mut r = Reader::new(key, "feed key");
    r.raw(PLACE_LEN)?;
    let index = r.u64()?;
    r.end()?;
    Ok(index)
}

/// Writes a row's value.
pub fn encode(feed: &Feed) -> Bytes {
    let mut w = Writer::with_capacity(16 + feed.touched.len() * 14);
    w.varint(feed.time).varint(feed.len);
    w.list(feed.touched.iter(), |w, touched| {
        w.varint(touched.tenant.get()).varint(u64::from(touched.epoch.get()));
        w.varint(touched.first.get());
        w.varint(touched.last.get().saturating_sub(touched.first.get()));
    });
    w.finish()
}

/// Reads what [`encode`] wrote.
pub fn decode(value: Bytes) -> Result<Feed, Malformed> {
    let mut r = Reader::new(value, "feed row");
    let feed = Feed {
        time: r.varint()?,
        len: r.varint()?,
        touched: r.list(|r| {
            let tenant = TenantNumber::new(r.varint()?);
            let epoch = decode_epoch(r)?;
            let first = r.varint()?;
            let last = first.checked_add(r.varint()?).ok_or_else(|| r.malformed())?;
            let sequence = |number| Sequence::new(number).ok_or_else(|| r.malformed());
            Ok(Touched {
                tenant,
                epoch,
                first: sequence(first)?,
                last: sequence(last)?,
            })
        })?,
    };
    r.end()?;
    Ok(feed)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stead_types::GroupId;

    use super::*;

    proptest! {
        #[test]
        fn a_row_reads_back(time: u64, len: u64, touched: Vec<(u64, u8, u32, u32)>, index: u64) {
            let sequence = |number| Sequence::new(number).unwrap();
            let feed = Feed {
                time, len,
                touched: touched
                    .into_iter()
                    .map(|(tenant, epoch, first, more)| Touched {
                        tenant: TenantNumber::new(tenant),
                        epoch: Epoch::new(u32::from(epoch)).unwrap(),
                        first: sequence(u64::from(first)),
                        last: sequence(u64::from(first) + u64::from(more)),
                    })
                    .collect(),
            };
            prop_assert_eq!(decode(encode(&feed)), Ok(feed));
            let place = Place { group: GroupId::new(9), install: 1 };
            prop_assert_eq!(parse_key(key(place, index)), Ok(index));
        }
    }
}
