//! Keys that are past their end while no change says so yet: a linearizable read shows none of them.
//!
//! Only an owner knows of them; followers, reads at a named revision and the pages behind a first one know no time.

use bytes::Bytes;
use stead_types::TenantTime;

use super::{Reading, Refused};
use crate::{
    rows::{Order, expiry, kind},
    shard::{append::current, command::EXPIRED_MAX},
};

/// Most keys past their end that one look goes through for those of a range: where there are more, some are removed first.
const LOOKED_AT_MAX: usize = 8 * EXPIRED_MAX;

impl Reading<'_> {
    /// Returns those of these keys that are past their end at a time.
    pub fn past_end(&self, keys: &[Bytes], now: TenantTime) -> Result<Vec<Bytes>, Refused> {
        let mut past = Vec::new();
        if self.next_expiry.is_none_or(|next| now < next) {
            return Ok(past);
        }
        for key in keys {
            let held = current(self.rows, self.copy, key)?;
            if held.is_some_and(|held| held.is_past_end(now)) {
                past.push(key.clone());
            }
        }
        Ok(past)
    }

    /// Tells whether a key of a range may be past its end at a time: one is, or there are too many to look at all.
    pub fn may_be_past_end(&self, (start, end): (&[u8], Option<&[u8]>), now: TenantTime) -> Result<bool, Refused> {
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
