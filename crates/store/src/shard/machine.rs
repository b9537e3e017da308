//! Applying, reading and checkpoints.

use std::sync::Arc;

use stead_state::{
    codec::Entry,
    rows::{Place, Unreadable},
    shard::{Answer, Shard},
};
use stead_types::GroupId;

use super::{View, cuts::Cuts, snapshot, sweep::Stale};
use crate::{
    background::Background,
    digests::{Digests, StateDigest},
    engine::Engine,
    group_rows::{GroupRows, HalfChanged, Inner, failed},
    machine::{self, Applied, Committed, Failed, Machine, Payload, Snapshot},
    table::Table,
};

/// Rows that maintenance looks at for each command that was applied: more than one write leaves behind, so that what is
/// to be removed does not pile up.
const MAINTENANCE_ROWS_PER_COMMAND: usize = 4;
/// Rows that one step of maintenance looks at, so that readers do not wait long.
const MAINTENANCE_STEP_ROWS: usize = 1024;
/// Steps of maintenance before a checkpoint.
const MAINTENANCE_STEPS_MAX: usize = 16;

/// The state that a group's lock guards beside its rows.
pub(super) struct Held {
    pub(super) shard: Shard,
    pub(super) stale: Stale,
    pub(super) cuts: Cuts,
    digests: Digests,
}

impl Held {
    /// Returns what is held of the rows of a place.
    pub(super) fn open(place: Place, table: &Table) -> Result<Self, Unreadable> {
        Ok(Self {
            shard: Shard::open(place, table)?,
            stale: Stale::default(),
            cuts: Cuts::default(),
            digests: Digests::default(),
        })
    }

    /// Writes what has changed; snapshots being read keep what is overwritten.
    pub(super) fn flush(&mut self, table: &mut Table) {
        self.shard.flush(&mut self.cuts.keeping(table));
    }
}

/// The machine of a data group.
pub struct ShardMachine {
    pub(super) rows: Arc<GroupRows<Held>>,
    pub(super) engine: Arc<dyn Engine>,
    pub(super) group: GroupId,
    /// Each snapshot being read or taken in holds one more.
    pub(super) pin: Arc<()>,
}

impl ShardMachine {
    /// Opens a group's machine at its last checkpoint.
    pub fn open(engine: Arc<dyn Engine>, background: Arc<Background>, group: GroupId) -> Result<Self, Failed> {
        let load = |table: &Table, install| {
            Held::open(Place { group, install }, table).map_err(failed("reading a group's tenants"))
        };
        Ok(Self {
            rows: GroupRows::open_flushing(engine.clone(), background, group, load, Held::flush)?,
            engine,
            group,
            pin: Arc::new(()),
        })
    }

    /// Returns the group.
    pub fn group(&self) -> GroupId {
        self.group
    }

    /// Reads; applying waits meanwhile. Nothing inside may read this machine again: a writer that waits between the two
    /// lets the second one wait for it, and waits for the first one itself. Debug builds panic there.
    ///
    /// # Errors
    ///
    /// After an entry failed half way: nothing is read any more, and the node must stop.
    pub fn read<T>(&self, read: impl FnOnce(View<'_>) -> T) -> Result<T, HalfChanged> {
        #[cfg(debug_assertions)]
        let _once = super::once::Once::new(std::ptr::from_ref(self).addr());
        let inner = self.rows.read()?;
        Ok(read(View {
            shard: &inner.state.shard,
            rows: &inner.table,
            applied: inner.applied.index,
        }))
    }

    /// Removes some of what nothing reads any more, and tells whether there is more.
    pub fn maintain(&self) -> Result<bool, Failed> {
        let mut inner = self.rows.change()?;
        self.maintain_rows(&mut inner, MAINTENANCE_STEP_ROWS)?;
        let more = inner.state.shard.needs_maintenance() || inner.state.stale.may_be_left();
        inner.commit();
        Ok(more && !self.is_pinned())
    }

    fn is_pinned(&self) -> bool {
        Arc::strong_count(&self.pin) > 1
    }

    fn maintain_rows(&self, inner: &mut Inner<Held>, rows_max: usize) -> Result<(), Failed> {
        if self.is_pinned() {
            return Ok(());
        }
        let Held { shard, stale, .. } = &mut inner.state;
        if shard.needs_maintenance() {
            shard
                .maintain(&mut inner.table, rows_max)
                .map_err(failed("removing old versions"))?;
        } else if stale.may_be_left() {
            stale
                .remove(shard.place(), &mut inner.table, rows_max)
                .map_err(failed("removing an old install"))?;
        }
        Ok(())
    }

    fn apply_one(&self, entry: Committed) -> Result<Vec<Answer>, Failed> {
        let mut guard = self.rows.change()?;
        let inner = &mut *guard;
        inner.applied.check_next(entry.index)?;
        let (mut answers, mut part) = (Vec::new(), None);
        match entry.payload {
            Payload::Blank => {}
            Payload::Membership(membership) => inner.applied.membership = membership,
            Payload::Commands(bytes) => {
                let parsed = Entry::parse(bytes).map_err(failed("reading a log entry"))?;
                inner.applied.time = parsed.time.max(inner.applied.time);
                let Held { digests, shard, .. } = &mut inner.state;
                part = digests.due(parsed.time, shard.records().len());
                answers = inner
                    .state
                    .shard
                    .apply(&mut inner.table, entry.index, parsed, !self.is_pinned())
                    .map_err(failed("applying an entry"))?;
            }
        }
        inner.applied.index = entry.index;
        inner.applied.log_id = entry.log_id;
        if let Some(part) = part {
            let Held { digests, shard, .. } = &mut inner.state;
            digests.keep(StateDigest {
                index: entry.index,
                digest: shard.digest(|tenant| part.has(tenant.get())),
            });
        }
        if inner.state.shard.needs_maintenance() {
            self.maintain_rows(inner, answers.len() * MAINTENANCE_ROWS_PER_COMMAND)?;
        }
        guard.commit();
        Ok(answers)
    }
}

impl Machine for ShardMachine {
    fn applied(&self) -> Applied {
        self.rows.applied()
    }

    fn durable(&self) -> Applied {
        self.rows.durable()
    }

    fn apply(&self, entries: Vec<Committed>) -> Result<Vec<Vec<machine::Answer>>, Failed> {
        let mut all = Vec::with_capacity(entries.len());
        for entry in entries {
            // Each entry takes the lock anew, so that readers wait for one entry at most.
            let answers = self.apply_one(entry)?;
            all.push(
                answers
                    .into_iter()
                    .map(|answer| Box::new(answer) as machine::Answer)
                    .collect(),
            );
        }
        self.rows.checkpoint_if_due()?;
        Ok(all)
    }

    fn checkpoint(&self) -> Result<(), Failed> {
        for _ in 0..MAINTENANCE_STEPS_MAX {
            if !self.maintain()? {
                break;
            }
        }
        self.rows.checkpoint()
    }

    fn snapshot(&self) -> Result<Snapshot, Failed> {
        snapshot::cut(self)
    }

    fn install(&self, snapshot: Snapshot) -> Result<(), Failed> {
        super::install::install(self, snapshot)
    }

    fn digests(&self) -> Vec<StateDigest> {
        let inner = self.rows.read();
        inner.map_or_else(|_half_changed| Vec::new(), |inner| inner.state.digests.kept())
    }
}
