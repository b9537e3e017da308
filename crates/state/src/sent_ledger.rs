//! Ledger of what a node has sent of tenants to other groups, until the directory has it as residency evidence.
//!
//! Nothing is sent before an allowance that covers it is durable. After a crash an allowance counts as sent whole: the
//! evidence shows more than was sent then, never less. Allowances grow with what is sent, so that few are written.
//!
//! # Invariants
//!
//! 1. Bytes that were counted are covered by an allowance that was applied before.
//! 2. The bytes of all reports and of what is not reported yet are those that were counted, or more after a crash.

use std::collections::BTreeMap;

use bytes::Bytes;
use stead_types::{DirectoryVersion, NodeId, RegionName, TenantNumber};

use crate::{
    codec::{Malformed, Reader, Writer},
    directory::{SENT_ROWS_MAX, SentData, SentReport},
};

/// Smallest allowance, in bytes beyond what is sent at once: most that a crash adds for a tenant that sends little.
pub const ALLOWANCE_MIN: u64 = 64 << 10;
/// Part of what was sent by which an allowance exceeds it.
const ALLOWANCE_PART: u64 = 8;
/// Time after which a count that is reported is forgotten, in milliseconds.
const IDLE_MS: u64 = 600_000;

/// Data that is about to be sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentPart {
    /// The tenant.
    pub tenant: TenantNumber,
    /// Version of the tenant's record that admits the region.
    pub policy: DirectoryVersion,
    /// Bytes before compression.
    pub bytes: u64,
}

/// Subject of one count.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct CountKey {
    tenant: TenantNumber,
    region: RegionName,
    policy: DirectoryVersion,
}

/// Bytes of one subject. All are counted from when the count began, so that only differences leave it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct Count {
    sent: u64,
    allowed: u64,
    reported: u64,
    /// Times of the first and last byte that are not reported.
    unreported: Option<(u64, u64)>,
    /// Time of the last byte.
    last_ms: u64,
}

/// Record of the ledger on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LedgerRecord {
    /// Up to this many bytes may be sent, counted from the data's own count; `last_ms` is the time of the record, and
    /// `first_ms` the time of the first byte that is not reported.
    Allow {
        /// Subject, times and bytes.
        allowed: SentData,
        /// Bytes of it that were reported when the record was written.
        reported: u64,
    },
    /// A report begins: it is repeated until it ends.
    BeginReport(SentReport),
    /// The report of this number ends: the directory has it.
    EndReport(u64),
}

/// Counts of a node.
#[derive(Debug)]
pub struct SentLedger {
    node: NodeId,
    counts: BTreeMap<CountKey, Count>,
    report: Option<SentReport>,
    next_report: u64,
    /// Subject of the last row of the last report: the next one goes on behind it.
    cursor: Option<CountKey>,
}

impl SentLedger {
    /// Returns an empty ledger. Reports count from the wall clock on, so that a node that has lost its ledger goes on
    /// above the reports that the directory knows.
    pub fn new(node: NodeId, now_ms: u64) -> Self {
        Self {
            node,
            counts: BTreeMap::new(),
            report: None,
            next_report: now_ms.max(1),
            cursor: None,
        }
    }

    /// Returns the allowances that must be durable, and be applied, before these parts may be sent.
    pub fn missing(&self, region: &RegionName, parts: &[SentPart], now_ms: u64) -> Vec<LedgerRecord> {
        let mut sums: BTreeMap<CountKey, u64> = BTreeMap::new();
        for part in parts {
            *sums.entry(CountKey::of(region, part)).or_default() += part.bytes;
        }
        let missing = sums.into_iter().filter_map(|(key, bytes)| {
            let count = self.counts.get(&key).cloned().unwrap_or_default();
            let needed = count.sent.saturating_add(bytes);
            (needed > count.allowed).then(|| {
                let allowed = needed.saturating_add(ALLOWANCE_MIN.max(needed / ALLOWANCE_PART));
                count.as_record(&key, allowed, now_ms)
            })
        });
        missing.collect()
    }

