//! Residency evidence: what was sent of each tenant to which region, when and under which version of its record, and
//! where it was erased. The nodes that send count it, and report what they have counted.
//!
//! # Invariants
//!
//! 1. A report counts once, however often its node repeats it.
//! 2. Bounds merge records of one region, and never lose bytes of a tenant that exists.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use stead_types::{DirectoryVersion, GroupId, NodeId, RegionName, TenantName, TenantNumber};

use super::{
    ApplyContext, Directory, DirectoryOutcome, DirectoryResult, Tenant,
    command::{decode_version, encode_version},
    text,
};
use crate::codec::{Malformed, Reader, Writer};

/// Most rows of one report.
pub const SENT_ROWS_MAX: usize = 500;
/// Most records about what was sent of one tenant, unless it was sent to more regions.
const SENT_RECORDS_MAX: usize = 64;
/// Most records about what was sent of all tenants; beyond it a tenant that is sent has one for each region.
const ALL_SENT_RECORDS_MAX: usize = 1_000_000;
/// Most records about where one tenant was erased; the newest are kept.
const ERASED_RECORDS_MAX: usize = 64;
/// Most erased tenants whose evidence is kept; the last ones are.
const GONE_TENANTS_KEPT: usize = 10_000;
/// Milliseconds of a day.
const DAY_MS: u64 = 86_400_000;

/// Data of a tenant that a node has sent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentData {
    /// The tenant.
    pub tenant: TenantNumber,
    /// Region of the group that it was sent to.
    pub region: RegionName,
    /// Version of the tenant's record that admitted the region.
    pub policy: DirectoryVersion,
    /// Time at which the first of it was sent, in milliseconds since 1970, by the node's clock.
    pub first_ms: u64,
    /// Time at which the last of it was sent.
    pub last_ms: u64,
    /// Bytes before compression.
    pub bytes: u64,
}

/// Report of a node about what it has sent, repeated until it is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentReport {
    /// The node.
    pub node: NodeId,
    /// Number of the report, above those of the node's reports before.
    pub number: u64,
    /// The data.
    pub sent: Vec<SentData>,
}

/// Record of what was sent of a tenant to a region.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SentRecord {
    /// The region.
    pub region: RegionName,
    /// First version of the tenant's record under which it was sent.
    pub policy_first: DirectoryVersion,
    /// Last such version; another one than the first only in a record that was merged.
    pub policy_last: DirectoryVersion,
    /// Time of the first byte, in milliseconds since 1970.
    pub first_ms: u64,
    /// Time of the last byte.
    pub last_ms: u64,
    /// Bytes before compression.
    pub bytes: u64,
}

/// Record of where a tenant was erased.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ErasedRecord {
    /// The region.
    pub region: RegionName,
    /// The group.
    pub group: GroupId,
    /// Directory version of the group's report.
    pub version: DirectoryVersion,
    /// Logged time of that, in milliseconds since 1970.
    pub time_ms: u64,
}

/// Evidence of one tenant.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TenantEvidence {
    /// Its name.
    pub name: TenantName,
    /// Logged time at which its last group had erased it.
    pub gone_ms: Option<u64>,
    /// Records of what was sent, the oldest first.
    pub sent: Vec<SentRecord>,
    /// Records of where it was erased, the oldest first.
    pub erased: Vec<ErasedRecord>,
}

/// Evidence of all tenants.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ResidencyEvidence {
    tenants: BTreeMap<TenantNumber, TenantEvidence>,
    /// Erased tenants, by the time at which the last group had erased them.
    gone: BTreeSet<(u64, TenantNumber)>,
    /// Number of all records about what was sent.
    sent_records: usize,
    /// Number of the last report of each node.
    reports: BTreeMap<NodeId, u64>,
}

impl ResidencyEvidence {
    /// Returns the evidence of a tenant.
    pub fn tenant(&self, number: TenantNumber) -> Option<&TenantEvidence> {
        self.tenants.get(&number)
    }

    /// Returns the evidence of all tenants from a number on.
    pub fn from(&self, number: TenantNumber) -> impl Iterator<Item = (TenantNumber, &TenantEvidence)> {
        self.tenants.range(number..).map(|(number, of)| (*number, of))
    }

    fn of_tenant(&mut self, number: TenantNumber, name: &TenantName) -> &mut TenantEvidence {
        self.tenants.entry(number).or_insert_with(|| TenantEvidence {
            name: name.clone(),
            gone_ms: None,
            sent: Vec::new(),
            erased: Vec::new(),
        })
    }

