//! Recovery of a group from the log of one voter, which is taken whole. Entries that are not known to be
//! committed may be, by voters that are lost.

use std::io;

use stead_store::log::GroupLog;
use stead_store::machine::{AppliedState, CommittedEntry};

use crate::encoding::{read_entry_record, read_log_id_record};
use crate::machine::{committed_entry, external_index};
use crate::types::LogId;

/// End of a voter's log: of two voters the one with the greater end has the newer state.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct LogEnd {
    /// Term of its last entry.
    pub term: u64,
    /// Log index of its last entry.
    pub index: u64,
}

/// Entries of a log that its machine has not applied.
pub struct UnappliedEntries {
    /// The entries, in their order.
    pub entries: Vec<CommittedEntry>,
    /// End of the log.
    pub end: LogEnd,
}

impl UnappliedEntries {
    /// Reads the entries above what a machine has applied.
    ///
    /// # Errors
    ///
    /// The log cannot be read, or it lacks entries between what the machine has applied and its own first one.
    pub fn read(log: &dyn GroupLog, applied: &AppliedState) -> io::Result<Self> {
        let state = log.state()?;
        let purged = state.purged.map_or(0, |purged| external_index(purged.index));
        if applied.index < purged {
            return Err(io::Error::other(format!(
                "the log is purged up to entry {purged}, and the rows end at entry {}",
                applied.index
            )));
        }
        let end = state.last.map_or(0, |last| external_index(last.index));
        let mut last = read_log_id_record(applied.log_id.clone())?;
        let mut entries = Vec::new();
        if applied.index < end {
            for record in log.read(applied.index..end, usize::MAX)? {
                let entry = read_entry_record(record.bytes)?;
                last = Some(entry.log_id);
                entries.push(committed_entry(entry));
            }
        }
        Ok(Self {
            entries,
            end: last.map_or_else(LogEnd::default, end_at),
        })
    }
}

fn end_at(last: LogId) -> LogEnd {
    LogEnd {
        term: last.leader_id.term,
        index: external_index(last.index),
    }
}

#[cfg(test)]
mod tests {
    use openraft::entry::RaftEntry;
    use stead_store::log::LogRecord;
    use stead_store::log::memory::Disk;
    use stead_types::GroupId;

    use super::*;
    use crate::encoding::{entry_record, log_id_record};
    use crate::types::{Entry, LeaderId};

    fn id(index: u64) -> LogId {
        LogId::new(LeaderId { term: 4, node_id: 1 }, index)
    }

    fn applied(index: u64) -> AppliedState {
        AppliedState {
            index,
            log_id: log_id_record(index.checked_sub(1).map(id).as_ref()),
            ..AppliedState::default()
        }
    }

    #[test]
    fn entries_above_rows_are_read_and_gap_is_refused() {
        let log = Disk::default().open().group(GroupId::DIRECTORY);
        log.purge(2, log_id_record(Some(&id(2)))).unwrap();
        let record = |index| LogRecord {
            index,
            bytes: entry_record(&Entry::new_blank(id(index))),
        };
        log.append((3..=6).map(record).collect(), Box::new(drop));
        let read = |index| UnappliedEntries::read(&*log, &applied(index));
        let indexes = |read: &UnappliedEntries| read.entries.iter().map(|entry| entry.index).collect::<Vec<_>>();
        let end = LogEnd { term: 4, index: 7 };
        for (index, expected) in [(3, vec![4, 5, 6, 7]), (5, vec![6, 7]), (7, vec![])] {
            let found = read(index).unwrap();
            assert_eq!((indexes(&found), found.end), (expected, end), "{index}");
        }
        let gap = read(2).err().unwrap().to_string();
        assert!(
            gap.contains("purged up to entry 3, and the rows end at entry 2"),
            "{gap}"
        );
    }
}
