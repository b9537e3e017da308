//! Rows of one group with their applied state and their checkpoints: the base of every machine.
//!
//! ```text
//!   apply ──write lock──> state, table, applied ──freeze──> frozen rows + GROUP row ──> engine, one batch
//!   read  ──read lock───>        │                                                        │
//!                                └──────────── drop frozen, durable <──── checkpoint ─────┘
//! ```
//!
//! # Invariants
//!
//! 1. Rows and the GROUP row with their applied state reach the engine in one batch.
//! 2. [`GroupRows::durable`] is never ahead of the disk.
//! 3. Applying continues during a checkpoint, up to [`MEMORY_LEN_MAX`]: then it waits for one.
//! 4. A change that fails or panics before its commit closes the rows: the memory is never read, frozen or made durable
//!    again, and opening the rows again finds the last checkpoint.
//! 5. An install number is allocated once, also across crashes.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use stead_state::rows::{Rows, RowsMut, Unreadable};
use stead_types::GroupId;
use stead_types::planted::{self, Bug};

use crate::background::Background;
use crate::engine::{Engine, RowChange};
use crate::machine::{AppliedState, MachineError};
use crate::table::Table;

mod bulk_writer;
mod erase;
mod group_row;
mod installs;

pub use bulk_writer::BulkWriter;
pub use erase::erase;

/// Rows in memory that start a checkpoint, on a node whose [`Stagger`](crate::background::Stagger) is zero.
pub const CHECKPOINT_ROWS: usize = 50_000;

/// Bytes in memory that start a checkpoint, on such a node.
pub const CHECKPOINT_LEN: usize = 32 << 20;

/// Bytes in memory beyond which applying waits for a checkpoint.
pub const MEMORY_LEN_MAX: usize = 128 << 20;

/// Room on the disk that a checkpoint needs beside its rows.
const CHECKPOINT_ROOM: usize = 16 << 20;

/// State that a group's lock guards.
pub struct Inner<S> {
    /// The machine's own state, as of `applied`.
    pub state: S,
    /// The rows, as of `applied`.
    pub table: Table,
    /// The applied state.
    pub applied: AppliedState,
    /// Number of the current install: the prefix of the rows' keys.
    pub install: u32,
    /// A change was dropped before its commit.
    is_incomplete: bool,
}

/// Error after a change of a group's rows failed or panicked: the memory holds the state neither before nor after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a change of the rows of group {0} is incomplete: restart the node")]
pub struct IncompleteChange(pub GroupId);

/// Error when every install number has been allocated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("group {0} has installed {max} snapshots, the limit of its install number: replace the node", max = u32::MAX)]
struct InstallNumbersExhausted(GroupId);

impl From<IncompleteChange> for Unreadable {
    fn from(incomplete: IncompleteChange) -> Self {
        Self(Box::new(incomplete))
    }
}

impl From<IncompleteChange> for MachineError {
    fn from(incomplete: IncompleteChange) -> Self {
        failed("using a group's rows")(incomplete)
    }
}

/// Guard with exclusive access to a group's rows, for one change of rows, state and applied state together. Dropped
/// without [`ChangeGuard::commit`], as by an error or a panic, it closes the rows.
pub struct ChangeGuard<'a, S> {
    inner: RwLockWriteGuard<'a, Inner<S>>,
    is_whole: bool,
}

impl<S> ChangeGuard<'_, S> {
    /// Ends the change: rows, state and applied state agree again.
    pub fn commit(mut self) {
        self.is_whole = true;
    }
}

impl<S> Deref for ChangeGuard<'_, S> {
    type Target = Inner<S>;

    fn deref(&self) -> &Inner<S> {
        &self.inner
    }
}

impl<S> DerefMut for ChangeGuard<'_, S> {
    fn deref_mut(&mut self) -> &mut Inner<S> {
        &mut self.inner
    }
}

impl<S> Drop for ChangeGuard<'_, S> {
    fn drop(&mut self) {
        if !self.is_whole {
            self.inner.is_incomplete = true;
        }
    }
}

/// Rows of one group.
pub struct GroupRows<S> {
    group: GroupId,
    engine: Arc<dyn Engine>,
    background: Arc<Background>,
    inner: RwLock<Inner<S>>,
    durable: Mutex<AppliedState>,
    /// Locked while a checkpoint is written: there is one at a time.
    checkpoint: Mutex<()>,
    /// A checkpoint is queued in the background.
    is_checkpoint_queued: AtomicBool,
    /// Writes the machine's memory to rows.
    flush: Flush<S>,
}

