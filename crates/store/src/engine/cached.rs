//! Engine wrapper with a bounded cache of single rows, so that reading a row that was read or written lately does no
//! search in the engine's files.
//!
//! Each write of a key needs the key's current version, and each read its current version and its value: two searches
//! that cost more than all else of a get. Current versions are kept as they are written, other rows as they are read:
//! those are values, and most of them are replaced before anybody reads them again.
//!
//! # Invariants
//!
//! 1. A read after [`Engine::write`] has returned sees what was written: a row that is read from the engine while
//!    anybody writes is not kept, and each written key is removed before its batch is.
//! 2. At most [`ROW_CACHE_LEN`] bytes are kept; those used least lately go first. An idle cache is emptied.

use std::borrow::Borrow;
use std::collections::HashSet;
use std::hash::{Hash, Hasher};
use std::io;
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use parking_lot::Mutex;
use stead_state::rows::{Order, Row, Unreadable, kind};

use super::{Engine, Kind, RowChange};

/// Most bytes of cached rows, overhead included: the current versions of 350,000 short keys.
const ROW_CACHE_LEN: usize = 64 << 20;
/// Longest row that is kept: a few long ones would displace all others.
const ROW_LEN_MAX: usize = 64 << 10;
/// Memory of a row beside its bytes: entries of the set with their free places, and what counts references.
const ROW_OVERHEAD: usize = 96;
/// Parts of the cache, so that readers seldom wait for one another.
const SHARDS: usize = 64;
/// Calls of [`Engine::reclaim`] without a lookup of a tenant's key between after which the cache is emptied: about a minute.
const IDLE_RECLAIMS: u64 = 12;

/// Wraps an engine with a cache of rows.
pub fn cached(engine: Arc<dyn Engine>) -> Arc<dyn Engine> {
    cached_within(engine, ROW_CACHE_LEN)
}

fn cached_within(engine: Arc<dyn Engine>, len_max: usize) -> Arc<dyn Engine> {
    Arc::new(CachedEngine {
        engine,
        shards: (0..SHARDS).map(|_| Mutex::default()).collect(),
        // A shard has two generations.
        generation_len_max: len_max / SHARDS / 2,
        writes: Mutex::default(),
        idle: Mutex::default(),
        lookups: AtomicU64::new(0),
    })
}

struct CachedEngine {
    engine: Arc<dyn Engine>,
    shards: Box<[Mutex<Shard>]>,
    generation_len_max: usize,
    writes: Mutex<Writes>,
    idle: Mutex<Idle>,
    /// Lookups of tenants' keys.
    lookups: AtomicU64,
}

/// Writes of batches.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Writes {
    running: usize,
    begun: u64,
}

/// Calls of [`Engine::reclaim`] since the last lookup.
#[derive(Debug, Default)]
struct Idle {
    lookups: u64,
    calls: u64,
}

/// Part of the cache: a row moves to the young generation when it is used; when that is full it becomes the old one, and
/// the rows of the old one are dropped.
#[derive(Default)]
struct Shard {
    young: HashSet<CachedRow>,
    old: HashSet<CachedRow>,
    young_len: usize,
}

/// Row in one allocation: its key, then its value.
struct CachedRow {
    bytes: Bytes,
    key_len: usize,
}

impl CachedRow {
    fn new(key: &[u8], value: &[u8]) -> Self {
        Self {
            bytes: [key, value].concat().into(),
            key_len: key.len(),
        }
    }

    fn key(&self) -> &[u8] {
        &self.bytes[..self.key_len]
    }

    fn value(&self) -> Bytes {
        self.bytes.slice(self.key_len..)
    }

    fn len(&self) -> usize {
        self.bytes.len() + ROW_OVERHEAD
    }
}

impl Borrow<[u8]> for CachedRow {
    fn borrow(&self) -> &[u8] {
        self.key()
    }
}

impl Hash for CachedRow {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.key().hash(state);
    }
}

impl PartialEq for CachedRow {
    fn eq(&self, other: &Self) -> bool {
        self.key() == other.key()
    }
}

impl Eq for CachedRow {}

impl Shard {
    fn get(&mut self, key: &[u8], generation_len_max: usize) -> Option<Bytes> {
        if let Some(row) = self.young.get(key) {
            return Some(row.value());
        }
        let row = self.old.take(key)?;
        let value = row.value();
        self.insert(row, generation_len_max);
        Some(value)
    }

    fn insert(&mut self, row: CachedRow, generation_len_max: usize) {
        self.old.remove(row.key());
        self.young_len += row.len();
        if let Some(before) = self.young.replace(row) {
            self.young_len -= before.len();
        }
        if generation_len_max <= self.young_len {
            self.turn();
        }
    }

