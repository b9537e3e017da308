//! FEED: the tenants that a log entry of a home group changed. The retention floor removes entries that no follower
//! needs.
//!
//! Key: kind, group, install, Raft index u64. Value: logged time varint, bytes written varint, then for each tenant
//! its number varint, epoch varint, first sequence varint, count of further sequences varint.

use bytes::Bytes;
use stead_types::{Epoch, Revision, Sequence, TenantNumber};

use super::{GROUP_PREFIX_LEN, GroupPrefix, kind};
use crate::{
    codec::{Malformed, Reader, Writer},
    lineage::decode_epoch,
};

/// Feed entry: the tenants that one log entry changed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FeedEntry {
    /// The entry's logged time, in milliseconds since 1970.
    pub time: u64,
    /// Bytes of keys and values written.
    pub len: u64,
    /// Tenants that it changed.
    pub touched: Vec<TouchedTenant>,
}

/// Range of changes of one tenant in one log entry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TouchedTenant {
    /// The tenant.
    pub tenant: TenantNumber,
    /// Epoch of the last change.
    pub epoch: Epoch,
    /// The first change.
    pub first: Sequence,
    /// The last change.
    pub last: Sequence,
}

impl TouchedTenant {
    /// Returns the revision of the last change.
    pub fn revision(&self) -> Revision {
        Revision::new(self.epoch, self.last)
    }
}

/// Returns the key of an entry's row.
pub fn key(prefix: GroupPrefix, index: u64) -> Bytes {
    prefix.key(kind::FEED, 8).u64(index).finish()
}

/// Parses the log index from a key.
pub fn parse_key(key: Bytes) -> Result<u64, Malformed> {
    let mut r = Reader::new(key, "feed key");
    r.raw(GROUP_PREFIX_LEN)?;
    let index = r.u64()?;
    r.end()?;
    Ok(index)
}

/// Writes a row's value.
pub fn encode(feed: &FeedEntry) -> Bytes {
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
pub fn decode(value: Bytes) -> Result<FeedEntry, Malformed> {
    let mut r = Reader::new(value, "feed row");
    let feed = FeedEntry {
        time: r.varint()?,
        len: r.varint()?,
        touched: r.list(|r| {
            let tenant = TenantNumber::new(r.varint()?);
            let epoch = decode_epoch(r)?;
            let first = r.varint()?;
            let last = first.checked_add(r.varint()?).ok_or_else(|| r.malformed())?;
            let sequence = |number| Sequence::new(number).ok_or_else(|| r.malformed());
            Ok(TouchedTenant {
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
        fn row_round_trips(time: u64, len: u64, touched: Vec<(u64, u8, u32, u32)>, index: u64) {
            let sequence = |number| Sequence::new(number).unwrap();
            let feed = FeedEntry {
                time, len,
                touched: touched
                    .into_iter()
                    .map(|(tenant, epoch, first, more)| TouchedTenant {
                        tenant: TenantNumber::new(tenant),
                        epoch: Epoch::new(u32::from(epoch)).unwrap(),
                        first: sequence(u64::from(first)),
                        last: sequence(u64::from(first) + u64::from(more)),
                    })
                    .collect(),
            };
            prop_assert_eq!(decode(encode(&feed)), Ok(feed));
            let prefix = GroupPrefix { group: GroupId::new(9), install: 1 };
            prop_assert_eq!(parse_key(key(prefix, index)), Ok(index));
        }
    }
}
