//! Group commit: one writer thread takes the queued writes of all groups, writes them with one sync, and calls back.
//!
//! # Invariants
//!
//! 1. Writes reach the disk in the order in which they were queued; the number of a write is its place in that order.
//! 2. After a failed write or sync nothing is written any more, and every waiting callback gets the error.
//! 3. A write for which the disk has no room is tried again until it has: raft-engine takes back what of it had reached
//!    the file before it fails, so that nothing of it is in the log, and nothing behind it.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use parking_lot::{Condvar, Mutex, MutexGuard};
use raft_engine::LogBatch;
use stead_types::GroupId;

use super::files::Files;
use super::log_cache::LogCache;
use super::log_write::LogWrite;
use crate::health::{Health, NodeFailure, catch_panic};
use crate::latency::LatencyHistogram;
use crate::log::SyncCallback;
use crate::room::{free_bytes, is_out_of_room};

/// Most bytes in the queue before callers block. A single call may exceed it.
pub const QUEUE_LEN_MAX: usize = 64 << 20;

/// Most bytes in one write to disk; a single call may exceed it.
const BATCH_LEN_MAX: usize = 8 << 20;

/// Interval of looks at the disk after a write for which it had no room.
const ROOM_LOOK_INTERVAL: Duration = Duration::from_millis(250);
/// Room that a write needs beside its length, before it is tried again.
const ROOM_MARGIN: usize = 1 << 20;
/// Most bytes in the queue while the disk has no room.
const WAITING_LEN_MAX: usize = QUEUE_LEN_MAX / 2;
const WRITING: &str = "writing the log";

pub(super) type LogEngine = raft_engine::Engine<Files>;

/// Group of the log, shared by its handles and the writer.
pub(super) struct CachedGroup {
    pub(super) id: GroupId,
    pub(super) cache: Mutex<LogCache>,
}

/// Write in the queue.
struct QueuedWrite {
    group: Arc<CachedGroup>,
    write: LogWrite,
    number: u64,
    done: Option<SyncCallback>,
}

#[derive(Default)]
struct WriteQueue {
    items: Vec<QueuedWrite>,
    len: usize,
    last_number: u64,
    /// A queued write waits for a sync.
    sync_requested: bool,
    stopping: bool,
    failed: bool,
}

/// Queue of writes between the groups and the writer thread, which runs [`LogWriter::run`].
pub(super) struct LogWriter {
    queue: Mutex<WriteQueue>,
    wake: Condvar,
    space_freed: Condvar,
    health: Health,
    pub(super) latency: LatencyHistogram,
    /// Folder of the log.
    dir: PathBuf,
}

/// Guard of the queue's end, held so that a cache changes in the order of writes.
pub(super) struct QueueSlot<'a> {
    queue: MutexGuard<'a, WriteQueue>,
    writer: &'a LogWriter,
}

impl LogWriter {
    pub(super) fn new(health: Health, dir: &Path) -> Self {
        Self {
            queue: Mutex::default(),
            wake: Condvar::new(),
            space_freed: Condvar::new(),
            health,
            latency: LatencyHistogram::default(),
            dir: dir.to_owned(),
        }
    }