    /// Counts parts that are sent now; their allowances were applied.
    pub fn count(&mut self, region: &RegionName, parts: &[SentPart], now_ms: u64) {
        for part in parts {
            let count = self.counts.entry(CountKey::of(region, part)).or_default();
            count.sent = count.sent.saturating_add(part.bytes);
            assert!(count.sent <= count.allowed, "invariant 1");
            count.last_ms = count.last_ms.max(now_ms);
            let first_ms = count.unreported.map_or(now_ms, |(first_ms, _)| first_ms.min(now_ms));
            count.unreported = Some((first_ms, count.last_ms));
        }
    }

    /// Applies a record that is durable, or is read back.
    pub fn apply(&mut self, record: &LedgerRecord) {
        match record {
            LedgerRecord::Allow { allowed, reported } => {
                let count = self.counts.entry(CountKey::of_data(allowed)).or_default();
                count.allowed = allowed.bytes;
                count.reported = *reported;
            }
            LedgerRecord::BeginReport(report) => self.begin_report(report),
            LedgerRecord::EndReport(number) => {
                self.next_report = self.next_report.max(number + 1);
                if self.report.as_ref().is_some_and(|report| report.number == *number) {
                    self.report = None;
                }
            }
        }
    }

    /// Applies records that are read back after a restart: what was allowed counts as sent until now.
    pub fn restore(&mut self, records: &[LedgerRecord], now_ms: u64) {
        for record in records {
            self.apply(record);
            if let LedgerRecord::Allow { allowed, .. } = record
                && let Some(count) = self.counts.get_mut(&CountKey::of_data(allowed))
            {
                count.sent = count.allowed;
                count.last_ms = now_ms.max(allowed.last_ms);
                let unreported = (allowed.first_ms, count.last_ms);
                count.unreported = (count.sent > count.reported).then_some(unreported);
            }
        }
    }

    fn begin_report(&mut self, report: &SentReport) {
        for data in &report.sent {
            let Some(count) = self.counts.get_mut(&CountKey::of_data(data)) else {
                continue;
            };
            count.reported = count.reported.saturating_add(data.bytes);
            count.unreported = (count.sent > count.reported).then_some((data.last_ms, count.last_ms));
        }
        self.next_report = self.next_report.max(report.number + 1);
        self.cursor = report.sent.last().map(CountKey::of_data);
        self.report = Some(report.clone());
    }

    /// Returns the report that was begun and has not ended.
    pub fn begun_report(&self) -> Option<&SentReport> {
        self.report.as_ref()
    }

    /// Returns the next report, which must be durable and applied before it is sent; `None` if all is reported.
    pub fn next_report(&self) -> Option<SentReport> {
        let is_before = |key: &CountKey| self.cursor.as_ref().is_some_and(|cursor| key <= cursor);
        let due = self.counts.iter().filter(|(_, count)| count.sent > count.reported);
        let (before, after): (Vec<_>, Vec<_>) = due.partition(|(key, _)| is_before(key));
        let chosen = after.into_iter().chain(before).take(SENT_ROWS_MAX);
        let sent = chosen.map(|(key, count)| {
            let (first_ms, last_ms) = count.unreported.unwrap_or((count.last_ms, count.last_ms));
            key.data(first_ms, last_ms, count.sent - count.reported)
        });
        let report = SentReport {
            node: self.node,
            number: self.next_report,
            sent: sent.collect(),
        };
        (!report.sent.is_empty()).then_some(report)
    }

