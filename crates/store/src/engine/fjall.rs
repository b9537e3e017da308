//! Engine on [fjall](https://docs.rs/fjall), a log-structured merge tree: the default engine.
//!
//! Every batch bypasses fjall's journal and is ingested, sorted, as a table of its own, which is durable as a whole
//! before the write returns: a checkpoint has nothing left to do. No batch may go through the journal: opening replays
//! the journal unless tables of a later number exist, and compaction may have removed those together with their
//! tombstones, so that removed rows would come back.

use std::io;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bytes::Bytes;
use fjall::{AbstractTree, Database, Keyspace, KeyspaceCreateOptions, PersistMode, SeqNo};
use parking_lot::Mutex;
use stead_state::rows::{Order, Row, Unreadable};

use super::{CACHE_LEN, Engine, Kind, RowChange, is_empty, unreadable};
use crate::room::free_bytes;

mod reclaim;

use reclaim::Reclaimer;

/// Threads that flush and compact. With more than one the first is reserved for flushes: while others compact it busily
/// requeues the next compaction, which costs a whole core.
const WORKERS: usize = 1;

/// Most uncompacted tables before a write waits for compaction: each of them costs a read.
const UNSORTED_TABLES_MAX: usize = 16;

/// Length of a table, as fjall's own compactions make them.
const TABLE_LEN: u64 = 64_000_000;

/// Snapshots that are closed between two moves of fjall's watermark.
const SNAPSHOTS_PER_WATERMARK: usize = 10_000;

/// Calls of [`Engine::reclaim`] between two moves of the watermark: about a minute.
const WATERMARK_RECLAIMS: u64 = 12;

/// Folder of a keyspace's tables.
const TABLES: &str = "tables";

const COMPACTION_WAIT: Duration = Duration::from_millis(10);

/// Bound of the wait for compaction: a slow disk slows reads down rather than stopping checkpoints.
const COMPACTION_WAITS_MAX: usize = 500;

/// Free space below which the end of the compaction thread is put down to a full disk: a compaction writes what it merges
/// anew before it removes anything, and what a failed one has written is removed.
const COMPACTION_ROOM: u64 = 1 << 30;

/// Free space that must have come since, or time that must have passed, before compaction is tried again.
const ROOM_GAINED: u64 = 64 << 20;
const COMPACTION_RETRY: Duration = Duration::from_secs(60);

struct FjallEngine {
    /// Dropped first: its thread uses the rows.
    reclaimer: Reclaimer,
    dir: PathBuf,
    database: Database,
    rows: Keyspace,
    /// End of the compaction thread on a full disk.
    ended: Mutex<Option<EndOfCompaction>>,
    /// Calls of [`Engine::reclaim`].
    reclaims: AtomicU64,
}

/// End of the compaction thread on a full disk: when it was found, and how much was free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct EndOfCompaction {
    at: Instant,
    free: u64,
}

/// Reaction to a compaction thread that has ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum EndedWorker {
    /// Nothing yet: without room another thread would end as well. Rows can be read and written meanwhile.
    Wait,
    /// Open the rows again: there may be room.
    Reopen,
    /// Stop: it did not end for want of room.
    Stop,
}

