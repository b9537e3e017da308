//! Audit log of the directory: who changed what, when and why, and which calls of operators were refused. Append-only; the
//! newest [`RECORDS_MAX`] records of changes and [`CALL_RECORDS_KEPT`] records of calls are kept: calls never displace
//! changes.

use std::{borrow::Cow, collections::VecDeque};

use bytes::Bytes;
use stead_types::DirectoryVersion;

use super::{
    ApplyContext, AuditContext, CallRecord, Command, TopologyCommand,
    command::{decode_version, encode_version},
    text,
};
use crate::codec::{Malformed, Reader, Writer};

/// Most records of changes that are kept.
pub(super) const RECORDS_MAX: usize = 10_000;
/// Most records of calls that are kept.
pub(super) const CALL_RECORDS_KEPT: usize = 2_000;

/// Record of one change that was requested and applied, or of calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuditRecord {
    /// Number of the record, counting from 1.
    pub number: u64,
    /// Directory version at which it was applied.
    pub version: DirectoryVersion,
    /// Logged time at which it was applied, in milliseconds since 1970.
    pub time: u64,
    /// Identity of the caller.
    pub who: String,
    /// Reason that the caller gave.
    pub reason: String,
    /// Action, such as `create tenant`.
    pub action: String,
    /// Name of the region, node or tenant that was changed.
    pub subject: String,
    /// Whether it is of calls, not of a change.
    pub is_of_calls: bool,
}

/// The audit log, oldest record first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    records: VecDeque<AuditRecord>,
    calls: VecDeque<AuditRecord>,
}

impl Audit {
    /// Returns the records, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &AuditRecord> {
        let mut changes = self.records.iter().rev().peekable();
        let mut calls = self.calls.iter().rev().peekable();
        std::iter::from_fn(move || match (changes.peek(), calls.peek()) {
            (Some(change), Some(call)) if call.number > change.number => calls.next(),
            (Some(_), _) => changes.next(),
            (None, _) => calls.next(),
        })
    }

    pub(super) fn next_number(&self) -> u64 {
        let last = self.records.back().into_iter().chain(self.calls.back());
        last.map(|record| record.number + 1).max().unwrap_or(1)
    }

    /// Appends a record, and returns the oldest if there were too many of its kind.
    pub(super) fn push(&mut self, record: AuditRecord) -> Option<AuditRecord> {
        let (records, max) = match record.is_of_calls {
            false => (&mut self.records, RECORDS_MAX),
            true => (&mut self.calls, CALL_RECORDS_KEPT),
        };
        records.push_back(record);
        if records.len() > max { records.pop_front() } else { None }
    }

    /// Appends what a command leaves in the log; returns the new records and those that were dropped for them.
    pub(super) fn extend(&mut self, context: &ApplyContext, entries: Vec<AuditEntry>) -> AuditChange {
        let mut change = AuditChange::default();
        for entry in entries {
            let record = AuditRecord {
                number: self.next_number(),
                version: context.version,
                time: context.time,
                who: entry.by.who,
                reason: entry.by.reason,
                action: entry.action.into_owned(),
                subject: entry.subject,
                is_of_calls: entry.is_of_calls,
            };
            change.dropped.extend(self.push(record.clone()));
            change.records.push(record);
        }
        change
    }
}

/// Change of the audit log by one command.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct AuditChange {
    /// New records.
    pub records: Vec<AuditRecord>,
    /// Records that were dropped, because there were too many.
    pub dropped: Vec<AuditRecord>,
}

/// Entry of a command in the log: author, action, subject.
pub(super) struct AuditEntry {
    by: AuditContext,
    action: Cow<'static, str>,
    subject: String,
    is_of_calls: bool,
}

impl AuditEntry {
    fn change(by: &AuditContext, action: impl Into<Cow<'static, str>>, subject: impl ToString) -> Self {
        Self {
            by: by.clone(),
            action: action.into(),
            subject: subject.to_string(),
            is_of_calls: false,
        }
    }

