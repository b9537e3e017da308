//! Writes of a log as batches of raft-engine.
//!
//! raft-engine drops the records above an appended one, but cannot truncate without appending: the key `end` holds the
//! end of the log until something is appended, in whose batch it is cleared. Keys are overwritten and never deleted: a
//! deletion is replayed onto newer values that were moved meanwhile.

use bytes::Bytes;
use raft_engine::{Command, LogBatch};
use stead_types::GroupId;

use super::entry::{Entries, Entry};
use crate::log::{LogRecord, PurgePoint};

pub(super) const VOTE: &[u8] = b"vote";
pub(super) const COMMITTED: &[u8] = b"committed";
/// Key of the purge point: index of the last purged record (u64, little endian), then its meta.
pub(super) const PURGED: &[u8] = b"purged";
/// Key of the end: the first truncated index (u64, little endian), where a record may still be; empty if none is.
pub(super) const END: &[u8] = b"end";

/// Write of a group's log.
#[derive(Debug)]
pub(super) enum LogWrite {
    Nothing,
    Entries {
        begin_at: Option<u64>,
        clear_end: bool,
        records: Vec<LogRecord>,
    },
    End(u64),
    Purge(PurgePoint),
    Vote(Bytes),
    Committed(Bytes),
    Erase,
}

impl LogWrite {
    /// Returns the approximate bytes that it adds to the log.
    pub(super) fn len(&self) -> usize {
        match self {
            Self::Entries { records, .. } => records.iter().map(|record| record.bytes.len() + 32).sum(),
            Self::Vote(bytes) | Self::Committed(bytes) => bytes.len(),
            Self::Purge(purged) => purged.meta.len(),
            Self::Nothing | Self::End(_) | Self::Erase => 0,
        }
    }

    pub(super) fn add_to(&self, batch: &mut LogBatch, group: GroupId) -> raft_engine::Result<()> {
        let engine_group = engine_group_id(group);
        match self {
            Self::Nothing => Ok(()),
            Self::Entries {
                begin_at,
                clear_end,
                records,
            } => {
                if let Some(index) = *begin_at {
                    batch.add_command(engine_group, Command::Compact { index });
                }
                let entries: Vec<Entry> = records.iter().map(Entry::from).collect();
                batch.add_entries::<Entries>(engine_group, &entries)?;
                if *clear_end {
                    batch.put(engine_group, END.to_vec(), Vec::new())?;
                }
                Ok(())
            }
            Self::End(end) => batch.put(engine_group, END.to_vec(), end.to_le_bytes().to_vec()),
            Self::Purge(purged) => {
                let index = purged.index + 1;
                batch.add_command(engine_group, Command::Compact { index });
                let mut value = purged.index.to_le_bytes().to_vec();
                value.extend_from_slice(&purged.meta);
                batch.put(engine_group, PURGED.to_vec(), value)
            }
            Self::Vote(vote) => batch.put(engine_group, VOTE.to_vec(), vote.to_vec()),
            Self::Committed(committed) => batch.put(engine_group, COMMITTED.to_vec(), committed.to_vec()),
            Self::Erase => {
                batch.add_command(engine_group, Command::Clean);
                Ok(())
            }
        }
    }
}

/// Returns raft-engine's number for a group; its numbers start at one.
pub(super) fn engine_group_id(group: GroupId) -> u64 {
    u64::from(group.get()) + 1
}

/// Returns the group of one of raft-engine's numbers.
pub(super) fn group_of(engine_group: u64) -> Option<GroupId> {
    let number = engine_group.checked_sub(1)?;
    u32::try_from(number).ok().map(GroupId::new)
}

/// Splits the first eight bytes off a value.
pub(super) fn split_index(value: &[u8]) -> Option<(u64, &[u8])> {
    let (index, rest) = value.split_first_chunk()?;
    Some((u64::from_le_bytes(*index), rest))
}
