//! The one writer: takes what has queued from all groups, writes it with one sync, answers all.
//!
//! # Invariants
//!
//! 1. Writes reach the disk in the order in which they were queued; the number of a write is its place in that order.
//! 2. After a failed write or sync nothing is written any more, and everybody who waits is told.

use std::io;
use std::sync::Arc;

use parking_lot::{Condvar, Mutex, MutexGuard};
use raft_engine::LogBatch;
use stead_types::GroupId;

use super::files::Files;
use super::view::View;
use super::write::Write;
use crate::health::{Failure, Health, caught};
use crate::log::Done;

/// Most bytes that wait for the writer before callers wait, too. A single call may exceed it.
pub const QUEUE_LEN_MAX: usize = 64 << 20;

/// Most bytes in one write to disk; a single call may exceed it.
const BATCH_LEN_MAX: usize = 8 << 20;

pub(super) type Engine = raft_engine::Engine<Files>;

/// One group as the writer sees it.
pub(super) struct Group {
    pub(super) id: GroupId,
    pub(super) view: Mutex<View>,
}

struct Queued {
    group: Arc<Group>,
    write: Write,
    number: u64,
    done: Option<Done>,
}

#[derive(Default)]
struct Queue {
    items: Vec<Queued>,
    len: usize,
    numbered: u64,
    /// Somebody waits for a sync.
    wanted: bool,
    stopping: bool,
    failed: bool,
}

/// The queue between the groups and the writer.
pub(super) struct Writer {
    queue: Mutex<Queue>,
    wake: Condvar,
    room: Condvar,
    health: Health,
}

/// The end of the queue, held so that a view changes in the order of writes.
pub(super) struct Slot<'a> {
    queue: MutexGuard<'a, Queue>,
    writer: &'a Writer,
}

impl Writer {
    pub(super) fn new(health: Health) -> Self {
        Self {
            queue: Mutex::default(),
            wake: Condvar::new(),
            room: Condvar::new(),
            health,
        }
    }

    /// Waits for room in the queue and holds its end.
    pub(super) fn slot(&self) -> io::Result<Slot<'_>> {
        let mut queue = self.queue.lock();
        while QUEUE_LEN_MAX <= queue.len && !queue.failed {
            self.room.wait(&mut queue);
        }
        self.health.check()?;
        Ok(Slot { queue, writer: self })
    }

    /// Lets [`Writer::run`] write what is queued and return.
    pub(super) fn stop(&self) {
        self.queue.lock().stopping = true;
        self.wake.notify_all();
    }

    /// Writes until stopped or failed. `wrote` is told how many bytes each write had.
    pub(super) fn run(&self, engine: &Engine, wrote: impl Fn(usize)) {
        while let Some(items) = self.take() {
            match write(engine, &items) {
                Ok(len) => wrote(len),
                Err(error) => return self.fail(items, error),
            }
            for item in items {
                item.group.view.lock().written(item.number);
                if let Some(done) = item.done {
                    done(Ok(()));
                }
            }
        }
    }

    /// Waits for work; returns nothing when stopped and done.
    fn take(&self) -> Option<Vec<Queued>> {
        let mut queue = self.queue.lock();
        while !queue.wanted && !queue.stopping && queue.len < QUEUE_LEN_MAX {
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
        queue.wanted = queue.items.iter().any(|item| item.done.is_some());
        self.room.notify_all();
        Some(taken)
    }

    fn fail(&self, items: Vec<Queued>, error: io::Error) {
        let failure = self.health.fail(Failure::of_node("writing the log", error));
        for done in items.into_iter().filter_map(|item| item.done) {
            done(Err(failure.clone().into()));
        }
        self.give_up();
    }

    /// Refuses what is queued, and lets go of those who wait for room; after the node has failed.
    pub(super) fn give_up(&self) {
        let mut queue = self.queue.lock();
        queue.failed = true;
        let rest = std::mem::take(&mut queue.items);
        drop(queue);
        self.room.notify_all();
        let refused = || self.health.check().map_err(io::Error::from);
        for done in rest.into_iter().filter_map(|item| item.done) {
            done(refused());
        }
    }
}

impl Slot<'_> {
    /// Returns the number of the write that is queued next.
    pub(super) fn number(&self) -> u64 {
        self.queue.numbered + 1
    }

    /// Queues a write. The writer wakes if somebody waits for it to be done; otherwise it rides along with the next.
    pub(super) fn push(mut self, group: Arc<Group>, write: Write, done: Option<Done>) {
        let queue = &mut self.queue;
        queue.numbered += 1;
        queue.len += write.len();
        queue.wanted |= done.is_some();
        let wake = queue.wanted || QUEUE_LEN_MAX <= queue.len;
        let number = queue.numbered;
        queue.items.push(Queued {
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

/// Writes and syncs. raft-engine panics where a sync fails; nothing of it is used after that.
fn write(engine: &Engine, items: &[Queued]) -> io::Result<usize> {
    let write = || -> raft_engine::Result<usize> {
        let mut batch = LogBatch::with_capacity(items.len());
        for item in items {
            item.write.add_to(&mut batch, item.group.id)?;
        }
        engine.write(&mut batch, true)
    };
    guarded(write)
}

/// Calls raft-engine; a panic of it becomes an error.
pub(super) fn guarded<T>(call: impl FnOnce() -> raft_engine::Result<T>) -> io::Result<T> {
    match caught(call) {
        Ok(result) => result.map_err(io::Error::other),
        Err(panicked) => Err(io::Error::other(panicked)),
    }
}