    fn calls(calls: &CallRecord) -> Self {
        Self {
            by: AuditContext {
                who: calls.who.clone(),
                reason: calls.reason.clone(),
            },
            action: calls.action().into(),
            subject: calls.method.clone(),
            is_of_calls: true,
        }
    }
}

/// Returns what a command that callers request leaves in the log, if it is accepted.
pub(super) fn entries(command: &Command) -> Vec<AuditEntry> {
    let entry = match command {
        Command::CreateRegion(by, region) => AuditEntry::change(by, "create region", &region.name),
        Command::Join(by, node) => AuditEntry::change(by, "join node", &node.name),
        Command::CreateTenant(by, tenant) => AuditEntry::change(by, "create tenant", &tenant.name),
        Command::UpdateTenant(by, update) => AuditEntry::change(by, "update tenant", &update.name),
        Command::EraseTenant(by, name, _) => AuditEntry::change(by, "erase tenant", name),
        Command::MoveTenant(by, request) => AuditEntry::change(by, "move tenant", &request.name),
        Command::AbortMove(by, operation) => AuditEntry::change(by, "abort move", format!("operation {operation}")),
        Command::SetClusterSettings(by, ttl) => AuditEntry::change(by, "set lease ttl", format!("{ttl} ms")),
        Command::RaiseFeatureLevel(by, level, _) => AuditEntry::change(by, "raise feature level", level),
        Command::BeginBulkMove(by, request) => AuditEntry::change(by, "move tenants", &request.selection),
        Command::PauseBulkMove(by, operation) => AuditEntry::change(by, "pause", format!("operation {operation}")),
        Command::ResumeBulkMove(by, operation, _) => AuditEntry::change(by, "resume", format!("operation {operation}")),
        Command::BeginPromotion(by, request) => AuditEntry::change(by, "promote tenants", &request.selection),
        Command::SetRegionLoss(by, update) => AuditEntry::change(by, "set on_region_loss", &update.name),
        Command::BeginRehearsal(by, request) => {
            AuditEntry::change(by, "rehearse", format!("loss of region {}", request.region))
        }
        Command::RecordForkDiscard(by, discard) => AuditEntry::change(by, discard.action(), &discard.tenant),
        Command::RecordForkReplay(by, replay) => AuditEntry::change(by, replay.action(), &replay.tenant),
        Command::GrantRole(by, grant) => AuditEntry::change(by, format!("grant {}", grant.role), &grant.subject),
        Command::RevokeRole(by, grant) => AuditEntry::change(by, format!("revoke {}", grant.role), &grant.subject),
        Command::RecordLeaderMove(by, leader_move) => {
            AuditEntry::change(by, leader_move.action(), leader_move.subject())
        }
        Command::RecordCalls(records) => return records.iter().map(AuditEntry::calls).collect(),
        Command::Topology(TopologyCommand::Begin(by, request)) => {
            let (action, subject) = request.audit();
            AuditEntry::change(by, action, subject)
        }
        Command::Bootstrap(_)
        | Command::Topology(_)
        | Command::UpdateAddresses(..)
        | Command::Report(..)
        | Command::RefreshMembers
        | Command::AdvanceBulkMove(..)
        | Command::AdvancePromotion { .. }
        | Command::RecordSent(_) => return Vec::new(),
    };
    vec![entry]
}

impl AuditRecord {
    pub(crate) fn encode(&self) -> Bytes {
        let mut w = Writer::with_capacity(96);
        encode_version(w.varint(self.number), self.version);
        w.varint(self.time);
        text::write_all(
            &mut w,
            [&self.who, &self.reason, &self.action, &self.subject].into_iter(),
        );
        w.finish()
    }

    pub(crate) fn decode(bytes: Bytes, is_of_calls: bool) -> Result<Self, Malformed> {
        let mut r = Reader::new(bytes, "audit record");
        let (number, version, time) = (r.varint()?, decode_version(&mut r)?, r.varint()?);
        let texts: [String; 4] = r.list(text::read)?.try_into().map_err(|_| r.malformed())?;
        r.end()?;
        let [who, reason, action, subject] = texts;
        Ok(Self {
            number,
            version,
            time,
            who,
            reason,
            action,
            subject,
            is_of_calls,
        })
    }
}
