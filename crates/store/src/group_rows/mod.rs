//! The rows of one group with what has been applied to them, and their checkpoints: what every machine is built on.
//!
//! ```text
//!   apply ──write lock──> state, table, applied ──freeze──> frozen rows + GROUP row ──> engine, one batch
//!   read  ──read lock───>        │                                                        │
//!                                └──────────────── thaw, durable <──── checkpoint ────────┘
//! ```
//!
//! # Invariants
//!
//! 1. Rows and the GROUP row that says what was applied to them reach the engine in one batch.
//! 2. [`GroupRows::durable`] is never ahead of the disk.
//! 3. Applying goes on during a checkpoint, until [`MEMORY_LEN_MAX`]: then it waits for one.
//! 4. A change that fails or panics half way closes the rows: what is in memory is never read, frozen or made durable
//!    again, and opening the rows anew finds the last checkpoint.
//! 5. An install number is given out once, also across crashes.

use std::ops::{Deref, DerefMut};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::{Mutex, RwLock, RwLockReadGuard, RwLockWriteGuard};
use stead_state::rows::{Rows, RowsMut, Unreadable};
use stead_types::GroupId;
use stead_types::planted::{self, Bug};

use crate::background::Background;
use crate::engine::{Change, Engine};
use crate::machine::{Applied, Failed};
use crate::table::Table;

mod fill;
mod installs;
mod row;

pub use fill::Filler;

/// Rows in memory that are worth a checkpoint.
pub const CHECKPOINT_ROWS: usize = 50_000;

/// Bytes in memory that are worth a checkpoint.
pub const CHECKPOINT_LEN: usize = 32 << 20;

/// Bytes in memory beyond which applying waits for a checkpoint.
pub const MEMORY_LEN_MAX: usize = 128 << 20;

/// What a group's lock guards.
pub struct Inner<S> {
    /// The machine's own state, as of `applied`.
    pub state: S,
    /// The rows, as of `applied`.
    pub table: Table,
    /// What has been applied.
    pub applied: Applied,
    /// Counts the snapshots that this node has installed for the group: the install of the rows' place.
    pub install: u32,
    /// A change was given up half way.
    is_half_changed: bool,
}

/// A change of a group's rows failed or panicked: what is in memory is the state neither before it nor after it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("a change of the rows of group {0} was given up half way: the node must be started again")]
pub struct HalfChanged(pub GroupId);

/// Every install number has been given out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("group {0} has taken in {max} snapshots, the most that its rows can be counted by: replace the node", max = u32::MAX)]
struct InstallsUsedUp(GroupId);

impl From<HalfChanged> for Unreadable {
    fn from(half_changed: HalfChanged) -> Self {
        Self(Box::new(half_changed))
    }
}

impl From<HalfChanged> for Failed {
    fn from(half_changed: HalfChanged) -> Self {
        failed("using a group's rows")(half_changed)
    }
}

/// Exclusive access to a group's rows, for one change of rows, state and applied together. Dropped without
/// [`Changing::commit`], as by an error or a panic, it closes the rows.
pub struct Changing<'a, S> {
    inner: RwLockWriteGuard<'a, Inner<S>>,
    is_whole: bool,
}

impl<S> Changing<'_, S> {
    /// Ends the change: rows, state and applied agree again.
    pub fn commit(mut self) {
        self.is_whole = true;
    }
}

impl<S> Deref for Changing<'_, S> {
    type Target = Inner<S>;

    fn deref(&self) -> &Inner<S> {
        &self.inner
    }
}

impl<S> DerefMut for Changing<'_, S> {
    fn deref_mut(&mut self) -> &mut Inner<S> {
        &mut self.inner
    }
}

impl<S> Drop for Changing<'_, S> {
    fn drop(&mut self) {
        if !self.is_whole {
            self.inner.is_half_changed = true;
        }
    }
}

/// The rows of one group.
pub struct GroupRows<S> {
    group: GroupId,
    engine: Arc<dyn Engine>,
    background: Arc<Background>,
    inner: RwLock<Inner<S>>,
    durable: Mutex<Applied>,
    /// Held while a checkpoint is written: there is one at a time.
    checkpoint: Mutex<()>,
    /// A checkpoint waits in the background.
    queued: AtomicBool,
    /// Writes what the machine holds in memory beside the rows.
    flush: Flush<S>,
}

/// Writes what a machine holds in memory to its rows, before each checkpoint.
pub type Flush<S> = fn(&mut S, &mut Table);