/// Function that writes a machine's memory to its rows, before each checkpoint.
pub type Flush<S> = fn(&mut S, &mut Table);

impl<S: Send + Sync + 'static> GroupRows<S> {
    /// Opens the rows of a group; `load` reads the machine's state out of them, given their install number.
    pub fn open(
        engine: Arc<dyn Engine>,
        background: Arc<Background>,
        group: GroupId,
        load: impl FnOnce(&Table, u32) -> Result<S, MachineError>,
    ) -> Result<Arc<Self>, MachineError> {
        Self::open_with_flush(engine, background, group, load, |_, _| {})
    }

    /// Opens the rows as [`GroupRows::open`] does, for a machine whose memory becomes rows only at checkpoints.
    pub fn open_with_flush(
        engine: Arc<dyn Engine>,
        background: Arc<Background>,
        group: GroupId,
        load: impl FnOnce(&Table, u32) -> Result<S, MachineError>,
        flush: Flush<S>,
    ) -> Result<Arc<Self>, MachineError> {
        let table = Table::new(engine.clone());
        let found = table
            .get(&group_row::key(group))
            .map_err(failed("reading the applied state"))?;
        let group_row::GroupRow { applied, install } = match found {
            None => group_row::GroupRow::default(),
            Some(value) => group_row::decode(value).map_err(failed("reading the applied state"))?,
        };
        let state = load(&table, install)?;
        let durable = Mutex::new(applied.clone());
        Ok(Arc::new(Self {
            group,
            engine,
            background,
            inner: RwLock::new(Inner {
                state,
                table,
                applied,
                install,
                is_incomplete: false,
            }),
            durable,
            checkpoint: Mutex::new(()),
            is_checkpoint_queued: AtomicBool::new(false),
            flush,
        }))
    }

    /// Returns the group.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Locks the rows for reading; applying waits meanwhile, so hold it briefly.
    pub fn read(&self) -> Result<RwLockReadGuard<'_, Inner<S>>, IncompleteChange> {
        let inner = self.inner.read();
        match inner.is_incomplete {
            false => Ok(inner),
            true => Err(IncompleteChange(self.group)),
        }
    }

    /// Locks the rows for a change, such as applying an entry. Call [`ChangeGuard::commit`] at its end, then
    /// [`GroupRows::checkpoint_if_due`].
    pub fn change(&self) -> Result<ChangeGuard<'_, S>, IncompleteChange> {
        let inner = self.inner.write();
        match inner.is_incomplete {
            false => Ok(ChangeGuard { inner, is_whole: false }),
            true => Err(IncompleteChange(self.group)),
        }
    }

    /// Returns the applied state; of closed rows, the durable one.
    pub fn applied(&self) -> AppliedState {
        match self.read() {
            Ok(inner) => inner.applied.clone(),
            Err(IncompleteChange(_)) => self.durable(),
        }
    }

    /// Returns the applied state as of which the rows are durable.
    pub fn durable(&self) -> AppliedState {
        self.durable.lock().clone()
    }

    /// Writes a checkpoint in the background, and waits for it; applying continues meanwhile.
    pub fn checkpoint(self: &Arc<Self>) -> Result<(), MachineError> {
        let this = self.clone();
        let group = Some(self.group);
        self.background
            .run(group, "writing a checkpoint", move || this.write_checkpoint())
    }

    /// Tells whether the disk has room for a checkpoint. One that has not is better put off, since its failure stops the
    /// node; the log has what it would make durable.
    pub fn has_checkpoint_room(&self) -> bool {
        let Some(free) = self.engine.disk_free() else {
            return true;
        };
        let len = self.inner.read().table.memory_len();
        u64::try_from(len + CHECKPOINT_ROOM).is_ok_and(|needed| needed <= free)
    }

    fn write_checkpoint(&self) -> Result<(), MachineError> {
        let _one = self.checkpoint.lock();
        let mut inner = self.change()?;
        if inner.table.dirty_rows() == 0 && inner.applied == *self.durable.lock() {
            inner.commit();
            return Ok(());
        }
        let mut applied = inner.applied.clone();
        if planted::is(Bug::CheckpointNotWritten) {
            *self.durable.lock() = applied;
            return Ok(());
        }
        let Inner { state, table, .. } = &mut *inner;
        if !planted::is(Bug::WindowsNotFlushed) {
            (self.flush)(state, table);
        }
        inner.put_group_row(self.group);
        let frozen = inner.table.freeze();
        inner.commit();
        let written = self.engine.write(&mut frozen.changes());
        written.map_err(failed("writing a checkpoint"))?;
        self.engine.checkpoint().map_err(failed("syncing a checkpoint"))?;
        self.inner.write().table.drop_frozen();
        if planted::is(Bug::DurableAheadOfFreeze) {
            applied = self.applied();
        }
        *self.durable.lock() = applied;
        Ok(())
    }

    /// Starts a checkpoint if enough was applied since the last one, and waits for it beyond [`MEMORY_LEN_MAX`]. A
    /// failure stops the node.
    pub fn checkpoint_if_due(self: &Arc<Self>) -> Result<(), MachineError> {
        let (rows, len) = {
            let inner = self.read()?;
            (inner.table.dirty_rows(), inner.table.memory_len())
        };
        if MEMORY_LEN_MAX <= len {
            return self.checkpoint();
        }
        let stagger = self.background.stagger;
        let (rows_due, len_due) = (stagger.size(CHECKPOINT_ROWS), stagger.size(CHECKPOINT_LEN));
        let is_due = rows_due <= rows || len_due <= len;
        if is_due && self.has_checkpoint_room() && !self.is_checkpoint_queued.swap(true, Ordering::AcqRel) {
            let this = self.clone();
            self.background
                .submit(Some(self.group), "writing a checkpoint", move || {
                    this.is_checkpoint_queued.store(false, Ordering::Release);
                    this.write_checkpoint()
                });
        }
        Ok(())
    }

    /// Allocates the number of a new install, which no row has or ever had. It is used up even if the install fails.
    pub fn allocate_install(&self) -> Result<u32, MachineError> {
        let doing = "allocating an install number";
        let _one = self.checkpoint.lock();
        let current = self.read()?.install;
        let found = self.engine.get(&installs::key(self.group)).map_err(failed(doing))?;
        let highest_allocated = match found {
            None => 0,
            Some(value) => installs::decode(value).map_err(failed(doing))?,
        };
        let highest = highest_allocated.max(current);
        let next = highest.checked_add(1);
        let next = next.ok_or_else(|| failed(doing)(InstallNumbersExhausted(self.group)))?;
        let row = RowChange {
            key: installs::key(self.group),
            value: Some(installs::encode(next)),
        };
        self.engine
            .write(&mut std::iter::once(row))
            .map_err(failed("writing the install number"))?;
        self.engine.checkpoint().map_err(failed("syncing the install number"))?;
        Ok(next)
    }

    /// Returns a writer for the rows of a new install, which nobody reads yet. It bypasses the memtables.
    pub fn bulk_writer(&self) -> BulkWriter {
        BulkWriter::new(self.engine.clone())
    }

    /// Switches to `install`, once a [`BulkWriter`] has written its rows, and returns when that is durable. The rows of
    /// other installs stay, for the machine to remove.
    pub fn activate_install(
        self: &Arc<Self>,
        state: S,
        install: u32,
        applied: AppliedState,
    ) -> Result<(), MachineError> {
        self.engine.checkpoint().map_err(failed("syncing a snapshot"))?;
        {
            let mut inner = self.change()?;
            inner.state = state;
            inner.install = install;
            inner.applied = applied;
            inner.put_group_row(self.group);
            inner.commit();
        }
        self.checkpoint()
    }
}

impl<S> Inner<S> {
    fn put_group_row(&mut self, group: GroupId) {
        let row = group_row::GroupRow {
            applied: self.applied.clone(),
            install: self.install,
        };
        self.table.put(group_row::key(group), group_row::encode(&row));
    }
}

/// Returns a function that wraps an error as the [`MachineError`] of an operation.
pub fn failed<E>(doing: &'static str) -> impl FnOnce(E) -> MachineError
where
    E: std::error::Error + Send + Sync + 'static,
{
    move |error| MachineError {
        doing,
        source: Box::new(error),
    }
}

#[cfg(test)]
mod group_rows_test;