    fn remove(&mut self, key: &[u8]) {
        self.old.remove(key);
        if let Some(row) = self.young.take(key) {
            self.young_len -= row.len();
        }
    }

    /// Drops the old generation, and makes the young one old.
    fn turn(&mut self) {
        self.old = std::mem::take(&mut self.young);
        self.young_len = 0;
    }
}

impl CachedEngine {
    fn shard(&self, key: &[u8]) -> &Mutex<Shard> {
        &self.shards[crc32c::crc32c(key) as usize % SHARDS]
    }

    /// Keeps a row as of some writes, unless another batch has begun since (invariant 1).
    fn keep(&self, key: &[u8], value: &[u8], as_of: Writes) {
        if key.len() + value.len() <= ROW_LEN_MAX {
            let row = CachedRow::new(key, value);
            let mut shard = self.shard(key).lock();
            // A write that begins after this check removes the row: it needs the shard for that.
            if *self.writes.lock() == as_of {
                shard.insert(row, self.generation_len_max);
            }
        }
    }

    /// Writes a batch, and returns its current versions.
    fn write_through(&self, batch: &mut dyn Iterator<Item = RowChange>) -> io::Result<Vec<(Bytes, Bytes)>> {
        let mut current = Vec::new();
        let mut removing = batch.inspect(|RowChange { key, value }| {
            self.shard(key).lock().remove(key);
            if let Some(value) = value.as_ref().filter(|_| key.first() == Some(&kind::CURRENT)) {
                current.push((key.clone(), value.clone()));
            }
        });
        self.engine.write(&mut removing)?;
        Ok(current)
    }
}

impl Engine for CachedEngine {
    fn kind(&self) -> Kind {
        self.engine.kind()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        // A node at rest still looks up rows of its directory view.
        if matches!(key.first(), Some(&(kind::CURRENT | kind::CHANGE))) {
            self.lookups.fetch_add(1, Ordering::Relaxed);
        }
        if let Some(value) = self.shard(key).lock().get(key, self.generation_len_max) {
            return Ok(Some(value));
        }
        let before = *self.writes.lock();
        let value = self.engine.get(key)?;
        if let Some(value) = value.as_ref().filter(|_| before.running == 0) {
            self.keep(key, value, before);
        }
        Ok(value)
    }

