//! What calls do to a group's log, free of any disk: shared by all implementations.

use std::io;

use bytes::Bytes;

use super::{Purged, Record};

/// One change of a group's log, in the order of calls.
#[derive(Clone, Debug)]
pub(crate) enum Op {
    /// Append consecutive records.
    Append(Vec<Record>),
    /// Drop the records above this index, or all.
    TruncateAfter(Option<u64>),
    /// Drop the records up to this index.
    Purge(Purged),
    /// Save the vote.
    Vote(Bytes),
    /// Save the committed position.
    Committed(Bytes),
    /// Forget everything.
    Erase,
}

/// Refuses records that would leave a hole or stand on others. `next` is where the log goes on, `None` if it is empty
/// and nothing was purged.
pub(crate) fn check_append(records: &[Record], next: Option<u64>) -> io::Result<()> {
    let Some(first) = records.first() else {
        return Ok(());
    };
    for (expected, record) in (next.unwrap_or(first.index)..).zip(records) {
        if record.index != expected {
            let found = record.index;
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                format!("the log goes on at index {expected}, not at {found}"),
            ));
        }
    }
    Ok(())
}

/// Counts how many bytes may still be read: the first record always fits.
pub(crate) struct Budget {
    left: usize,
    used: bool,
}

impl Budget {
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
