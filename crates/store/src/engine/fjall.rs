//! Rows in [fjall](https://docs.rs/fjall): the default engine.
//!
//! Every batch goes past fjall's journal, sorted, into a table of its own, which is durable as a whole before the write
//! returns: a checkpoint has nothing left to do. Never a batch through the journal beside them: opening replays what the
//! journal holds unless tables of a later number are there, and compaction may have removed those together with the
//! removals in them, so that removed rows come back.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions};
use stead_state::rows::{Order, Row, Unreadable};

use super::{CACHE_LEN, Change, Engine, Kind, is_empty, unreadable};
use crate::health::Health;

/// Threads that flush and compact. With more than one the first keeps itself free for flushes: while others compact it
/// puts the next compaction back into its own queue and takes it out again, without a pause, which costs a whole core.
const WORKERS: usize = 1;

/// Tables that wait to be compacted before writing waits for them: each of them costs a read.
const UNSORTED_TABLES_MAX: usize = 16;

/// The folder of a keyspace's tables.
const TABLES: &str = "tables";

const COMPACTION_WAIT: Duration = Duration::from_millis(10);

/// Longest wait for compaction: a slow disk slows reads down rather than stopping checkpoints.
const COMPACTION_WAITS_MAX: usize = 500;

struct Fjall {
    database: Database,
    rows: Keyspace,
    health: Health,
}

/// Opens the engine in a directory, which is made if it is missing.
pub fn open(dir: &Path) -> io::Result<Arc<dyn Engine>> {
    let builder = Database::builder(dir).cache_size(CACHE_LEN).worker_threads(WORKERS);
    let database = builder.open().map_err(to_io)?;
    let rows = database
        .keyspace("rows", KeyspaceCreateOptions::default)
        .map_err(to_io)?;
    let health = Health::default();
    Ok(Arc::new(Fjall { database, rows, health }))
}

/// Tells whether a file was synced before any other one named it, and is never written again: a table. One whose sync
/// failed is named by no version, and removed when the engine is opened.
pub(crate) fn is_written_once(path: &Path) -> bool {
    let folder = path.parent().and_then(Path::file_name);
    folder.is_some_and(|folder| folder == TABLES)
}

fn to_io(error: fjall::Error) -> io::Error {
    match error {
        fjall::Error::Io(error) => error,
        fjall::Error::Locked => io::Error::new(io::ErrorKind::WouldBlock, error),
        other => io::Error::other(other),
    }
}

impl Fjall {
    fn ingest(&self, batch: &mut dyn Iterator<Item = Change>) -> fjall::Result<()> {
        let mut ingestion = self.rows.start_ingestion()?;
        for Change { key, value } in batch {
            match value {
                Some(value) => ingestion.write(&*key, &*value)?,
                None => ingestion.write_tombstone(&*key)?,
            }
        }
        ingestion.finish()
    }

    /// Waits until compaction has caught up.
    fn wait_for_compaction(&self) {
        for _ in 0..COMPACTION_WAITS_MAX {
            if self.rows.l0_table_count() <= UNSORTED_TABLES_MAX {
                return;
            }
            thread::sleep(COMPACTION_WAIT);
        }
    }
}

impl Engine for Fjall {
    fn kind(&self) -> Kind {
        Kind::Fjall
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        let value = self.rows.get(key).map_err(unreadable)?;
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    fn range<'a>(&'a self, range: Range<&[u8]>, order: Order) -> Box<dyn Iterator<Item = Row> + 'a> {
        if is_empty(&range) {
            return Box::new(std::iter::empty());
        }
        let rows = self.rows.range(range);
        match order {
            Order::Ascending => Box::new(rows.map(row)),
            Order::Descending => Box::new(rows.rev().map(row)),
        }
    }

    fn write(&self, batch: &mut dyn Iterator<Item = Change>) -> io::Result<()> {
        self.health.check()?;
        self.wait_for_compaction();
        let written = self.ingest(batch);
        written.map_err(|error| self.health.fail("writing rows", to_io(error)).into())
    }

    fn checkpoint(&self) -> io::Result<()> {
        self.health.check()
    }

    fn disk_len(&self) -> u64 {
        self.database.disk_space().unwrap_or_default()
    }

    fn health(&self) -> &Health {
        &self.health
    }
}

fn row(guard: fjall::Guard) -> Row {
    let (key, value) = guard.into_inner().map_err(unreadable)?;
    Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)))
}

#[cfg(test)]
mod tests {
    use super::super::conformance;

    #[test]
    fn it_is_an_engine() {
        let dir = tempfile::tempdir().unwrap();
        conformance::check(&mut || super::open(dir.path()).unwrap());
    }

    #[test]
    fn its_tables_are_told_from_other_files() {
        let dir = tempfile::tempdir().unwrap();
        let engine = super::open(dir.path()).unwrap();
        conformance::write(&*engine, vec![conformance::put("a", "1")]);
        drop(engine);
        let (mut tables, mut others) = (Vec::new(), Vec::new());
        crate::dir::renew::renew(dir.path(), |path| {
            let list = match super::is_written_once(path) {
                true => &mut tables,
                false => &mut others,
            };
            list.push(path.to_owned());
            true
        })
        .unwrap();
        assert_eq!(tables.len(), 1, "{tables:?}");
        assert!(others.iter().any(|path| path.ends_with("current")), "{others:?}");
    }
}