impl<S: Send + Sync + 'static> GroupRows<S> {
    /// Opens the rows of a group; `load` reads the machine's state out of them, given the install they stand under.
    pub fn open(
        engine: Arc<dyn Engine>,
        background: Arc<Background>,
        group: GroupId,
        load: impl FnOnce(&Table, u32) -> Result<S, Failed>,
    ) -> Result<Arc<Self>, Failed> {
        Self::open_flushing(engine, background, group, load, |_, _| {})
    }

    /// As [`GroupRows::open`], for a machine that holds in memory what becomes rows at checkpoints only.
    pub fn open_flushing(
        engine: Arc<dyn Engine>,
        background: Arc<Background>,
        group: GroupId,
        load: impl FnOnce(&Table, u32) -> Result<S, Failed>,
        flush: Flush<S>,
    ) -> Result<Arc<Self>, Failed> {
        let table = Table::new(engine.clone());
        let found = table
            .get(&row::key(group))
            .map_err(failed("reading what was applied"))?;
        let row::Group { applied, install } = match found {
            None => row::Group::default(),
            Some(value) => row::decode(value).map_err(failed("reading what was applied"))?,
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
                is_half_changed: false,
            }),
            durable,
            checkpoint: Mutex::new(()),
            queued: AtomicBool::new(false),
            flush,
        }))
    }

    /// Returns the group.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Reads; applying waits meanwhile, so hold it briefly.
    pub fn read(&self) -> Result<RwLockReadGuard<'_, Inner<S>>, HalfChanged> {
        let inner = self.inner.read();
        match inner.is_half_changed {
            false => Ok(inner),
            true => Err(HalfChanged(self.group)),
        }
    }

    /// Begins a change, such as applying an entry. Call [`Changing::commit`] at its end, then
    /// [`GroupRows::checkpoint_if_due`].
    pub fn change(&self) -> Result<Changing<'_, S>, HalfChanged> {
        let inner = self.inner.write();
        match inner.is_half_changed {
            false => Ok(Changing { inner, is_whole: false }),
            true => Err(HalfChanged(self.group)),
        }
    }

    /// Returns what has been applied; of rows that are closed, what is durable.
    pub fn applied(&self) -> Applied {
        match self.read() {
            Ok(inner) => inner.applied.clone(),
            Err(HalfChanged(_)) => self.durable(),
        }
    }

    /// Returns up to where the rows are durable.
    pub fn durable(&self) -> Applied {
        self.durable.lock().clone()
    }

    /// Makes durable what has been applied, in the background, and waits for that; applying goes on meanwhile.
    pub fn checkpoint(self: &Arc<Self>) -> Result<(), Failed> {
        let this = self.clone();
        let group = Some(self.group);
        self.background
            .run(group, "writing a checkpoint", move || this.write_checkpoint())
    }

    fn write_checkpoint(&self) -> Result<(), Failed> {
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
        self.inner.write().table.thaw();
        if planted::is(Bug::DurableAheadOfFreeze) {
            applied = self.applied();
        }
        *self.durable.lock() = applied;
        Ok(())
    }

    /// Starts a checkpoint if enough was applied since the last one, and waits for it if far too much was. A failure
    /// stops the node.
    pub fn checkpoint_if_due(self: &Arc<Self>) -> Result<(), Failed> {
        let (rows, len) = {
            let inner = self.read()?;
            (inner.table.dirty_rows(), inner.table.memory_len())
        };
        if MEMORY_LEN_MAX <= len {
            return self.checkpoint();
        }
        let stagger = self.background.stagger;
        let (rows_due, len_due) = (stagger.size(CHECKPOINT_ROWS), stagger.size(CHECKPOINT_LEN));
        if (rows_due <= rows || len_due <= len) && !self.queued.swap(true, Ordering::AcqRel) {
            let this = self.clone();
            self.background
                .submit(Some(self.group), "writing a checkpoint", move || {
                    this.queued.store(false, Ordering::Release);
                    this.write_checkpoint()
                });
        }
        Ok(())
    }

    /// Gives out the number of a new install, which no row bears or has ever borne. It is used up even if nothing comes
    /// of it.
    pub fn next_install(&self) -> Result<u32, Failed> {
        let doing = "counting installs";
        let _one = self.checkpoint.lock();
        let current = self.read()?.install;
        let found = self.engine.get(&installs::key(self.group)).map_err(failed(doing))?;
        let given_out = match found {
            None => 0,
            Some(value) => installs::decode(value).map_err(failed(doing))?,
        };
        let highest = given_out.max(current);
        let next = highest.checked_add(1);
        let next = next.ok_or_else(|| failed(doing)(InstallsUsedUp(self.group)))?;
        let row = Change {
            key: installs::key(self.group),
            value: Some(installs::encode(next)),
        };
        self.engine
            .write(&mut std::iter::once(row))
            .map_err(failed("counting an install"))?;
        self.engine
            .checkpoint()
            .map_err(failed("syncing the count of installs"))?;
        Ok(next)
    }

    /// Returns a writer for rows that nobody reads yet: a snapshot's, under a new install. They go past memory.
    pub fn filler(&self) -> Filler {
        Filler::new(self.engine.clone())
    }

    /// Replaces everything, once a [`Filler`] has written the rows of `install`, and returns when that is durable. The
    /// rows of other installs stay, for the machine to erase.
    pub fn swap(self: &Arc<Self>, state: S, install: u32, applied: Applied) -> Result<(), Failed> {
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
        let row = row::Group {
            applied: self.applied.clone(),
            install: self.install,
        };
        self.table.put(row::key(group), row::encode(&row));
    }
}

/// Turns an error into the end of a machine.
pub fn failed<E>(doing: &'static str) -> impl FnOnce(E) -> Failed
where
    E: std::error::Error + Send + Sync + 'static,
{
    move |error| Failed {
        doing,
        source: Box::new(error),
    }
}

#[cfg(test)]
mod group_rows_test;