    fn record_sent(&mut self, data: &SentData, name: Option<&TenantName>) {
        let is_full = self.sent_records >= ALL_SENT_RECORDS_MAX;
        let of = match name {
            Some(name) => self.of_tenant(data.tenant, name),
            // Without a name and without evidence it was erased so long ago that its evidence was dropped.
            None => match self.tenants.get_mut(&data.tenant) {
                Some(of) => of,
                None => return,
            },
        };
        let before = of.sent.len();
        of.add(data);
        of.shrink(if is_full { 1 } else { SENT_RECORDS_MAX });
        let after = of.sent.len();
        self.sent_records = self.sent_records + after - before;
    }

    /// Records an erasure; returns the tenants whose evidence was dropped for it.
    fn record_erased(&mut self, tenant: &Tenant, is_gone: bool, record: ErasedRecord) -> Vec<TenantNumber> {
        let time_ms = record.time_ms;
        let of = self.of_tenant(tenant.number, &tenant.name);
        of.erased.push(record);
        if of.erased.len() > ERASED_RECORDS_MAX {
            of.erased.remove(0);
        }
        if is_gone {
            of.gone_ms = Some(time_ms);
            self.gone.insert((time_ms, tenant.number));
        }
        let mut dropped = Vec::new();
        while self.gone.len() > GONE_TENANTS_KEPT
            && let Some((_, number)) = self.gone.pop_first()
        {
            let of = self.tenants.remove(&number);
            self.sent_records -= of.map_or(0, |of| of.sent.len());
            dropped.push(number);
        }
        dropped
    }

    /// Restores the evidence of a tenant from its row.
    pub(crate) fn restore(&mut self, number: TenantNumber, of: TenantEvidence) {
        self.sent_records += of.sent.len();
        self.gone.extend(of.gone_ms.map(|time_ms| (time_ms, number)));
        self.tenants.insert(number, of);
    }

    pub(crate) fn encode_reports(&self) -> Bytes {
        let mut w = Writer::default();
        w.list(self.reports.iter(), |w, (node, number)| {
            w.varint(node.get()).varint(*number);
        });
        w.finish()
    }

    pub(crate) fn decode_reports(&mut self, bytes: Bytes) -> Result<(), Malformed> {
        let mut r = Reader::new(bytes, "numbers of reports about what was sent");
        let reports = r.list(|r| Ok((text::node(r)?, r.varint()?)))?;
        self.reports = reports.into_iter().collect();
        r.end()
    }
}

impl TenantEvidence {
    fn add(&mut self, data: &SentData) {
        let is_same = |record: &&mut SentRecord| {
            record.region == data.region
                && record.policy_first == data.policy
                && record.policy_last == data.policy
                && record.first_ms / DAY_MS == data.first_ms / DAY_MS
        };
        let record = SentRecord {
            region: data.region.clone(),
            policy_first: data.policy,
            policy_last: data.policy,
            first_ms: data.first_ms,
            last_ms: data.last_ms,
            bytes: data.bytes,
        };
        match self.sent.iter_mut().rev().find(is_same) {
            Some(known) => known.merge(&record),
            None => self.sent.push(record),
        }
    }

    /// Merges the oldest two records of the region that has most, until there are few enough, or one for each region.
    fn shrink(&mut self, max: usize) {
        while self.sent.len() > max {
            let mut of_regions: BTreeMap<&RegionName, Vec<usize>> = BTreeMap::new();
            for (at, record) in self.sent.iter().enumerate() {
                of_regions.entry(&record.region).or_default().push(at);
            }
            let most = of_regions.values().max_by_key(|of| of.len());
            let Some([first, second, ..]) = most.map(Vec::as_slice) else {
                return;
            };
            let (first, second) = (*first, *second);
            let merged = self.sent.remove(second);
            self.sent[first].merge(&merged);
        }
    }

