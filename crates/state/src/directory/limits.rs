//! A tenant's own limits, and how they change.
//!
//! Written as a list of (number, value): a limit that is not set takes no bytes, and a new one takes a new number. They
//! end a command; where there are none, nothing is written: entries from before there were limits say so.

use stead_types::{TenantLimit, TenantLimits};

use crate::codec::{Malformed, Reader, Writer};

/// What is to be different about a tenant's limits; the others stay.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitsUpdate {
    /// These are set.
    pub set: TenantLimits,
    /// For these the default holds again.
    pub clear: Vec<TenantLimit>,
}

impl LimitsUpdate {
    /// Returns what the limits of a tenant become; a limit that is both cleared and set is set.
    pub fn apply(&self, before: TenantLimits) -> TenantLimits {
        let mut limits = before;
        self.clear.iter().for_each(|limit| limits.clear(*limit));
        for (limit, value) in self.set.iter() {
            limits.set(limit, value).expect("it was set before");
        }
        limits
    }
}

/// The number of a limit on disk and in the log; never used for another one again.
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
    if *update == LimitsUpdate::default() {
        return;
    }
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
