//! Checkpoints under power loss, failing syncs and at their bounds.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use stead_state::rows::{Order, Row, Unreadable};

use super::*;
use crate::engine;
use crate::engine::memory::{Disk, Operation};
use crate::health::Health;

const GROUP: GroupId = GroupId::new(2);

/// Counts the entries applied; kept in a row of its own.
type Rows2 = GroupRows<u64>;

fn count_key() -> Bytes {
    Bytes::from_static(b"\x7fcount")
}

fn open(disk: &Disk) -> Arc<Rows2> {
    open_with(disk, &Health::default())
}

fn open_with(disk: &Disk, health: &Health) -> Arc<Rows2> {
    let load = |table: &Table, _| {
        let count = table.get(&count_key()).map_err(failed("reading"))?;
        Ok(count.map_or(0, |count| u64::from_be_bytes(count[..].try_into().unwrap())))
    };
    let background = Arc::new(Background::inline_with(health.clone()));
    GroupRows::open(disk.open_with(health.clone()), background, GROUP, load).unwrap()
}

fn apply(rows: &Arc<Rows2>) {
    let mut inner = rows.change().unwrap();
    inner.state += 1;
    inner.applied.index += 1;
    let value = Bytes::copy_from_slice(&inner.state.to_be_bytes());
    inner.table.put(count_key(), value);
    inner.commit();
}

fn put(rows: &Rows2, key: Bytes, value: Bytes) {
    let mut inner = rows.change().unwrap();
    inner.table.put(key, value);
    inner.commit();
}

#[test]
fn rows_and_what_was_applied_to_them_survive_together() {
    let disk = Disk::default();
    for survivors in [0, 9] {
        let rows = open(&disk);
        assert_eq!(rows.read().unwrap().state, rows.applied().index, "invariant 1");
        apply(&rows);
        rows.checkpoint().unwrap();
        let durable = rows.durable();
        assert_eq!(durable, rows.applied());
        apply(&rows);
        assert_eq!(rows.durable(), durable, "invariant 2");
        disk.power_loss(survivors);
        let rows = open(&disk);
        assert_eq!(
            (rows.applied(), rows.read().unwrap().state),
            (durable.clone(), durable.index)
        );
    }
}

#[test]
fn a_checkpoint_of_nothing_writes_nothing() {
    let disk = Disk::default();
    let rows = open(&disk);
    apply(&rows);
    rows.checkpoint().unwrap();
    rows.checkpoint().unwrap();
    assert_eq!(disk.pending(), 0);
}

#[test]
fn a_failed_sync_leaves_durable_where_it_was_and_shows_in_the_health() {
    let disk = Disk::default();
    let health = Health::default();
    let rows = open_with(&disk, &health);
    apply(&rows);
    disk.fail_once(Operation::Sync, 0);
    rows.checkpoint().unwrap_err();
    rows.checkpoint().unwrap_err();
    assert_eq!(rows.durable().index, 0);
    assert_eq!(health.failure().unwrap().doing, "syncing rows");
    assert_eq!(rows.read().unwrap().state, 1);
}

/// Applies an entry in the middle of a checkpoint, as another thread would.
struct Interrupted {
    engine: Arc<dyn Engine>,
    rows: Mutex<Option<Arc<Rows2>>>,
}

impl Engine for Interrupted {
    fn kind(&self) -> engine::Kind {
        self.engine.kind()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        self.engine.get(key)
    }

    fn range<'a>(&'a self, range: Range<&[u8]>, order: Order) -> Box<dyn Iterator<Item = Row> + 'a> {
        self.engine.range(range, order)
    }

    fn write(&self, batch: &mut dyn Iterator<Item = engine::Change>) -> io::Result<()> {
        let rows = self.rows.lock().take();
        rows.iter().for_each(apply);
        self.engine.write(batch)
    }

    fn checkpoint(&self) -> io::Result<()> {
        self.engine.checkpoint()
    }

    fn disk_len(&self) -> u64 {
        self.engine.disk_len()
    }
}

