//! Engine on [fjall](https://docs.rs/fjall), a log-structured merge tree: the default engine.
//!
//! Every batch bypasses fjall's journal and is ingested, sorted, as a table of its own, which is durable as a whole
//! before the write returns: a checkpoint has nothing left to do. No batch may go through the journal: opening replays
//! the journal unless tables of a later number exist, and compaction may have removed those together with their
//! tombstones, so that removed rows would come back.

use std::io;
use std::ops::Range;
use std::path::Path;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use bytes::Bytes;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode};
use stead_state::rows::{Order, Row, Unreadable};

use super::{CACHE_LEN, Engine, Kind, RowChange, is_empty, unreadable};

/// Threads that flush and compact. With more than one the first is reserved for flushes: while others compact it busily
/// requeues the next compaction, which costs a whole core.
const WORKERS: usize = 1;

/// Most uncompacted tables before a write waits for compaction: each of them costs a read.
const UNSORTED_TABLES_MAX: usize = 16;

/// Folder of a keyspace's tables.
const TABLES: &str = "tables";

const COMPACTION_WAIT: Duration = Duration::from_millis(10);

/// Bound of the wait for compaction: a slow disk slows reads down rather than stopping checkpoints.
const COMPACTION_WAITS_MAX: usize = 500;

struct FjallEngine {
    database: Database,
    rows: Keyspace,
}

/// Error after fjall's compaction thread has ended; fjall logs the cause itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "the compaction thread of fjall has ended: its cause is logged before this line; check for a full or failing disk"
)]
struct WorkerEnded;

/// Opens the engine in a directory, which is created if it is missing.
pub fn open(dir: &Path) -> io::Result<Arc<dyn Engine>> {
    let builder = Database::builder(dir).cache_size(CACHE_LEN).worker_threads(WORKERS);
    let database = builder.open().map_err(to_io)?;
    let rows = database
        .keyspace("rows", KeyspaceCreateOptions::default)
        .map_err(to_io)?;
    Ok(Arc::new(FjallEngine { database, rows }))
}

/// Tells whether a file is a table, which is synced before any other file refers to it and never written again. One
/// whose sync failed belongs to no version, and is removed when the engine is opened.
pub(crate) fn is_written_once(path: &Path) -> bool {
    let folder = path.parent().and_then(Path::file_name);
    folder.is_some_and(|folder| folder == TABLES)
}

fn to_io(error: fjall::Error) -> io::Error {
    if let fjall::Error::Io(error) = error {
        return error;
    }
    if matches!(error, fjall::Error::Locked) {
        return io::Error::new(io::ErrorKind::WouldBlock, error);
    }
    io::Error::other(error)
}

impl FjallEngine {
    fn ingest(&self, batch: &mut dyn Iterator<Item = RowChange>) -> fjall::Result<()> {
        let mut ingestion = self.rows.start_ingestion()?;
        for RowChange { key, value } in batch {
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

impl Engine for FjallEngine {
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

    fn write(&self, batch: &mut dyn Iterator<Item = RowChange>) -> io::Result<()> {
        self.wait_for_compaction();
        self.ingest(batch).map_err(to_io)
    }

    fn checkpoint(&self) -> io::Result<()> {
        Ok(())
    }

    /// fjall's worker ends at its first error, as on a full disk; it logs that and sets a flag that only journal calls
    /// check. Without the worker no table is ever compacted: each checkpoint makes reads slower.
    fn check_workers(&self) -> io::Result<()> {
        match self.database.persist(PersistMode::Buffer) {
            Err(fjall::Error::Poisoned) => Err(io::Error::other(WorkerEnded)),
            checked => checked.map_err(to_io),
        }
    }

    fn disk_len(&self) -> u64 {
        self.database.disk_space().unwrap_or_default()
    }
}

fn row(guard: fjall::Guard) -> Row {
    let (key, value) = guard.into_inner().map_err(unreadable)?;
    Ok((Bytes::copy_from_slice(&key), Bytes::copy_from_slice(&value)))
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::super::conformance::{self, put};
    use super::super::guarded;
    use super::*;
    use crate::health::Health;

    #[test]
    fn fjall_conforms_to_engine() {
        let dir = tempfile::tempdir().unwrap();
        conformance::check(&mut || guarded(super::open(dir.path()).unwrap(), Health::default()));
    }

    /// Overwrites the middle of every table, so that compaction fails where it reads them.
    fn damage_tables(dir: &Path) {
        for entry in dir.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                damage_tables(&path);
            } else if path.parent().unwrap().ends_with("tables") {
                let mut bytes = std::fs::read(&path).unwrap();
                let len = bytes.len();
                bytes[..len / 2].fill(0xa5);
                std::fs::write(&path, bytes).unwrap();
            }
        }
    }

    #[test]
    fn ended_compaction_worker_stops_the_node() {
        let dir = tempfile::tempdir().unwrap();
        let health = Health::default();
        let engine = guarded(super::open(dir.path()).unwrap(), health.clone());
        let latest = Instant::now() + Duration::from_secs(60);
        for number in 0.. {
            let keys = (0..100).map(|key| put(&format!("{key:04}-{number}"), "some value of a row"));
            if engine.write(&mut keys.collect::<Vec<_>>().into_iter()).is_err() {
                break;
            }
            damage_tables(dir.path());
            assert!(Instant::now() < latest, "compaction has never failed");
        }
        let reason = health.failure().unwrap().source.to_string();
        assert_eq!(reason, WorkerEnded.to_string());
        engine.check_workers().unwrap_err();
        engine.checkpoint().unwrap_err();
    }

    #[test]
    fn fjall_tables_are_distinguished_from_other_files() {
        let dir = tempfile::tempdir().unwrap();
        let engine = super::open(dir.path()).unwrap();
        conformance::write(&*engine, vec![conformance::put("a", "1")]);
        drop(engine);
        let (mut tables, mut others) = (Vec::new(), Vec::new());
        crate::data_dir::rewrite::rewrite(dir.path(), |path| {
            let list = match super::is_written_once(path) {
                true => &mut tables,
                false => &mut others,
            };
            list.push(path.to_owned());
            true
        })
        .unwrap();
        assert_eq!(
            tables.len(),
            2,
            "one of the rows, one of fjall's own keyspace: {tables:?}"
        );
        assert!(others.iter().any(|path| path.ends_with("current")), "{others:?}");
    }
}