    fn range<'a>(&'a self, range: Range<&[u8]>, order: Order) -> Box<dyn Iterator<Item = Row> + 'a> {
        self.engine.range(range, order)
    }

    fn write(&self, batch: &mut dyn Iterator<Item = RowChange>) -> io::Result<()> {
        let own = {
            let mut writes = self.writes.lock();
            writes.running += 1;
            writes.begun += 1;
            *writes
        };
        let written = self.write_through(batch);
        // Beside another batch it is open which one has the later version of a key.
        if own.running == 1
            && let Ok(current) = &written
        {
            current.iter().for_each(|(key, value)| self.keep(key, value, own));
        }
        self.writes.lock().running -= 1;
        written.map(drop)
    }

    fn checkpoint(&self) -> io::Result<()> {
        self.engine.checkpoint()
    }

    fn check_workers(&self) -> io::Result<()> {
        self.engine.check_workers()
    }

    fn reclaim(&self) -> io::Result<()> {
        let mut idle = self.idle.lock();
        let lookups = self.lookups.load(Ordering::Relaxed);
        idle.calls = if idle.lookups == lookups { idle.calls + 1 } else { 0 };
        idle.lookups = lookups;
        if idle.calls == IDLE_RECLAIMS {
            self.shards.iter().for_each(|shard| *shard.lock() = Shard::default());
        }
        drop(idle);
        self.engine.reclaim()
    }

    fn mark_opened(&self) {
        self.engine.mark_opened();
    }

    fn disk_len(&self) -> u64 {
        self.engine.disk_len()
    }

    fn disk_free(&self) -> Option<u64> {
        self.engine.disk_free()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::OnceLock;

    use super::super::conformance::{self, put};
    use super::super::memory::Disk;
    use super::*;

    /// Engine that counts reads, and writes a batch through the cache after the first one.
    #[derive(Default)]
    struct ObservedEngine {
        disk: Disk,
        inner: OnceLock<Arc<dyn Engine>>,
        reads: AtomicU64,
        meanwhile: Mutex<Option<PendingWrite>>,
    }

    /// Batch for an engine.
    type PendingWrite = (Arc<dyn Engine>, Vec<RowChange>);

    impl ObservedEngine {
        fn inner(&self) -> &Arc<dyn Engine> {
            self.inner.get_or_init(|| self.disk.open())
        }
    }

    impl Engine for ObservedEngine {
        fn kind(&self) -> Kind {
            Kind::Memory
        }

        fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
            self.reads.fetch_add(1, Ordering::Relaxed);
            let found = self.inner().get(key);
            let meanwhile = self.meanwhile.lock().take();
            if let Some((engine, batch)) = meanwhile {
                conformance::write(&*engine, batch);
            }
            found
        }

        fn range<'a>(&'a self, range: Range<&[u8]>, order: Order) -> Box<dyn Iterator<Item = Row> + 'a> {
            self.inner().range(range, order)
        }

        fn write(&self, batch: &mut dyn Iterator<Item = RowChange>) -> io::Result<()> {
            self.inner().write(batch)
        }

        fn checkpoint(&self) -> io::Result<()> {
            Ok(())
        }

        fn disk_len(&self) -> u64 {
            0
        }
    }

    fn current(key: &str, value: &str) -> RowChange {
        let kind = char::from(kind::CURRENT);
        put(&format!("{kind}{key}"), value)
    }

    fn value_of(engine: &dyn Engine, row: &RowChange) -> Option<Bytes> {
        engine.get(&row.key).unwrap()
    }

    #[test]
    fn cached_engine_conforms() {
        let disk = Disk::default();
        conformance::check(&mut || cached(disk.open()));
    }

    #[test]
    fn row_that_was_read_is_not_read_again() {
        let inner = Arc::new(ObservedEngine::default());
        let engine = cached(inner.clone());
        conformance::write(&*engine, vec![put("a", "1")]);
        for _ in 0..3 {
            assert_eq!(engine.get(b"a").unwrap(), Some(Bytes::from("1")));
        }
        assert_eq!(inner.reads.load(Ordering::Relaxed), 1);
        conformance::write(&*engine, vec![put("a", "2")]);
        assert_eq!(engine.get(b"a").unwrap(), Some(Bytes::from("2")));
    }

    #[test]
    fn current_version_is_kept_when_it_is_written() {
        let inner = Arc::new(ObservedEngine::default());
        let engine = cached(inner.clone());
        for value in ["1", "2"] {
            conformance::write(&*engine, vec![current("a", value)]);
            assert_eq!(value_of(&*engine, &current("a", value)), Some(Bytes::from(value)));
        }
        assert_eq!(inner.reads.load(Ordering::Relaxed), 0);
        let removed = RowChange {
            value: None,
            ..current("a", "")
        };
        conformance::write(&*engine, vec![removed]);
        assert_eq!(value_of(&*engine, &current("a", "")), None);
    }

    /// Invariant 1: the read began before the batch was written, and ended after it.
    #[test]
    fn row_read_beside_a_write_is_not_kept() {
        for row in [put("a", "2"), current("a", "2")] {
            let inner = Arc::new(ObservedEngine::default());
            let engine = cached(inner.clone());
            let old = RowChange {
                value: Some(Bytes::from("1")),
                ..row.clone()
            };
            // Not through the cache, which would keep it.
            conformance::write(&*inner, vec![old]);
            *inner.meanwhile.lock() = Some((engine.clone(), vec![row.clone()]));
            assert_eq!(value_of(&*engine, &row), Some(Bytes::from("1")), "it was read before");
            assert_eq!(value_of(&*engine, &row), row.value);
        }
    }

    /// Invariant 2.
    #[test]
    fn least_recently_used_rows_are_dropped() {
        let inner = Arc::new(ObservedEngine::default());
        let rows = 200 * SHARDS;
        let engine = cached_within(inner.clone(), rows * 50);
        let batch = |from: usize| {
            (from..from + rows)
                .map(|row| current(&format!("{row:08}"), "1"))
                .collect()
        };
        conformance::write(&*engine, batch(0));
        let reads = || inner.reads.load(Ordering::Relaxed);
        value_of(&*engine, &current("00000001", ""));
        let before = reads();
        conformance::write(&*engine, batch(rows));
        value_of(&*engine, &current("00000001", ""));
        assert_eq!(reads(), before + 1, "the cache holds fewer rows than one batch");
    }

    #[test]
    fn idle_cache_is_emptied() {
        let inner = Arc::new(ObservedEngine::default());
        let engine = cached(inner.clone());
        conformance::write(&*engine, vec![current("a", "1")]);
        let reclaim = |times| (0..times).for_each(|_| engine.reclaim().unwrap());
        value_of(&*engine, &current("a", ""));
        reclaim(IDLE_RECLAIMS);
        value_of(&*engine, &current("a", ""));
        assert_eq!(inner.reads.load(Ordering::Relaxed), 0, "it was in use until then");
        reclaim(IDLE_RECLAIMS + 1);
        value_of(&*engine, &current("a", ""));
        assert_eq!(inner.reads.load(Ordering::Relaxed), 1);
    }
}
