//! Audit log of the directory: who changed what, when and why. Append-only; the newest [`RECORDS_MAX`] records are
//! kept.

use std::collections::VecDeque;

use bytes::Bytes;
use stead_types::DirectoryVersion;

use super::{
    command::{decode_version, encode_version},
    text,
};
use crate::codec::{Malformed, Reader, Writer};

/// Most records that are kept.
pub const RECORDS_MAX: usize = 10_000;

/// Record of one change that was requested and applied.
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
}

/// The audit log, oldest record first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    records: VecDeque<AuditRecord>,
}

impl Audit {
    /// Returns the records, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &AuditRecord> {
        self.records.iter().rev()
    }

    pub(super) fn next_number(&self) -> u64 {
        self.records.back().map_or(1, |record| record.number + 1)
    }

    /// Appends a record, and drops the oldest if there are too many.
    pub(super) fn push(&mut self, record: AuditRecord) {
        self.records.push_back(record);
        if self.records.len() > RECORDS_MAX {
            self.records.pop_front();
        }
    }
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

    pub(crate) fn decode(bytes: Bytes) -> Result<Self, Malformed> {
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
        })
    }
}
