//! Limits of a tenant in the directory, and their updates.
//!
//! Encoded as a list of (number, value): a limit that is not set takes no bytes, and a new limit takes a new number.
//! They end a command, but for what came later; an empty list at the end is not written at all: entries from before there
//! were limits end there.

use stead_types::{TenantLimit, TenantLimits};

use crate::codec::{Malformed, Reader, Writer};

/// Update of a tenant's limits; limits that it does not name stay as they are.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitsUpdate {
    /// Limits to set.
    pub set: TenantLimits,
    /// Limits that are reset to their defaults.
    pub clear: Vec<TenantLimit>,
}

impl LimitsUpdate {
    /// Returns the updated limits; a limit that is both cleared and set is set.
    pub fn apply(&self, before: TenantLimits) -> TenantLimits {
        let mut limits = before;
        self.clear.iter().for_each(|limit| limits.clear(*limit));
        for (limit, value) in self.set.iter() {
            limits.set(limit, value).expect("it was set before");
        }
        limits
    }
}

/// Returns the number of a limit on disk and in the log; never used for another one again.
fn number(limit: TenantLimit) -> u8 {
    match limit {
        TenantLimit::OperationsPerSecond => 1,
        TenantLimit::BytesPerSecond => 2,
        TenantLimit::StoredBytes => 3,
        TenantLimit::Keys => 4,
        TenantLimit::Watches => 5,
        TenantLimit::Clients => 6,
        TenantLimit::InFlight => 7,
        TenantLimit::HistoryAge => 8,
        TenantLimit::HistoryCount => 9,
        TenantLimit::Outcomes => 10,
    }
}

fn limit(r: &mut Reader) -> Result<TenantLimit, Malformed> {
    let read = r.u8()?;
    let found = TenantLimit::ALL.into_iter().find(|limit| number(*limit) == read);
    found.ok_or_else(|| r.malformed())
}

pub(super) fn encode(limits: &TenantLimits, w: &mut Writer) {
    let set: Vec<_> = limits.iter().collect();
    w.list(set.into_iter(), |w, (limit, value)| {
        w.u8(number(limit)).varint(value);
    });
}

pub(super) fn decode(r: &mut Reader) -> Result<TenantLimits, Malformed> {
    let mut limits = TenantLimits::default();
    for (limit, value) in r.list(|r| Ok((limit(r)?, r.varint()?)))? {
        limits.set(limit, value).map_err(|_| r.malformed())?;
    }
    Ok(limits)
}

/// Writes the limits that end a command.
pub(super) fn encode_last(limits: &TenantLimits, w: &mut Writer) {
    if !limits.is_empty() {
        encode(limits, w);
    }
}

pub(super) fn decode_last(r: &mut Reader) -> Result<TenantLimits, Malformed> {
    if r.is_empty() {
        return Ok(TenantLimits::default());
    }
    decode(r)
}

/// Writes the update that ends a command.
pub(super) fn encode_last_update(update: &LimitsUpdate, w: &mut Writer) {
    if *update != LimitsUpdate::default() {
        encode_update(update, w);
    }
}

pub(super) fn encode_update(update: &LimitsUpdate, w: &mut Writer) {
    encode(&update.set, w);
    w.list(update.clear.iter(), |w, limit| {
        w.u8(number(*limit));
    });
}

pub(super) fn decode_last_update(r: &mut Reader) -> Result<LimitsUpdate, Malformed> {
    if r.is_empty() {
        return Ok(LimitsUpdate::default());
    }
    Ok(LimitsUpdate {
        set: decode(r)?,
        clear: r.list(limit)?,
    })
}