impl EndOfCompaction {
    /// Decides what to do, given the free space now; `before` is an end that was found earlier.
    fn decide(before: Option<Self>, now: Instant, free: Option<u64>) -> EndedWorker {
        match (before, free) {
            (Some(before), free) => {
                let has_gained = free.is_none_or(|free| before.free.saturating_add(ROOM_GAINED) <= free);
                if has_gained || before.at + COMPACTION_RETRY <= now {
                    EndedWorker::Reopen
                } else {
                    EndedWorker::Wait
                }
            }
            (None, Some(free)) if free < COMPACTION_ROOM => EndedWorker::Wait,
            (None, _) => EndedWorker::Stop,
        }
    }
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
    Ok(Arc::new(FjallEngine {
        reclaimer: Reclaimer::default(),
        dir: dir.to_owned(),
        database,
        rows,
        ended: Mutex::default(),
        reclaims: AtomicU64::default(),
    }))
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

/// Compacts all tables into new ones without the rows that were removed or replaced before, and removes the old ones.
///
/// fjall keeps what was removed, and the tables that its compactions have replaced, behind a watermark that it moves with
/// every 10,000th snapshot that is closed, and otherwise where memtables are flushed: here, never. Nothing reads older
/// versions: each read is of the newest ones, and a range holds the tables that it began with until it ends.
fn compact(rows: &Keyspace) -> fjall::Result<()> {
    rows.tree.major_compact(TABLE_LEN, SeqNo::MAX)?;
    Ok(())
}

/// Moves the watermark of fjall's own compactions, which keep replaced tables otherwise.
fn move_watermark(database: &Database) {
    for _ in 0..SNAPSHOTS_PER_WATERMARK {
        drop(database.snapshot());
    }
}

impl FjallEngine {
    fn ingest(&self, batch: &mut dyn Iterator<Item = RowChange>) -> fjall::Result<()> {
        let mut ingestion = self.rows.start_ingestion()?;
        let mut removed = 0;
        for RowChange { key, value } in batch {
            match value {
                Some(value) => ingestion.write(&*key, &*value)?,
                None => {
                    removed += 1;
                    ingestion.write_tombstone(&*key)?;
                }
            }
        }
        ingestion.finish()?;
        self.reclaimer.count_removed(removed);
        Ok(())
    }

    /// Reports that the compaction thread has ended, unless it is to wait for room.
    fn handle_ended_worker(&self) -> io::Result<()> {
        let (now, free) = (Instant::now(), self.disk_free());
        let mut ended = self.ended.lock();
        match EndOfCompaction::decide(*ended, now, free) {
            EndedWorker::Wait => {
                if ended.is_none() {
                    let free = free.unwrap_or_default();
                    *ended = Some(EndOfCompaction { at: now, free });
                    tracing::warn!(
                        free_mib = free >> 20,
                        "compaction has ended on a full disk: rows are read and written without it, and it is tried again when \
                         there is room"
                    );
                }
                Ok(())
            }
            EndedWorker::Reopen => Err(io::Error::new(io::ErrorKind::StorageFull, WorkerEnded)),
            EndedWorker::Stop => Err(io::Error::other(WorkerEnded)),
        }
    }

