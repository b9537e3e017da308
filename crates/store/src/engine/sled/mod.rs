//! Rows in [sled](https://docs.rs/sled), with real syncs: the second engine, so that digests compare two for ever.
//!
//! One tree for all rows, because batches are atomic within a tree and space of many trees is not reclaimed. sled has
//! no error that tells a failed sync from another failure: each ends its use. A large batch is written row by row, with a
//! file ([`redo`]) that makes it whole.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use stead_state::rows::{Order, Row, Unreadable};

use super::{CACHE_LEN, Change, Engine, Kind, is_empty, unreadable};

mod redo;
mod sync_shim;

use redo::Redo;

/// A tree that is only there to have something to sync.
const PROBE: &str = "sync-probe";

/// Rows that are written as one batch of sled's. Nobody reads meanwhile.
const BATCH_ROWS_MAX: usize = 64;

const LOCK_WAIT: Duration = Duration::from_millis(10);
const LOCK_WAITS_MAX: u32 = 300;

struct Sled {
    database: sled::Db,
    redo: Redo,
    /// Held by whoever writes: the file is one.
    writing: Mutex<()>,
}

/// Opens the engine in a directory, which is made if it is missing. Refuses if its syncs would not be real ones.
pub fn open(dir: &Path) -> io::Result<Arc<dyn Engine>> {
    let config = sled::Config::new()
        .path(dir)
        .cache_capacity(CACHE_LEN)
        .flush_every_ms(None);
    let database = open_waiting(&config)?;
    probe(&database)?;
    let engine = Sled {
        database,
        redo: Redo::new(dir),
        writing: Mutex::default(),
    };
    if let Some(batch) = engine.redo.read()? {
        engine.apply_redo(&batch)?;
    }
    Ok(Arc::new(engine))
}

/// Opens the database. Threads of one that was just dropped in this process may hold its lock a little longer; other
/// processes are kept out by the lock of the data directory.
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

/// sled wraps the cause in a text; the kind is lost.
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
            "sled's syncs do not reach the disk in this build, so rows would be lost with power; \
             use a build of stead that links its own sync_file_range, or storage.engine = \"fjall\"",
        ));
    }
    Ok(())
}

impl Sled {
    fn apply(&self, changes: &[Change]) -> sled::Result<()> {
        let mut batch = sled::Batch::default();
        for Change { key, value } in changes {
            match value {
                Some(value) => batch.insert(&**key, &**value),
                None => batch.remove(&**key),
            }
        }
        self.database.apply_batch(batch)
    }

    /// Writes the rows that the file holds one by one, and forgets the file.
    fn apply_redo(&self, batch: &[Change]) -> io::Result<()> {
        for Change { key, value } in batch {
            match value {
                Some(value) => drop(self.database.insert(&**key, &**value)?),
                None => drop(self.database.remove(&**key)?),
            }
        }
        self.database.flush()?;
        self.redo.remove()
    }

    fn write_large(&self, batch: &[Change]) -> io::Result<()> {
        // What was written before must not be lost where this batch survives.
        self.database.flush()?;
        self.redo.write(batch)?;
        self.apply_redo(batch)
    }
}

impl Engine for Sled {
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

    fn write(&self, changes: &mut dyn Iterator<Item = Change>) -> io::Result<()> {
        let _writing = self.writing.lock();
        let batch: Vec<Change> = changes.collect();
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
    fn it_is_an_engine() {
        let dir = tempfile::tempdir().unwrap();
        conformance::check(&mut || open(dir.path()).unwrap());
    }

    #[test]
    fn its_syncs_are_real_ones() {
        let dir = tempfile::tempdir().unwrap();
        let engine = open(dir.path()).unwrap();
        let before = sync_shim::calls();
        write(&*engine, vec![put("a", "1")]);
        engine.checkpoint().unwrap();
        assert!(before < sync_shim::calls());
    }
}
