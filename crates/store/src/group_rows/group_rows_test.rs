//! Checkpoints under power loss, failing syncs and at their bounds.

use std::io;
use std::ops::Range;

use bytes::Bytes;
use stead_state::rows::{Order, Row, Unreadable};

use super::*;
use crate::engine;
use crate::engine::memory::{Disk, DiskOperation};
use crate::health::Health;

const GROUP: GroupId = GroupId::new(2);

/// Rows whose state counts the applied entries; the count has a row of its own.
type TestRows = GroupRows<u64>;

fn count_key() -> Bytes {
    Bytes::from_static(b"\x7fcount")
}

fn open(disk: &Disk) -> Arc<TestRows> {
    open_with(disk, &Health::default())
}

fn open_with(disk: &Disk, health: &Health) -> Arc<TestRows> {
    let load = |table: &Table, _| {
        let count = table.get(&count_key()).map_err(failed("reading"))?;
        Ok(count.map_or(0, |count| u64::from_be_bytes(count[..].try_into().unwrap())))
    };
    let background = Arc::new(Background::inline_with(health.clone()));
    GroupRows::open(disk.open_with(health.clone()), background, GROUP, load).unwrap()
}

fn apply(rows: &Arc<TestRows>) {
    let mut inner = rows.change().unwrap();
    inner.state += 1;
    inner.applied.index += 1;
    let value = Bytes::copy_from_slice(&inner.state.to_be_bytes());
    inner.table.put(count_key(), value);
    inner.commit();
}

fn put(rows: &TestRows, key: Bytes, value: Bytes) {
    let mut inner = rows.change().unwrap();
    inner.table.put(key, value);
    inner.commit();
}

#[test]
fn rows_and_applied_state_survive_together() {
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
fn checkpoint_without_changes_writes_nothing() {
    let disk = Disk::default();
    let rows = open(&disk);
    apply(&rows);
    rows.checkpoint().unwrap();
    rows.checkpoint().unwrap();
    assert_eq!(disk.pending(), 0);
}

#[test]
fn failed_sync_keeps_durable_index_and_fails_health() {
    let disk = Disk::default();
    let health = Health::default();
    let rows = open_with(&disk, &health);
    apply(&rows);
    disk.fail_once(DiskOperation::Sync, 0);
    rows.checkpoint().unwrap_err();
    rows.checkpoint().unwrap_err();
    assert_eq!(rows.durable().index, 0);
    assert_eq!(health.failure().unwrap().doing, "syncing rows");
    assert_eq!(rows.read().unwrap().state, 1);
}

/// Engine that applies an entry in the middle of a checkpoint, as another thread would.
struct ApplyDuringWrite {
    engine: Arc<dyn Engine>,
    rows: Mutex<Option<Arc<TestRows>>>,
}

impl Engine for ApplyDuringWrite {
    fn kind(&self) -> engine::Kind {
        self.engine.kind()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        self.engine.get(key)
    }

    fn range<'a>(&'a self, range: Range<&[u8]>, order: Order) -> Box<dyn Iterator<Item = Row> + 'a> {
        self.engine.range(range, order)
    }

    fn write(&self, batch: &mut dyn Iterator<Item = engine::RowChange>) -> io::Result<()> {
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
fn entry_applied_during_checkpoint_is_not_durable() {
    let disk = Disk::default();
    let engine = Arc::new(ApplyDuringWrite {
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
fn checkpoint_starts_at_row_and_byte_thresholds() {
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
fn activated_install_replaces_everything_at_once() {
    let disk = Disk::default();
    let rows = open(&disk);
    apply(&rows);
    let mut bulk_writer = rows.bulk_writer();
    bulk_writer.put(Bytes::from("b"), Bytes::from("2")).unwrap();
    bulk_writer.put(Bytes::from("a"), Bytes::from("1")).unwrap();
    bulk_writer
        .put(count_key(), Bytes::copy_from_slice(&40u64.to_be_bytes()))
        .unwrap();
    bulk_writer.finish().unwrap();
    {
        let mut inner = rows.change().unwrap();
        inner.table.delete(count_key());
        inner.commit();
    }
    let applied = AppliedState {
        index: 40,
        ..AppliedState::default()
    };
    put(&rows, count_key(), Bytes::copy_from_slice(&40u64.to_be_bytes()));
    rows.activate_install(40, 1, applied.clone()).unwrap();
    disk.power_loss(0);
    let rows = open(&disk);
    assert_eq!(
        (rows.applied(), rows.read().unwrap().state, rows.read().unwrap().install),
        (applied, 40, 1)
    );
    assert_eq!(rows.read().unwrap().table.get(b"a").unwrap(), Some(Bytes::from("1")));
}

/// Applies an entry partly: the row and the count, but not the applied state.
fn apply_partly(inner: &mut Inner<u64>) {
    inner.state += 1;
    let value = Bytes::copy_from_slice(&inner.state.to_be_bytes());
    inner.table.put(count_key(), value);
}

#[test]
fn partly_applied_entry_is_never_read_or_durable() {
    // Invariant 4, for an error and for a panic.
    for panics in [false, true] {
        let disk = Disk::default();
        let rows = open(&disk);
        apply(&rows);
        rows.checkpoint().unwrap();
        apply(&rows);
        let apply_partly_in_change = || {
            let mut inner = rows.change().unwrap();
            apply_partly(&mut inner);
            assert!(!panics, "on purpose");
        };
        let outcome = std::panic::catch_unwind(std::panic::AssertUnwindSafe(apply_partly_in_change));
        assert_eq!(outcome.is_err(), panics);
        assert!(matches!(rows.read(), Err(IncompleteChange(GROUP))));
        assert!(rows.change().is_err());
        rows.checkpoint().unwrap_err();
        rows.checkpoint_if_due().unwrap_err();
        rows.activate_install(7, 1, AppliedState::default()).unwrap_err();
        assert_eq!((rows.applied(), disk.pending()), (rows.durable(), 0));
        drop(rows);
        let rows = open(&disk);
        assert_eq!((rows.applied().index, rows.read().unwrap().state), (1, 1));
        apply(&rows);
        rows.checkpoint().unwrap();
        assert_eq!(rows.durable().index, 2);
    }
}
