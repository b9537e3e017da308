//! Who changed what, when and why: append-only, the newest [`RECORDS_MAX`] are kept.

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

/// One change that somebody asked for, and got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Record {
    /// Counts records.
    pub number: u64,
    /// When it was applied, in the directory's count.
    pub version: DirectoryVersion,
    /// When it was applied, in milliseconds since 1970.
    pub time: u64,
    /// Who asked for it.
    pub who: String,
    /// Why.
    pub reason: String,
    /// What was asked for, such as `create tenant`.
    pub action: String,
    /// What it was done to.
    pub subject: String,
}

/// The records, oldest first.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Audit {
    records: VecDeque<Record>,
}

impl Audit {
    /// Returns the records, newest first.
    pub fn newest_first(&self) -> impl Iterator<Item = &Record> {
        self.records.iter().rev()
    }

    pub(super) fn next_number(&self) -> u64 {
        self.records.back().map_or(1, |record| record.number + 1)
    }

    /// Keeps a record, and drops the oldest if there are too many.
    pub(super) fn push(&mut self, record: Record) {
        self.records.push_back(record);
        if self.records.len() > RECORDS_MAX {
            self.records.pop_front();
        }
    }
}

impl Record {
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