    /// Waits for space in the queue and locks its end.
    pub(super) fn slot(&self) -> io::Result<QueueSlot<'_>> {
        let mut queue = self.queue.lock();
        while QUEUE_LEN_MAX <= queue.len && !queue.failed {
            self.space_freed.wait(&mut queue);
        }
        self.health.check()?;
        Ok(QueueSlot { queue, writer: self })
    }

    /// Makes [`LogWriter::run`] write the queue and return.
    pub(super) fn stop(&self) {
        self.queue.lock().stopping = true;
        self.wake.notify_all();
    }

    /// Writes until stopped or failed. `wrote` is called with the bytes of each write.
    pub(super) fn run(&self, engine: &LogEngine, wrote: impl Fn(usize)) {
        while let Some(items) = self.take() {
            let len = items.iter().map(|item| item.write.len()).sum();
            let timed = || {
                let begun = Instant::now();
                let written = write(engine, &items);
                self.latency.record(begun.elapsed());
                written
            };
            match self.write_when_room(len, timed) {
                Ok(len) => wrote(len),
                Err(error) => return self.fail(items, error),
            }
            for item in items {
                item.group.cache.lock().evict_written(item.number);
                if let Some(done) = item.done {
                    done(Ok(()));
                }
            }
        }
    }

    /// Writes, again and again while the disk has no room for it: until the log is closed, or so much is queued that callers
    /// would soon block, who have other work.
    fn write_when_room(&self, len: usize, write: impl Fn() -> io::Result<usize>) -> io::Result<usize> {
        let mut was_full = false;
        loop {
            match write() {
                Err(error) if is_out_of_room(&error) => {
                    was_full = true;
                    self.health.record_retry(None, WRITING, &error);
                    if !self.wait_for_room(len) {
                        return Err(error);
                    }
                }
                written => {
                    if was_full && written.is_ok() {
                        self.health.succeeded(None, WRITING);
                    }
                    return written;
                }
            }
        }
    }

    /// Waits until there is room for so many bytes. Each write that fails costs a file of the log, which raft-engine begins
    /// in vain, so that none is tried before. Returns false if what is queued cannot wait.
    fn wait_for_room(&self, len: usize) -> bool {
        let needed = (len + ROOM_MARGIN) as u64;
        while self.may_wait(ROOM_LOOK_INTERVAL) {
            if free_bytes(&self.dir).is_none_or(|free| needed <= free) {
                return true;
            }
        }
        false
    }

    /// Waits for a time. Returns false, at once, if what is queued cannot wait.
    fn may_wait(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        let mut queue = self.queue.lock();
        while !queue.stopping && queue.len < WAITING_LEN_MAX {
            if self.wake.wait_until(&mut queue, until).timed_out() {
                return true;
            }
        }
        false
    }

    /// Waits for the next batch; returns nothing when stopped and the queue is empty.
    fn take(&self) -> Option<Vec<QueuedWrite>> {
        let mut queue = self.queue.lock();
        while !queue.sync_requested && !queue.stopping && queue.len < QUEUE_LEN_MAX {
            self.wake.wait(&mut queue);
        }
        if queue.items.is_empty() {
            return None;
        }
        let mut taken_len = 0;
        let fitting = queue.items.iter().take_while(|item| {
            let fits = taken_len < BATCH_LEN_MAX;
            taken_len += item.write.len();
            fits
        });
        let count = fitting.count();
        let rest = queue.items.split_off(count);
        let taken = std::mem::replace(&mut queue.items, rest);
        queue.len = queue.items.iter().map(|item| item.write.len()).sum();
        queue.sync_requested = queue.items.iter().any(|item| item.done.is_some());
        self.space_freed.notify_all();
        Some(taken)
    }

    fn fail(&self, items: Vec<QueuedWrite>, error: io::Error) {
        let failure = self.health.fail(NodeFailure::of_node(WRITING, error));
        for done in items.into_iter().filter_map(|item| item.done) {
            done(Err(failure.clone().into()));
        }
        self.reject_queued();
    }

    /// Rejects the queued writes and wakes callers that wait for space, after the node has failed.
    pub(super) fn reject_queued(&self) {
        let mut queue = self.queue.lock();
        queue.failed = true;
        let rest = std::mem::take(&mut queue.items);
        drop(queue);
        self.space_freed.notify_all();
        let refused = || self.health.check().map_err(io::Error::from);
        for done in rest.into_iter().filter_map(|item| item.done) {
            done(refused());
        }
    }
}

impl QueueSlot<'_> {
    /// Returns the number of the next write.
    pub(super) fn number(&self) -> u64 {
        self.queue.last_number + 1
    }

    /// Queues a write. The writer wakes if the write has a callback; otherwise the write goes along with the next.
    pub(super) fn push(mut self, group: Arc<CachedGroup>, write: LogWrite, done: Option<SyncCallback>) {
        let queue = &mut self.queue;
        queue.last_number += 1;
        queue.len += write.len();
        queue.sync_requested |= done.is_some();
        let wake = queue.sync_requested || QUEUE_LEN_MAX <= queue.len;
        let number = queue.last_number;
        queue.items.push(QueuedWrite {
            group,
            write,
            number,
            done,
        });
        if wake {
            self.writer.wake.notify_all();
        }
    }
}

/// Writes and syncs a batch. raft-engine panics when a sync fails, and is not used after that.
fn write(engine: &LogEngine, items: &[QueuedWrite]) -> io::Result<usize> {
    let write = || -> raft_engine::Result<usize> {
        let mut batch = LogBatch::with_capacity(items.len());
        for item in items {
            item.write.add_to(&mut batch, item.group.id)?;
        }
        engine.write(&mut batch, true)
    };
    call_engine(write)
}

/// Calls raft-engine and turns a panic of it into an error.
pub(super) fn call_engine<T>(call: impl FnOnce() -> raft_engine::Result<T>) -> io::Result<T> {
    match catch_panic(call) {
        // It has the text of an error, not the error: a file that is full, and the next one, too.
        Ok(Err(error @ raft_engine::Error::TryAgain(_))) => Err(io::Error::new(io::ErrorKind::StorageFull, error)),
        Ok(result) => result.map_err(io::Error::other),
        Err(panicked) => Err(io::Error::other(panicked)),
    }
}