    /// Waits until compaction has caught up; in vain where its thread has ended.
    fn wait_for_compaction(&self) {
        if self.ended.lock().is_some() {
            return;
        }
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
    /// check. Without the worker no table is ever compacted: each checkpoint makes reads slower. On a full disk that is
    /// better than a node that stops, until there may be room again.
    fn check_workers(&self) -> io::Result<()> {
        match self.database.persist(PersistMode::Buffer) {
            Err(fjall::Error::Poisoned) => self.handle_ended_worker(),
            checked => checked.map_err(to_io),
        }
    }

    fn reclaim(&self) -> io::Result<()> {
        let reclaims = self.reclaims.fetch_add(1, Ordering::Relaxed);
        if reclaims.is_multiple_of(WATERMARK_RECLAIMS) {
            move_watermark(&self.database);
        }
        self.reclaimer.start_if_due(&self.rows)
    }

    fn disk_len(&self) -> u64 {
        self.database.disk_space().unwrap_or_default()
    }

    fn disk_free(&self) -> Option<u64> {
        free_bytes(&self.dir)
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
    fn compaction_that_ended_on_full_disk_waits_for_room() {
        let at = Instant::now();
        let ended = Some(EndOfCompaction { at, free: 10 << 20 });
        let decide = |before, after, free| EndOfCompaction::decide(before, at + Duration::from_secs(after), free);
        assert_eq!(decide(None, 0, Some(COMPACTION_ROOM - 1)), EndedWorker::Wait);
        assert_eq!(decide(None, 0, Some(COMPACTION_ROOM)), EndedWorker::Stop);
        assert_eq!(decide(None, 0, None), EndedWorker::Stop);
        assert_eq!(decide(ended, 59, Some(70 << 20)), EndedWorker::Wait);
        assert_eq!(decide(ended, 0, Some(74 << 20)), EndedWorker::Reopen);
        assert_eq!(decide(ended, 60, Some(0)), EndedWorker::Reopen);
    }

    #[test]
    fn space_of_removed_rows_comes_back() {
        const ROWS: usize = 20_000;
        // It is allocated and never used.
        const JOURNAL_LEN: u64 = 64 << 20;
        let dir = tempfile::tempdir().unwrap();
        let engine = super::open(dir.path()).unwrap();
        let key = |number: usize| Bytes::from(format!("{number:06}"));
        // Bytes that do not compress.
        let value = |number: usize| {
            let mut x = number as u64 + 1;
            let words = (0..250).flat_map(|_| {
                x = x
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1_442_695_040_888_963_407);
                x.to_be_bytes()
            });
            Bytes::from(words.collect::<Vec<u8>>())
        };
        let change = |number: usize, value: Option<Bytes>| RowChange {
            key: key(number),
            value,
        };
        let written = (0..ROWS).map(|number| change(number, Some(value(number))));
        engine.write(&mut written.collect::<Vec<_>>().into_iter()).unwrap();
        engine.reclaim().unwrap();
        let used = |engine: &dyn Engine| engine.disk_len() - JOURNAL_LEN;
        assert!(used(&*engine) > 30 << 20, "{} bytes of live rows", used(&*engine));
        let removed = (100..ROWS).map(|number| change(number, None));
        engine.write(&mut removed.collect::<Vec<_>>().into_iter()).unwrap();
        let latest = Instant::now() + Duration::from_secs(60);
        while used(&*engine) > 4 << 20 {
            engine.reclaim().unwrap();
            assert!(Instant::now() < latest, "{} bytes are used", used(&*engine));
            thread::sleep(Duration::from_millis(20));
        }
        drop(engine);
        let engine = super::open(dir.path()).unwrap();
        assert_eq!(engine.get(&key(99)).unwrap(), Some(value(99)));
        assert_eq!(engine.get(&key(100)).unwrap(), None);
    }

    fn files_below(dir: &Path, files: &mut Vec<Vec<u8>>) {
        for entry in dir.read_dir().unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                files_below(&path, files);
            } else {
                files.push(std::fs::read(&path).unwrap());
            }
        }
    }

    /// fjall's own compaction of everything would leave the replaced tables on the disk, with all that they have.
    #[test]
    fn compacted_rows_leave_no_bytes_of_removed_and_replaced_ones() {
        let dir = tempfile::tempdir().unwrap();
        let engine = super::open(dir.path()).unwrap();
        // Short values of different bytes, which are not compressed away.
        let value = |number: u32| -> String {
            let digits = (0..4u32).map(|part| format!("{:08x}", (number * 4 + part).wrapping_mul(0x9e37_79b1)));
            digits.collect()
        };
        let found = |numbers: Range<u32>| {
            let mut files = Vec::new();
            files_below(dir.path(), &mut files);
            let is_in = |number: &u32| {
                let bytes = value(*number).into_bytes();
                files
                    .iter()
                    .any(|file| file.windows(bytes.len()).any(|window| window == bytes))
            };
            numbers.filter(is_in).count()
        };
        let write = |numbers: Range<u32>, value: &dyn Fn(u32) -> Option<String>| {
            let change = |number: u32| RowChange {
                key: Bytes::from(format!("{number:06}")),
                value: value(number).map(Bytes::from),
            };
            engine.write(&mut numbers.map(change)).unwrap();
        };
        write(0..30, &|number| Some(value(number)));
        assert_ne!(found(0..30), 0, "values are found where they are");
        write(0..10, &|_| None);
        write(10..20, &|number| Some(value(number + 1_000)));
        drop(engine);
        let database = Database::builder(dir.path()).open().unwrap();
        let rows = database.keyspace("rows", KeyspaceCreateOptions::default).unwrap();
        compact(&rows).unwrap();
        assert_eq!(found(0..20), 0, "removed and replaced values are in files");
        drop((rows, database));
        let engine = super::open(dir.path()).unwrap();
        for number in 0..30 {
            let expected = match number {
                0..10 => None,
                10..20 => Some(value(number + 1_000)),
                _ => Some(value(number)),
            };
            let got = engine.get(format!("{number:06}").as_bytes()).unwrap();
            assert_eq!(got, expected.map(Bytes::from), "{number}");
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