    /// Forgets counts that are reported and idle; returns records for the disk, so that nothing of them counts again after
    /// a restart.
    pub fn forget_idle(&mut self, now_ms: u64) -> Vec<LedgerRecord> {
        let is_idle = |count: &Count| {
            count.sent > 0 && count.reported >= count.sent && count.last_ms.saturating_add(IDLE_MS) <= now_ms
        };
        let idle = self.counts.iter().filter(|(_, count)| is_idle(count));
        let ended: Vec<LedgerRecord> = idle
            .map(|(key, count)| count.as_record(key, count.sent, now_ms))
            .collect();
        self.counts.retain(|_, count| !is_idle(count));
        ended
    }

    /// Returns the records that lead to this ledger. With `settled`, nothing is sent any more, and allowances end at what
    /// was sent.
    pub fn as_records(&self, settled: bool, now_ms: u64) -> Vec<LedgerRecord> {
        let allow = self.counts.iter().map(|(key, count)| {
            let allowed = if settled { count.sent } else { count.allowed };
            count.as_record(key, allowed, now_ms)
        });
        // What it holds is in `reported` of the counts, which is read before it.
        let report = self.report.clone().map(|report| vec![report]).unwrap_or_default();
        let report = report.into_iter().map(LedgerRecord::BeginReport);
        // Numbers are never used twice, also if the wall clock was set back.
        let last = LedgerRecord::EndReport(self.next_report.saturating_sub(1));
        std::iter::once(last).chain(report).chain(allow).collect()
    }

    /// Returns the number of counts.
    pub fn len(&self) -> usize {
        self.counts.len()
    }

    /// Tells whether there are no counts.
    pub fn is_empty(&self) -> bool {
        self.counts.is_empty()
    }
}

impl CountKey {
    fn of(region: &RegionName, part: &SentPart) -> Self {
        Self {
            tenant: part.tenant,
            region: region.clone(),
            policy: part.policy,
        }
    }

    fn of_data(data: &SentData) -> Self {
        Self {
            tenant: data.tenant,
            region: data.region.clone(),
            policy: data.policy,
        }
    }

    fn data(&self, first_ms: u64, last_ms: u64, bytes: u64) -> SentData {
        SentData {
            tenant: self.tenant,
            region: self.region.clone(),
            policy: self.policy,
            first_ms,
            last_ms,
            bytes,
        }
    }
}

impl Count {
    fn as_record(&self, key: &CountKey, allowed: u64, now_ms: u64) -> LedgerRecord {
        let first_ms = self.unreported.map_or(now_ms, |(first_ms, _)| first_ms);
        LedgerRecord::Allow {
            allowed: key.data(first_ms, self.last_ms.max(now_ms), allowed),
            reported: self.reported,
        }
    }
}

/// First byte of each record; never used for anything else again.
mod tag {
    pub(super) const ALLOW: u8 = 1;
    pub(super) const BEGIN_REPORT: u8 = 2;
    pub(super) const END_REPORT: u8 = 3;
}

impl LedgerRecord {
    /// Writes the record.
    pub fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(64);
        match self {
            Self::Allow { allowed, reported } => {
                allowed.encode(w.u8(tag::ALLOW));
                w.varint(*reported);
            }
            Self::BeginReport(report) => report.encode(w.u8(tag::BEGIN_REPORT)),
            Self::EndReport(number) => drop(w.u8(tag::END_REPORT).varint(*number)),
        }
        w.finish()
    }

    /// Reads what [`LedgerRecord::encode`] wrote.
    ///
    /// # Errors
    ///
    /// The bytes are no record.
    pub fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes, "record of what was sent");
        let record = match r.u8()? {
            tag::ALLOW => Self::Allow {
                allowed: SentData::decode(&mut r)?,
                reported: r.varint()?,
            },
            tag::BEGIN_REPORT => Self::BeginReport(SentReport::decode(&mut r)?),
            tag::END_REPORT => Self::EndReport(r.varint()?),
            _ => return Err(r.malformed()),
        };
        r.end()?;
        Ok(record)
    }
}

#[cfg(test)]
#[path = "sent_ledger_test.rs"]
mod sent_ledger_test;
