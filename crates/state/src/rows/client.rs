//! CLIENT: a client's idempotency window: a head, and a row for each page of outcomes.
//!
//! Key of the head: kind, group, install, tenant, copy, client u128; of a page the same and its number u64 after it,
//! so that the pages follow their head. Value of the head: format byte 2, edge varint, position of the oldest outcome
//! varint, number of outcomes varint. Value of a page: format byte 2, position of its first outcome varint, then the
//! outcomes, oldest first: sequence varint, revision varint, request hash u64, tenant time varint (all but the hash
//! as differences from the outcome before, wrapping). A page may begin with outcomes before the head's oldest: they
//! were evicted. Windows are decoded at start and held in memory; rows are written at checkpoints.

use bytes::Bytes;
use stead_types::{ClientId, Revision, TenantTime};

use super::{COPY_PREFIX_LEN, CopyPrefix, kind};
use crate::{
    codec::{Malformed, Reader, Writer},
    shard::idempotency_window::{IdempotencyRecord, IdempotencyWindow, PAGE_OUTCOMES},
};

const FORMAT: u8 = 2;

/// Returns the key of the head of a client's window.
pub fn key(copy: CopyPrefix, client: ClientId) -> Bytes {
    copy.key(kind::CLIENT, 16).u128(client.0).finish()
}

/// Returns the key of a page.
pub fn page_key(copy: CopyPrefix, client: ClientId, page: u64) -> Bytes {
    copy.key(kind::CLIENT, 24).u128(client.0).u64(page).finish()
}

/// Parses the client, and of a page its number, from a key.
pub fn parse_key(key: Bytes) -> Result<(ClientId, Option<u64>), Malformed> {
    let mut r = Reader::new(key, "client key");
    r.raw(COPY_PREFIX_LEN)?;
    let client = ClientId(r.u128()?);
    let page = if r.is_empty() { None } else { Some(r.u64()?) };
    r.end()?;
    Ok((client, page))
}

/// Head of an idempotency window.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct WindowHead {
    /// Lower edge of the window.
    pub edge: TenantTime,
    /// Position of its oldest outcome.
    pub first: u64,
    /// Number of its outcomes.
    pub len: u64,
}

/// Writes the head of a window.
pub fn encode_head(window: &IdempotencyWindow) -> Bytes {
    let mut w = Writer::with_capacity(24);
    w.u8(FORMAT)
        .varint(window.edge().0)
        .varint(window.first())
        .varint(window.len() as u64);
    w.finish()
}

/// Reads what [`encode_head`] wrote.
pub fn decode_head(value: Bytes) -> Result<WindowHead, Malformed> {
    let mut r = Reader::new(value, "client window");
    if r.u8()? != FORMAT {
        return Err(r.malformed());
    }
    let head = WindowHead {
        edge: TenantTime(r.varint()?),
        first: r.varint()?,
        len: r.varint()?,
    };
    r.end()?;
    Ok(head)
}

/// Writes a page whose first outcome has this position.
pub fn encode_page(at: u64, outcomes: &[IdempotencyRecord]) -> Bytes {
    let mut w = Writer::with_capacity(16 + outcomes.len() * 14);
    w.u8(FORMAT).varint(at);
    encode_outcomes(&mut w, outcomes.iter());
    w.finish()
}

/// Reads what [`encode_page`] wrote.
pub fn decode_page(value: Bytes) -> Result<(u64, Vec<IdempotencyRecord>), Malformed> {
    let mut r = Reader::new(value, "page of a client window");
    if r.u8()? != FORMAT {
        return Err(r.malformed());
    }
    let at = r.varint()?;
    let outcomes = decode_outcomes(&mut r)?;
    r.end()?;
    if outcomes.len() as u64 > PAGE_OUTCOMES {
        return Err(r.malformed());
    }
    Ok((at, outcomes))
}

/// Writes outcomes in their order.
pub fn encode_outcomes<'a>(w: &mut Writer, outcomes: impl ExactSizeIterator<Item = &'a IdempotencyRecord>) {
    let mut before = IdempotencyRecord::default();
    w.list(outcomes, |w, outcome| {
        w.varint(zigzag(outcome.sequence.wrapping_sub(before.sequence)));
        w.varint(zigzag(outcome.revision.to_u64().wrapping_sub(before.revision.to_u64())));
        w.u64(outcome.request);
        w.varint(zigzag(outcome.time.0.wrapping_sub(before.time.0)));
        before = *outcome;
    });
}

/// Reads what [`encode_outcomes`] wrote.
pub fn decode_outcomes(r: &mut Reader) -> Result<Vec<IdempotencyRecord>, Malformed> {
    let mut before = IdempotencyRecord::default();
    r.list(|r| {
        before = IdempotencyRecord {
            sequence: before.sequence.wrapping_add(unzigzag(r.varint()?)),
            revision: Revision::from_u64(before.revision.to_u64().wrapping_add(unzigzag(r.varint()?))),
            request: r.u64()?,
            time: TenantTime(before.time.0.wrapping_add(unzigzag(r.varint()?))),
        };
        Ok(before)
    })
}

/// Maps small signed differences to small numbers.
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

    use super::{super::GroupPrefix, *};

    proptest! {
        #[test]
        fn head_pages_and_keys_round_trip(
            edge: u64,
            first: u64,
            outcomes in prop::collection::vec(any::<(u64, u64, u64, u64)>(), 0..=PAGE_OUTCOMES as usize),
            client: u128,
            page: u64,
        ) {
            let outcomes: Vec<_> = outcomes
                .into_iter()
                .map(|(sequence, revision, request, time)| IdempotencyRecord {
                    sequence, revision: Revision::from_u64(revision), request, time: TenantTime(time),
                })
                .collect();
            prop_assert_eq!(decode_page(encode_page(first, &outcomes)), Ok((first, outcomes)));
            let window = IdempotencyWindow::stored(TenantTime(edge), first);
            let head = WindowHead { edge: TenantTime(edge), first, len: 0 };
            prop_assert_eq!(decode_head(encode_head(&window)), Ok(head));
            let copy = GroupPrefix { group: GroupId::new(1), install: 2 }.copy(TenantNumber::new(3), 4);
            let client = ClientId(client);
            prop_assert_eq!(parse_key(key(copy, client)), Ok((client, None)));
            prop_assert_eq!(parse_key(page_key(copy, client, page)), Ok((client, Some(page))));
        }
    }
}