    pub(crate) fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(128);
        text::write(&mut w, self.name.as_str());
        w.option(self.gone_ms, |w, time_ms| {
            w.varint(time_ms);
        });
        w.list(self.sent.iter(), |w, record| {
            text::write(w, record.region.as_str());
            encode_version(w, record.policy_first);
            encode_version(w, record.policy_last);
            w.varint(record.first_ms).varint(record.last_ms).varint(record.bytes);
        });
        w.list(self.erased.iter(), |w, record| {
            text::write(w, record.region.as_str());
            w.varint(u64::from(record.group.get()));
            encode_version(w, record.version);
            w.varint(record.time_ms);
        });
        w.finish()
    }

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes, "residency evidence");
        let of = Self {
            name: text::parse(&mut r)?,
            gone_ms: r.option(Reader::varint)?,
            sent: r.list(|r| {
                Ok(SentRecord {
                    region: text::parse(r)?,
                    policy_first: decode_version(r)?,
                    policy_last: decode_version(r)?,
                    first_ms: r.varint()?,
                    last_ms: r.varint()?,
                    bytes: r.varint()?,
                })
            })?,
            erased: r.list(|r| {
                Ok(ErasedRecord {
                    region: text::parse(r)?,
                    group: text::group(r)?,
                    version: decode_version(r)?,
                    time_ms: r.varint()?,
                })
            })?,
        };
        r.end()?;
        Ok(of)
    }
}

impl SentRecord {
    fn merge(&mut self, other: &Self) {
        self.policy_first = self.policy_first.min(other.policy_first);
        self.policy_last = self.policy_last.max(other.policy_last);
        self.first_ms = self.first_ms.min(other.first_ms);
        self.last_ms = self.last_ms.max(other.last_ms);
        self.bytes = self.bytes.saturating_add(other.bytes);
    }
}

impl SentData {
    /// Writes it, as a report and a node's own records carry it.
    pub fn encode(&self, w: &mut Writer) {
        w.varint(self.tenant.get());
        text::write(w, self.region.as_str());
        encode_version(w, self.policy);
        w.varint(self.first_ms).varint(self.last_ms).varint(self.bytes);
    }

    /// Reads what [`SentData::encode`] wrote.
    ///
    /// # Errors
    ///
    /// The bytes are no such data.
    pub fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            tenant: TenantNumber::new(r.varint()?),
            region: text::parse(r)?,
            policy: decode_version(r)?,
            first_ms: r.varint()?,
            last_ms: r.varint()?,
            bytes: r.varint()?,
        })
    }
}

impl SentReport {
    pub(crate) fn encode(&self, w: &mut Writer) {
        w.varint(self.node.get()).varint(self.number);
        w.list(self.sent.iter(), |w, data| data.encode(w));
    }

    pub(crate) fn decode(r: &mut Reader) -> Result<Self, Malformed> {
        Ok(Self {
            node: text::node(r)?,
            number: r.varint()?,
            sent: r.list(SentData::decode)?,
        })
    }
}

impl Directory {
    /// Returns the residency evidence.
    pub fn evidence(&self) -> &ResidencyEvidence {
        &self.evidence
    }

    /// Tells whether there is evidence, which versions before feature level 5 cannot read.
    pub(crate) fn has_evidence(&self) -> bool {
        !self.evidence.reports.is_empty() || !self.evidence.tenants.is_empty()
    }

    /// Counts what a node has sent, unless it has reported that before.
    pub(super) fn record_sent(&mut self, context: &mut ApplyContext, report: &SentReport) -> DirectoryResult {
        self.view.settings().check_roles()?;
        let last = self.evidence.reports.get(&report.node).copied().unwrap_or(0);
        // A report of nothing would be counted in memory and in no row.
        if report.number <= last || report.sent.is_empty() {
            return Ok(DirectoryOutcome::Done);
        }
        self.evidence.reports.insert(report.node, report.number);
        for data in &report.sent {
            let tenant = self.view.tenant(data.tenant);
            self.evidence.record_sent(data, tenant.map(|tenant| &tenant.name));
            context.evidence.push(data.tenant);
        }
        Ok(DirectoryOutcome::Done)
    }

    /// Records that a group has erased a tenant, whose record shows its other members.
    pub(super) fn record_erasure(&mut self, context: &mut ApplyContext, tenant: &Tenant, group: GroupId) {
        // Older voters cannot read the row.
        if !self.view.settings().has_roles() {
            return;
        }
        let Some(region) = self.view.region_of(group) else {
            return;
        };
        let record = ErasedRecord {
            region: region.name.clone(),
            group,
            version: context.version,
            time_ms: context.time,
        };
        let is_gone = tenant.members.is_empty();
        context.evidence.push(tenant.number);
        context
            .evidence
            .extend(self.evidence.record_erased(tenant, is_gone, record));
    }
}
