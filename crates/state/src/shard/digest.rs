//! Digests of a copy: of its live keys, and of its idempotency records.
//!
//! Each is a multiset hash, the wrapping sum of one hash for each item, so that it can be updated incrementally and
//! does not depend on any order. The hashes are part of what nodes of different versions compare: they never change.

use stead_types::{ClientId, Revision};
use xxhash_rust::xxh3::{xxh3_64, xxh3_128};

use super::idempotency_window::IdempotencyRecord;
use crate::{
    codec::{Malformed, Reader, Writer},
    rows::change::Value,
};

/// The two digests of one copy. They are separate, because a rewind undoes changes of keys, and cannot undo evictions
/// from windows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Digests {
    /// Digest of live keys: key, value, both revisions, version, expiry.
    pub keys: u128,
    /// Digest of idempotency records.
    pub outcomes: u128,
}

/// Digest in which two copies differ.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum DigestMismatch {
    /// The live keys differ.
    Keys,
    /// The idempotency records differ.
    Outcomes,
}

impl Digests {
    /// Returns the mismatch with another copy at the same revision; keys before outcomes.
    pub fn mismatch(&self, other: &Self) -> Option<DigestMismatch> {
        if self.keys != other.keys {
            return Some(DigestMismatch::Keys);
        }
        (self.outcomes != other.outcomes).then_some(DigestMismatch::Outcomes)
    }

    /// Adds the hash of a live key.
    pub(crate) fn add_key(&mut self, hash: u128) {
        self.keys = self.keys.wrapping_add(hash);
    }

    /// Removes the hash of a live key.
    pub(crate) fn remove_key(&mut self, hash: u128) {
        self.keys = self.keys.wrapping_sub(hash);
    }

    /// Adds an idempotency record.
    pub(crate) fn add_outcome(&mut self, client: ClientId, outcome: &IdempotencyRecord) {
        self.outcomes = self.outcomes.wrapping_add(of_outcome(client, outcome));
    }

    /// Removes an idempotency record.
    pub(crate) fn remove_outcome(&mut self, client: ClientId, outcome: &IdempotencyRecord) {
        self.outcomes = self.outcomes.wrapping_sub(of_outcome(client, outcome));
    }

    /// Writes both digests: thirty-two bytes.
    pub fn encode(&self, w: &mut Writer) {
        w.u128(self.keys).u128(self.outcomes);
    }

    /// Reads what [`Digests::encode`] wrote.
    pub fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            keys: r.u128()?,
            outcomes: r.u128()?,
        })
    }
}

/// Domain separators of the hashes of keys and outcomes.
const KEY: u8 = 1;
const OUTCOME: u8 = 2;

/// Returns the hash of a live key, last changed at `revision`.
pub fn of_key(key: &[u8], value: &Value, revision: Revision) -> u128 {
    let mut item = [0; 65];
    item[0] = KEY;
    item[1..17].copy_from_slice(&xxh3_128(key).to_be_bytes());
    item[17..33].copy_from_slice(&xxh3_128(&value.bytes).to_be_bytes());
    item[33..41].copy_from_slice(&value.create.to_u64().to_be_bytes());
    item[41..49].copy_from_slice(&revision.to_u64().to_be_bytes());
    item[49..57].copy_from_slice(&value.version.to_be_bytes());
    item[57..65].copy_from_slice(&value.expires.unwrap_or_default().0.to_be_bytes());
    xxh3_128(&item)
}

/// Returns the hash of an idempotency record.
pub fn of_outcome(client: ClientId, outcome: &IdempotencyRecord) -> u128 {
    let mut item = [0; 49];
    item[0] = OUTCOME;
    item[1..17].copy_from_slice(&client.0.to_be_bytes());
    item[17..25].copy_from_slice(&outcome.sequence.to_be_bytes());
    item[25..33].copy_from_slice(&outcome.revision.to_u64().to_be_bytes());
    item[33..41].copy_from_slice(&outcome.request.to_be_bytes());
    item[41..49].copy_from_slice(&outcome.time.0.to_be_bytes());
    xxh3_128(&item)
}

/// Returns the hash of a request, by which the use of an idempotency key for another request is detected. Its lowest
/// bit is zero: an idempotency record stores the branch there.
pub fn of_request(bytes: &[u8]) -> u64 {
    xxh3_64(bytes) & !IdempotencyRecord::ELSE_BRANCH
}

#[cfg(test)]
mod tests {
    use stead_types::TenantTime;

    use super::*;

    #[test]
    fn hashes_are_fixed() {
        let value = Value {
            create: Revision::from_u64(1),
            version: 3,
            expires: None,
            bytes: "value".into(),
        };
        let hash = of_key(b"key", &value, Revision::from_u64(2));
        assert_eq!(format!("{hash:032x}"), "77c1735d0e2762292f5c528f7653d4ec");
        let expires = Some(TenantTime(4));
        let hash = of_key(b"key", &Value { expires, ..value }, Revision::from_u64(2));
        assert_eq!(format!("{hash:032x}"), "16bb4fce8fe2f6e4a082988137aada8e");
        let outcome = IdempotencyRecord {
            sequence: 1,
            revision: Revision::from_u64(2),
            request: 3,
            time: TenantTime(4),
        };
        let hash = of_outcome(ClientId(5), &outcome);
        assert_eq!(format!("{hash:032x}"), "b86598c7afec5a000a33c12ea45d0c77");
    }
}
