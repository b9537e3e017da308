//! CLIENT: a client's window of remembered outcomes.
//!
//! Key: kind, group, install, tenant, copy, client u128. Value: format byte 2, edge varint, then the outcomes, oldest
//! first: sequence varint, revision varint, request hash u64, tenant time varint (all but the hash as differences from
//! the outcome before, wrapping). Windows are decoded at start and held in memory; rows are written at checkpoints.

use bytes::Bytes;
use stead_types::{ClientId, Revision, TenantTime};

use super::{COPY_LEN, Copy, kind};
use crate::{
    codec::{Malformed, Reader, Writer},
    shard::window::{Remembered, Window},
};

const FORMAT: u8 = 2;

/// Returns the key of a client's window.
pub fn key(copy: Copy, client: ClientId) -> Bytes {
    copy.key(kind::CLIENT, 16).u128(client.0).finish()
}

/// Reads the client out of a key.
pub fn parse_key(key: Bytes) -> Result<ClientId, Malformed> {
    let mut r = Reader::new(key, "client key");
    r.raw(COPY_LEN)?;
    let client = ClientId(r.u128()?);
    r.end()?;
    Ok(client)
}

/// Writes a window.
pub fn encode(window: &Window) -> Bytes {
    let mut w = Writer::with_capacity(16 + window.len() * 14);
    w.u8(FORMAT).varint(window.edge().0);
    let mut before = Remembered::default();
    w.list(window.outcomes(), |w, outcome| {
        w.varint(zigzag(outcome.sequence.wrapping_sub(before.sequence)));
        w.varint(zigzag(outcome.revision.to_u64().wrapping_sub(before.revision.to_u64())));
        w.u64(outcome.request);
        w.varint(zigzag(outcome.time.0.wrapping_sub(before.time.0)));
        before = *outcome;
    });
    w.finish()
}

/// Reads what [`encode`] wrote.
pub fn decode(value: Bytes) -> Result<Window, Malformed> {
    let mut r = Reader::new(value, "client window");
    if r.u8()? != FORMAT {
        return Err(r.malformed());
    }
    let edge = TenantTime(r.varint()?);
    let mut before = Remembered::default();
    let outcomes = r.list(|r| {
        before = Remembered {
            sequence: before.sequence.wrapping_add(unzigzag(r.varint()?)),
            revision: Revision::from_u64(before.revision.to_u64().wrapping_add(unzigzag(r.varint()?))),
            request: r.u64()?,
            time: TenantTime(before.time.0.wrapping_add(unzigzag(r.varint()?))),
        };
        Ok(before)
    })?;
    r.end()?;
    Ok(Window::from_parts(edge, outcomes))
}

/// Maps small differences in both directions to small numbers.
fn zigzag(difference: u64) -> u64 {
    (difference << 1) ^ (((difference as i64) >> 63) as u64)
}

fn unzigzag(number: u64) -> u64 {
    (number >> 1) ^ (number & 1).wrapping_neg()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use stead_types::{GroupId, TenantNumber};

    use super::{super::Place, *};

    proptest! {
        #[test]
        fn a_window_reads_back(edge: u64, outcomes: Vec<(u64, u64, u64, u64)>, client: u128) {
            let outcomes: Vec<_> = outcomes
                .into_iter()
                .map(|(sequence, revision, request, time)| Remembered {
                    sequence, revision: Revision::from_u64(revision), request, time: TenantTime(time),
                })
                .collect();
            let window = Window::from_parts(TenantTime(edge), outcomes);
            prop_assert_eq!(decode(encode(&window)), Ok(window));
            let copy = Place { group: GroupId::new(1), install: 2 }.copy(TenantNumber::new(3), 4);
            prop_assert_eq!(parse_key(key(copy, ClientId(client))), Ok(ClientId(client)));
        }
    }
}
