//! INSTALLS row: the highest install number that this node has ever allocated for a group.
//!
//! Key: kind, group u32. Value: format u8 (1), install u32. Written past the table and durable before any row has the
//! number, so that a number is never used twice, whatever becomes of its rows.

use bytes::Bytes;
use stead_state::codec::{Malformed, Reader, Writer};
use stead_state::rows::kind;
use stead_types::GroupId;

const FORMAT: u8 = 1;

pub(super) fn key(group: GroupId) -> Bytes {
    let mut key = Writer::with_capacity(5);
    key.u8(kind::INSTALLS).u32(group.get());
    key.finish()
}

pub(super) fn encode(install: u32) -> Bytes {
    let mut value = Writer::with_capacity(5);
    value.u8(FORMAT).u32(install);
    value.finish()
}

pub(super) fn decode(value: Bytes) -> Result<u32, Malformed> {
    let mut r = Reader::new(value, "row of installs");
    if r.u8()? != FORMAT {
        return Err(r.malformed());
    }
    let install = r.u32()?;
    r.end()?;
    Ok(install)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn installs_row_bytes_are_fixed_and_round_trip() {
        assert_eq!(&*key(GroupId::new(258)), b"\x02\0\0\x01\x02");
        assert_eq!(&*encode(7), b"\x01\0\0\0\x07");
        assert_eq!(decode(encode(u32::MAX)), Ok(u32::MAX));
        decode(Bytes::from_static(b"\x02\0\0\0\x07")).unwrap_err();
        decode(Bytes::from_static(b"\x01\0\0\0\x07\0")).unwrap_err();
    }
}