/// Invariant 2.
#[test]
fn what_is_applied_during_a_checkpoint_is_not_durable() {
    let disk = Disk::default();
    let engine = Arc::new(Interrupted {
        engine: disk.open(),
        rows: Mutex::default(),
    });
    let rows = GroupRows::open(engine.clone(), Arc::new(Background::inline()), GROUP, |_, _| Ok(0)).unwrap();
    apply(&rows);
    *engine.rows.lock() = Some(rows.clone());
    rows.checkpoint().unwrap();
    assert_eq!((rows.applied().index, rows.durable().index), (2, 1));
    disk.power_loss(0);
    assert_eq!(open(&disk).applied().index, 1);
}

#[test]
fn a_checkpoint_starts_when_enough_was_applied() {
    let rows = open(&Disk::default());
    apply(&rows);
    rows.checkpoint_if_due().unwrap();
    assert_eq!(rows.durable().index, 0);
    for number in 0..CHECKPOINT_ROWS as u32 {
        let key = Bytes::copy_from_slice(&number.to_be_bytes());
        put(&rows, key, Bytes::new());
    }
    rows.checkpoint_if_due().unwrap();
    assert_eq!(rows.durable().index, 1);
    assert_eq!(rows.read().unwrap().table.dirty_rows(), 0);
    let big = Bytes::from(vec![0; MEMORY_LEN_MAX]);
    apply(&rows);
    put(&rows, Bytes::from("big"), big);
    rows.checkpoint_if_due().unwrap();
    assert_eq!(rows.durable().index, 2, "invariant 3");
}

#[test]
fn a_snapshot_replaces_everything_at_once() {
    let disk = Disk::default();
    let rows = open(&disk);
    apply(&rows);
    let mut filler = rows.filler();
    filler.put(Bytes::from("b"), Bytes::from("2")).unwrap();
    filler.put(Bytes::from("a"), Bytes::from("1")).unwrap();
    filler
        .put(count_key(), Bytes::copy_from_slice(&40u64.to_be_bytes()))
        .unwrap();
    filler.finish().unwrap();
    {
        let mut inner = rows.change().unwrap();
        inner.table.delete(count_key());
        inner.commit();
    }
    let applied = Applied {
        index: 40,
        ..Applied::default()
    };
    put(&rows, count_key(), Bytes::copy_from_slice(&40u64.to_be_bytes()));
    rows.swap(40, 1, applied.clone()).unwrap();
    disk.power_loss(0);
    let rows = open(&disk);
    assert_eq!(
        (rows.applied(), rows.read().unwrap().state, rows.read().unwrap().install),
        (applied, 40, 1)
    );
    assert_eq!(rows.read().unwrap().table.get(b"a").unwrap(), Some(Bytes::from("1")));
}

/// Applies half of an entry: the row and the count, but not what says so.
fn half_apply(inner: &mut Inner<u64>) {
    inner.state += 1;
    let value = Bytes::copy_from_slice(&inner.state.to_be_bytes());
    inner.table.put(count_key(), value);
}

#[test]
fn half_applied_entry_is_never_read_or_durable() {
    // Invariant 4, for an error and for a panic.
    for panics in [false, true] {
        let disk = Disk::default();
        let rows = open(&disk);
        apply(&rows);
        rows.checkpoint().unwrap();
        apply(&rows);
        let apply_half = || {
            let mut inner = rows.change().unwrap();
            half_apply(&mut inner);
            assert!(!panics, "on purpose");
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(apply_half));
        assert_eq!(outcome.is_err(), panics);
        assert!(matches!(rows.read(), Err(HalfChanged(GROUP))));
        assert!(rows.change().is_err());
        rows.checkpoint().unwrap_err();
        rows.checkpoint_if_due().unwrap_err();
        rows.swap(7, 1, Applied::default()).unwrap_err();
        assert_eq!((rows.applied(), disk.pending()), (rows.durable(), 0));
        drop(rows);
        let rows = open(&disk);
        assert_eq!((rows.applied().index, rows.read().unwrap().state), (1, 1));
        apply(&rows);
        rows.checkpoint().unwrap();
        assert_eq!(rows.durable().index, 2);
    }
}
