//! Keys that have expired but are not removed yet: a linearizable read shows none of them.
//!
//! Only an owner expires keys; followers, reads at a named revision and pages after the first one do not compare
//! times.

use bytes::Bytes;
use stead_types::TenantTime;

use super::{ReadError, TenantReader};
use crate::{
    rows::{Order, expiry, kind},
    shard::{append::current, command::EXPIRED_MAX},
};

/// Most expired keys that are examined for those of a range: where there are more, some are removed first.
const LOOKED_AT_MAX: usize = 8 * EXPIRED_MAX;

impl TenantReader<'_> {
    /// Returns those of these keys that have expired at a time.
    pub fn expired_keys(&self, keys: &[Bytes], now: TenantTime) -> Result<Vec<Bytes>, ReadError> {
        let mut past = Vec::new();
        if self.next_expiry.is_none_or(|next| now < next) {
            return Ok(past);
        }
        for key in keys {
            let held = current(self.rows, self.copy, key)?;
            if held.is_some_and(|held| held.has_expired(now)) {
                past.push(key.clone());
            }
        }
        Ok(past)
    }

    /// Tells whether a key of a range may have expired at a time: one has, or there are too many to examine all.
    pub fn may_have_expired(&self, start: &[u8], end: Option<&[u8]>, now: TenantTime) -> Result<bool, ReadError> {
        if self.next_expiry.is_none_or(|next| now < next) {
            return Ok(false);
        }
        let first = self.copy.range(kind::EXPIRY).start;
        let behind = expiry::key(self.copy, TenantTime(now.0.saturating_add(1)), &[]);
        for (seen, row) in self.rows.range(&first..&behind, Order::Ascending).enumerate() {
            let (_, key) = expiry::parse_key(row?.0)?;
            let is_inside = start <= key.as_ref() && end.is_none_or(|end| key.as_ref() < end);
            if is_inside || seen + 1 == LOOKED_AT_MAX {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
