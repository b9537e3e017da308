//! All storage of a node, once it is open: its parts, the rebuild of its rows, and its orderly close.

use std::{sync::Arc, time::Duration};

use stead_types::{GroupId, Incarnation};

use super::{
    error::Error,
    rows::{open_rows, set_aside},
};
use crate::{
    background::Background,
    data_dir::{self, DataDir, rewrite},
    engine::{self, Engine},
    health::Health,
    log::LogStore,
};

/// All storage of a node. Dropping it releases the lock of the data directory, so keep it until every user of a part is
/// gone.
pub struct Store {
    /// The rows of all groups.
    pub engine: Arc<dyn Engine>,
    /// The Raft log of all groups.
    pub log: Arc<dyn LogStore>,
    /// The executor of checkpoints: a thread, or the calling one for storage in memory.
    pub background: Arc<Background>,
    /// The node's health.
    pub health: Health,
    /// The data directory; none for storage in memory.
    pub dir: Option<DataDir>,
}

impl Store {
    /// Tells whether a part of it is still referenced elsewhere.
    pub fn is_in_use(&self) -> bool {
        let is_shared = 1 < Arc::strong_count(&self.log) || 1 < Arc::strong_count(&self.background);
        is_shared || 1 < Arc::strong_count(&self.engine) || self.log.is_in_use()
    }

    /// Sets aside rows that were opened but cannot be read, and opens empty ones. The engine must not be referenced
    /// elsewhere.
    ///
    /// # Errors
    ///
    /// When a file operation fails.
    pub fn set_rows_aside(self, error: &(dyn std::error::Error + 'static)) -> Result<Self, Error> {
        let Self {
            engine,
            log,
            background,
            health,
            dir,
        } = self;
        let kind = engine.kind();
        drop(engine);
        let engine = match &dir {
            None => engine::memory::Disk::default().open(),
            Some(dir) => {
                set_aside(dir, error, None)?;
                open_rows(dir, kind, &background)?
            }
        };
        Ok(Self {
            engine: engine::cached(engine::guarded_once_opened(engine, health.clone())),
            log,
            background,
            health,
            dir,
        })
    }

    /// Records that the rows are rebuilt.
    ///
    /// # Errors
    ///
    /// When a file operation fails.
    pub fn finish_rebuild(&self) -> Result<(), Error> {
        Ok(self.dir.as_ref().map_or(Ok(()), DataDir::finish_rebuild)?)
    }

    /// Returns the entry that the rebuilt rows of a group must reach, if a rebuild is running and has one.
    ///
    /// # Errors
    ///
    /// When a file operation fails.
    pub fn rebuild_target(&self) -> Result<Option<(GroupId, u64)>, Error> {
        Ok(self.dir.as_ref().map_or(Ok(None), DataDir::rebuild_target)?)
    }

    /// Returns the incarnation of a recovery of the directory that has begun and not ended.
    ///
    /// # Errors
    ///
    /// When a file operation fails.
    pub fn recovery(&self) -> Result<Option<Incarnation>, Error> {
        Ok(self.dir.as_ref().map_or(Ok(None), DataDir::recovery)?)
    }

    /// Returns a function that returns the time since the last rebuild ended; `None` if there was none.
    pub fn time_since_rebuild(&self) -> impl Fn() -> Option<Duration> + Send + Sync + use<> {
        let mark = self.dir.as_ref().map(DataDir::rebuilt_mark);
        move || mark.as_deref().and_then(data_dir::age)
    }

    /// Sets aside the rows of a failed node if its failure asks for a rebuild. Rows in memory stay, since they cannot
    /// be damaged. The engine must not be referenced elsewhere.
    ///
    /// # Errors
    ///
    /// When a file operation fails.
    pub fn set_aside_failed_rows(self) -> Result<(), Error> {
        let Self {
            engine,
            log,
            background,
            health,
            dir,
        } = self;
        // The threads of each end with it.
        drop((log, engine, background));
        if let (Some(failure), Some(dir)) = (health.failure(), dir)
            && let Some(rebuild) = failure.rebuild
        {
            set_aside(&dir, &*failure.source, rebuild.target)?;
        }
        Ok(())
    }

    /// Closes the storage in order: everything is synced, and the next start trusts the files. Returns false if that
    /// cannot be guaranteed, because a part is in use or has failed.
    ///
    /// # Errors
    ///
    /// When a file cannot be synced.
    pub fn close(self) -> Result<bool, Error> {
        // An error of the engine's own threads may not be reported yet.
        if self.engine.checkpoint().is_err() || self.health.failure().is_some() || self.is_in_use() {
            return Ok(false);
        }
        let Self {
            engine,
            log,
            background,
            health,
            dir,
        } = self;
        // The threads of each end with it, and write what is still queued: that may fail too, and a later sync would
        // not report it.
        drop((log, engine, background));
        if health.failure().is_some() {
            return Ok(false);
        }
        if let Some(dir) = dir {
            rewrite::sync(&dir.log())?;
            rewrite::sync(&dir.rows())?;
            dir.end_clean()?;
        }
        Ok(true)
    }

    /// Tells whether this opening created the storage: the node has no state, not even its votes.
    pub fn created(&self) -> bool {
        self.dir.as_ref().is_some_and(DataDir::created)
    }
}
