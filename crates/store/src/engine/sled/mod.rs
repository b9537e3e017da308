//! Engine on [sled](https://docs.rs/sled), with real syncs: the second engine, so that digests compare two wherever a
//! group has voters on both.
//!
//! One tree holds all rows, because batches are atomic within a tree and the space of many trees is not reclaimed. sled
//! cannot distinguish a failed sync from another failure: each ends its use. A large batch is written row by row, with
//! a redo log ([`redo`]) that makes it atomic.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use stead_state::rows::{Order, Row, Unreadable};

use super::{CACHE_LEN, Engine, Kind, RowChange, is_empty, unreadable};
use crate::room::free_bytes;

mod redo;
mod sync_shim;

use redo::Redo;

/// Tree that exists only to have something to sync.
const PROBE: &str = "sync-probe";

/// Most rows of a batch that sled applies itself, which blocks all reads meanwhile.
const BATCH_ROWS_MAX: usize = 64;

const LOCK_WAIT: Duration = Duration::from_millis(10);
const LOCK_WAITS_MAX: u32 = 300;

struct SledEngine {
    dir: PathBuf,
    database: sled::Db,
    redo: Redo,
    /// Locked by a write, since there is one redo log.
    writing: Mutex<()>,
}

/// Opens the engine in a directory, which is created if it is missing. Fails if its syncs would not reach the disk.
pub fn open(dir: &Path) -> io::Result<Arc<dyn Engine>> {
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(CACHE_LEN)
        .flush_every_ms(None);
    let database = open_waiting(&config)?;
    probe(&database)?;
    let engine = SledEngine {
        dir: dir.to_owned(),
        database,
        redo: Redo::new(dir),
        writing: Mutex::default(),
    };
    if let Some(batch) = engine.redo.read()? {
        engine.apply_redo(&batch)?;
    }
    Ok(Arc::new(engine))
}

/// Opens the database. Threads of one that was just dropped in this process may hold its lock a little longer; the lock
/// of the data directory excludes other processes.
fn open_waiting(config: &sled::Config) -> io::Result<sled::Db> {
    let mut waits = 0;
    loop {
        match config.open() {
            Err(sled::Error::Io(error)) if is_locked(&error) && waits < LOCK_WAITS_MAX => {
                waits += 1;
                thread::sleep(LOCK_WAIT);
            }
            Err(sled::Error::Io(error)) if is_locked(&error) => {
                return Err(io::Error::new(io::ErrorKind::WouldBlock, error));
            }
            opened => return Ok(opened?),
        }
    }
}

/// Tells whether the lock is held. sled wraps the cause in a text, and its kind is lost.
fn is_locked(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Other && error.to_string().starts_with("could not acquire lock")
}

fn probe(database: &sled::Db) -> io::Result<()> {
    let before = sync_shim::calls();
    let tree = database.open_tree(PROBE)?;
    let opened: u64 = tree
        .get("opened")?
        .map_or(0, |count| <[u8; 8]>::try_from(&*count).map_or(0, u64::from_le_bytes));
    tree.insert("opened", &(opened + 1).to_le_bytes())?;
    database.flush()?;
    if cfg!(target_os = "linux") && sync_shim::calls() == before {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the syncs of sled do not reach the disk in this build, so rows would be lost with power; \
             use a build of stead that links its own sync_file_range, or storage.engine = \"fjall\"",
        ));
    }
    Ok(())
}

impl SledEngine {
    fn apply(&self, changes: &[RowChange]) -> sled::Result<()> {
        let mut batch = sled::Batch::default();
        for RowChange { key, value } in changes {
            match value {
                Some(value) => batch.insert(&**key, &**value),
                None => batch.remove(&**key),
            }
        }
        self.database.apply_batch(batch)
    }

    /// Writes the rows of the redo log one by one, and removes it.
    fn apply_redo(&self, batch: &[RowChange]) -> io::Result<()> {
        for RowChange { key, value } in batch {
            match value {
                Some(value) => drop(self.database.insert(&**key, &**value)?),
                None => drop(self.database.remove(&**key)?),
            }
        }
        self.database.flush()?;
        self.redo.remove()
    }

    fn write_large(&self, batch: &[RowChange]) -> io::Result<()> {
        // Earlier batches must not be lost where this one survives.
        self.database.flush()?;
        self.redo.write(batch)?;
        self.apply_redo(batch)
    }
}

impl Engine for SledEngine {
    fn kind(&self) -> Kind {
        Kind::Sled
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        let value = self.database.get(key).map_err(unreadable)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn range<'a>(&'a self, range: Range<&[u8]>, order: Order) -> Box<dyn Iterator<Item = Row> + 'a> {
        if is_empty(&range) {
            return Box::new(std::iter::empty());
        }
        let rows = self.database.range(range);
        match order {
            Order::Ascending => Box::new(rows.map(row)),
            Order::Descending => Box::new(rows.rev().map(row)),
        }
    }

    fn write(&self, changes: &mut dyn Iterator<Item = RowChange>) -> io::Result<()> {
        let _writing = self.writing.lock();
        let batch: Vec<RowChange> = changes.collect();
        match batch.len() {
            0..=BATCH_ROWS_MAX => self.apply(&batch).map_err(io::Error::from),
            _ => self.write_large(&batch),
        }
    }

    fn checkpoint(&self) -> io::Result<()> {
        self.database.flush()?;
        Ok(())
    }

    fn disk_len(&self) -> u64 {
        self.database.size_on_disk().unwrap_or_default()
    }

    fn disk_free(&self) -> Option<u64> {
        free_bytes(&self.dir)
    }
}

fn row(row: sled::Result<(sled::IVec, sled::IVec)>) -> Row {
    let (key, value) = row.map_err(unreadable)?;
    Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)))
}

#[cfg(test)]
mod tests {
    use super::super::conformance::{self, put, write};
    use super::*;

    #[test]
    fn sled_conforms_to_engine() {
        let dir = tempfile::tempdir().unwrap();
        conformance::check(&mut || open(dir.path()).unwrap());
    }

    #[test]
    fn sled_checkpoint_calls_the_sync_shim() {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path()).unwrap();
        let before = sync_shim::calls();
        write(&*engine, vec![put("a", "1")]);
        engine.checkpoint().unwrap();
        assert!(before < sync_shim::calls());
    }
}
