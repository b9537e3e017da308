//! Operations on a group's log and their checks, without any disk: shared by all implementations.

use std::io;

use bytes::Bytes;

use super::{LogRecord, PurgePoint};

/// Operation on a group's log.
#[derive(Clone, Debug)]
pub(crate) enum LogOperation {
    /// Append consecutive records.
    Append(Vec<LogRecord>),
    /// Remove the records above this index, or all.
    TruncateAfter(Option<u64>),
    /// Remove the records up to this index.
    Purge(PurgePoint),
    /// Save the vote.
    Vote(Bytes),
    /// Save the committed position.
    Committed(Bytes),
    /// Erase everything.
    Erase,
}

/// Rejects records that would leave a hole or overlap others. `next` is the next index of the log, `None` if it is
/// empty and nothing was purged.
pub(crate) fn check_append(records: &[LogRecord], next: Option<u64>) -> io::Result<()> {
    let Some(first) = records.first() else {
        return Ok(());
    };
    for (expected, record) in (next.unwrap_or(first.index)..).zip(records) {
        if record.index != expected {
            let found = record.index;
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("cannot append record {found}: the next index of the log is {expected}"),
            ));
        }
    }
    Ok(())
}

/// Budget of bytes for one read; the first record always fits.
pub(crate) struct ReadBudget {
    left: usize,
    used: bool,
}

impl ReadBudget {
    pub(crate) fn new(max_bytes: usize) -> Self {
        Self {
            left: max_bytes,
            used: false,
        }
    }

    /// Takes a record's bytes from the budget, or returns false if they do not fit.
    pub(crate) fn take(&mut self, len: usize) -> bool {
        if self.used && self.left < len {
            return false;
        }
        self.left = self.left.saturating_sub(len);
        self.used = true;
        true
    }
}
