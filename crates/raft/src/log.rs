//! Raft log of a group, as openraft drives it.
//!
//! # Invariants
//!
//! 1. A vote is durable before `save_vote` returns, entries before their callback: the store gives both one order.
//! 2. A truncation is durable before anything that follows it. A snapshot may be installed next, and after a power loss
//!    truncated entries must not follow it.
//! 3. No read returns more than [`READ_BYTES_MAX`], except for a single entry.

use std::fmt::Debug;
use std::io;
use std::ops::{Bound, Range, RangeBounds};
use std::sync::Arc;

use futures::{Stream, StreamExt, stream};
use openraft::storage::{IOFlushed, LogState, RaftLogReader, RaftLogStorage};
use stead_state::codec::entry_time;
use stead_store::log::{GroupLog, GroupLogState, LogRecord, SyncCallback};
use stead_types::planted::{self, Bug};
use tokio::sync::oneshot;

use crate::clock::GroupClock;
use crate::encoding::{
    entry_record, log_id_record, read_entry_record, read_log_id_record, read_vote_record, vote_record,
};
use crate::log_size::LogSize;
use crate::types::{Entry, LogId, Payload, TypeConfig, Vote};

/// Most bytes of one read of the log: for one message to a follower, or one step of applying.
pub(crate) const READ_BYTES_MAX: usize = 1 << 20;

/// Reader of a group's log.
#[derive(Clone)]
pub(crate) struct LogReader {
    log: Arc<dyn GroupLog>,
}

/// Writer of a group's log.
pub(crate) struct Log {
    log: Arc<dyn GroupLog>,
    log_size: Arc<LogSize>,
    clock: Arc<GroupClock>,
}

impl Log {
    pub(crate) fn new(log: Arc<dyn GroupLog>, log_size: Arc<LogSize>, clock: Arc<GroupClock>) -> Self {
        Self { log, log_size, clock }
    }

    /// Returns the state of the log.
    pub(crate) fn state(&self) -> io::Result<GroupLogState> {
        self.log.state()
    }

    async fn write_vote(&self, vote: bytes::Bytes) -> io::Result<()> {
        let (done, written) = oneshot::channel();
        let done: SyncCallback = Box::new(move |result| drop(done.send(result)));
        self.log.save_vote(vote, planted_early(Bug::VoteNotSynced, done));
        written.await.unwrap_or_else(|_| Err(lost()))
    }
}

/// Returns `done`; with the bug it is called here, before anything is written.
fn planted_early(bug: Bug, done: SyncCallback) -> SyncCallback {
    if !planted::is(bug) {
        return done;
    }
    done(Ok(()));
    Box::new(|_| ())
}

/// Returns the logged time of the last entry that has one; zero if none has. Entries of elections have none.
pub(crate) fn last_time(log: &dyn GroupLog) -> io::Result<u64> {
    let state = log.state()?;
    let Some(last) = state.last else { return Ok(0) };
    let first = state.purged.map_or(0, |purged| purged.index + 1);
    for index in (first..=last.index).rev() {
        let Some(record) = log.read(index..index + 1, READ_BYTES_MAX)?.into_iter().next() else {
            break;
        };
        if let Some(time) = time(&read_entry_record(record.bytes)?) {
            return Ok(time);
        }
    }
    Ok(0)
}

/// Returns the logged time of an entry that has one.
fn time(entry: &Entry) -> Option<u64> {
    match &entry.payload {
        Payload::Normal(commands) => entry_time(&commands.0),
        Payload::Blank | Payload::Membership(_) => None,
    }
}

/// Returns the error for a callback that the store dropped, which must not happen.
fn lost() -> io::Error {
    io::Error::other("the log store dropped a callback")
}

fn start_of(range: &impl RangeBounds<u64>) -> u64 {
    match range.start_bound() {
        Bound::Included(start) => *start,
        Bound::Excluded(before) => before + 1,
        Bound::Unbounded => 0,
    }
}

fn end_of(range: &impl RangeBounds<u64>) -> u64 {
    match range.end_bound() {
        Bound::Included(last) => last + 1,
        Bound::Excluded(end) => *end,
        Bound::Unbounded => u64::MAX,
    }
}

impl LogReader {
    fn read(&self, range: Range<u64>) -> io::Result<Vec<Entry>> {
        let records = self.log.read(range, READ_BYTES_MAX)?;
        records
            .into_iter()
            .map(|record| read_entry_record(record.bytes))
            .collect()
    }
}

impl RaftLogReader<TypeConfig> for LogReader {
    async fn try_get_log_entries<R: RangeBounds<u64> + Clone + Debug + Send>(
        &mut self,
        range: R,
    ) -> io::Result<Vec<Entry>> {
        let (mut next, end) = (start_of(&range), end_of(&range));
        let mut entries = Vec::new();
        while next < end {
            let read = self.read(next..end)?;
            let Some(last) = read.last() else { break };
            next = last.log_id.index + 1;
            entries.extend(read);
        }
        Ok(entries)
    }

