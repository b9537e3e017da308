//! GROUP row: the applied state of a group's rows.
//!
//! Key: kind, group u32. Value: format u8 (2), install u32, index u64, time u64, log id, membership (each behind its
//! length).

use bytes::Bytes;
use stead_state::codec::{Malformed, Reader, Writer};
use stead_state::rows::kind;
use stead_types::GroupId;

use crate::machine::AppliedState;

const FORMAT: u8 = 2;

/// Decoded GROUP row.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct GroupRow {
    pub(super) applied: AppliedState,
    pub(super) install: u32,
}

pub(super) fn key(group: GroupId) -> Bytes {
    let mut key = Writer::with_capacity(5);
    key.u8(kind::GROUP).u32(group.get());
    key.finish()
}

pub(super) fn encode(group: &GroupRow) -> Bytes {
    let AppliedState {
        index,
        log_id,
        membership,
        time,
    } = &group.applied;
    let mut value = Writer::with_capacity(40 + log_id.len() + membership.len());
    value.u8(FORMAT).u32(group.install).u64(*index).u64(*time);
    value.bytes(log_id).bytes(membership);
    value.finish()
}

pub(super) fn decode(value: Bytes) -> Result<GroupRow, Malformed> {
    let mut r = Reader::new(value, "group row");
    if r.u8()? != FORMAT {
        return Err(r.malformed());
    }
    let install = r.u32()?;
    let (index, time) = (r.u64()?, r.u64()?);
    let applied = AppliedState {
        index,
        log_id: r.bytes()?,
        membership: r.bytes()?,
        time,
    };
    r.end()?;
    Ok(GroupRow { applied, install })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn group_row_round_trips(install: u32, index: u64, time: u64, log_id: Vec<u8>, membership: Vec<u8>) {
            let applied = AppliedState { index, log_id: log_id.into(), membership: membership.into(), time };
            let group = GroupRow { applied, install };
            prop_assert_eq!(decode(encode(&group)), Ok(group));
        }
    }

    #[test]
    fn group_row_bytes_are_fixed() {
        let applied = AppliedState {
            index: 7,
            log_id: Bytes::from("id"),
            membership: Bytes::from("m"),
            time: 9,
        };
        let encoded = encode(&GroupRow { applied, install: 3 });
        assert_eq!(
            &*encoded,
            b"\x02\0\0\0\x03\0\0\0\0\0\0\0\x07\0\0\0\0\0\0\0\x09\x02id\x01m"
        );
        assert_eq!(&*key(GroupId::new(258)), b"\x01\0\0\x01\x02");
    }
}