    async fn entries_stream<R>(&mut self, range: R) -> impl Stream<Item = io::Result<Entry>> + Send
    where
        R: RangeBounds<u64> + Clone + Debug + Send,
    {
        let reader = self.clone();
        let range = start_of(&range)..end_of(&range);
        let steps = stream::unfold(range, move |range| {
            let read = if range.is_empty() {
                Ok(Vec::new())
            } else {
                reader.read(range.clone())
            };
            let step: Option<(Vec<io::Result<Entry>>, Range<u64>)> = match read {
                Err(error) => Some((vec![Err(error)], range.end..range.end)),
                Ok(entries) => entries.last().map(|last| last.log_id.index + 1).map(|next| {
                    let entries = entries.into_iter().map(Ok).collect();
                    (entries, next..range.end)
                }),
            };
            async move { step }
        });
        Box::pin(steps.flat_map(stream::iter))
    }

    async fn limited_get_log_entries(&mut self, start: u64, end: u64) -> io::Result<Vec<Entry>> {
        if start >= end {
            return Ok(Vec::new());
        }
        self.read(start..end)
    }

    async fn read_vote(&mut self) -> io::Result<Option<Vote>> {
        read_vote_record(self.log.state()?.vote.unwrap_or_default())
    }
}

impl RaftLogStorage<TypeConfig> for Log {
    type LogReader = LogReader;

    async fn get_log_state(&mut self) -> io::Result<LogState<TypeConfig>> {
        let state = self.log.state()?;
        let purged = match state.purged {
            Some(purged) => read_log_id_record(purged.meta)?,
            None => None,
        };
        let last = match state.last {
            Some(last) => Some(read_entry_record(last.bytes)?.log_id),
            None => purged,
        };
        Ok(LogState {
            last_purged_log_id: purged,
            last_log_id: last,
        })
    }

    async fn get_log_reader(&mut self) -> LogReader {
        LogReader { log: self.log.clone() }
    }

    async fn save_vote(&mut self, vote: &Vote) -> io::Result<()> {
        self.write_vote(vote_record(vote)).await
    }

    async fn save_committed(&mut self, committed: Option<LogId>) -> io::Result<()> {
        self.log.save_committed(log_id_record(committed.as_ref()))
    }

    async fn read_committed(&mut self) -> io::Result<Option<LogId>> {
        read_log_id_record(self.log.state()?.committed.unwrap_or_default())
    }

    async fn append<I>(&mut self, entries: I, callback: IOFlushed<TypeConfig>) -> io::Result<()>
    where
        I: IntoIterator<Item = Entry> + Send,
        I::IntoIter: Send,
    {
        let mut records = Vec::new();
        for entry in entries {
            if let Some(time) = time(&entry) {
                self.clock.observe_entry(time);
            }
            records.push(LogRecord {
                index: entry.log_id.index,
                bytes: entry_record(&entry),
            });
        }
        if let Some(last) = records.last() {
            let bytes: usize = records.iter().map(|record| record.bytes.len()).sum();
            self.log_size.appended(last.index, records.len() as u64, bytes as u64);
        }
        let done: SyncCallback = Box::new(move |result| callback.io_completed(result));
        self.log.append(records, planted_early(Bug::LogNotSynced, done));
        Ok(())
    }

    async fn truncate_after(&mut self, last: Option<LogId>) -> io::Result<()> {
        self.log_size.truncated(last.map(|last| last.index));
        self.log.truncate_after(last.map(|last| last.index))?;
        match self.log.state()?.vote {
            Some(vote) if !planted::is(Bug::VoteLostAtTruncation) => self.write_vote(vote).await,
            Some(_) | None => Ok(()),
        }
    }

    async fn purge(&mut self, upto: LogId) -> io::Result<()> {
        self.log_size.purged(upto.index);
        self.log.purge(upto.index, log_id_record(Some(&upto)))
    }
}

#[cfg(test)]
mod tests {
    use openraft::entry::RaftEntry;
    use stead_store::log::memory::Disk;
    use stead_types::GroupId;

    use super::*;
    use crate::types::LeaderId;

    fn log_id(index: u64) -> LogId {
        LogId::new(LeaderId { term: 1, node_id: 1 }, index)
    }

    /// Invariant 2.
    #[tokio::test]
    async fn truncated_entries_stay_gone_after_power_loss() {
        let disk = Disk::default();
        let open = || {
            let group = disk.open().group(GroupId::new(3));
            let clock = Arc::new(GroupClock::fixed());
            Log::new(group, Arc::new(LogSize::with_tail(1 << 20)), clock)
        };
        let mut log = open();
        log.save_vote(&Vote::new(1, 1)).await.unwrap();
        let entries: Vec<Entry> = (0..6).map(|index| Entry::new_blank(log_id(index))).collect();
        log.append(entries, IOFlushed::noop()).await.unwrap();
        log.truncate_after(Some(log_id(2))).await.unwrap();
        disk.power_loss(0);
        let state = open().get_log_state().await.unwrap();
        assert_eq!(state.last_log_id.map(|last| last.index), Some(2));
    }

    /// Invariant 1.
    #[tokio::test]
    async fn vote_counts_once_it_is_synced() {
        let disk = Disk::default();
        let group = disk.open().group(GroupId::new(3));
        let clock = Arc::new(GroupClock::fixed());
        let mut log = Log::new(group, Arc::new(LogSize::with_tail(1 << 20)), clock);
        disk.hold_syncs(true);
        let vote = Vote::new(1, 1);
        let mut saving = Box::pin(log.save_vote(&vote));
        assert!(futures::poll!(&mut saving).is_pending());
        disk.sync();
        saving.await.unwrap();
    }
}
