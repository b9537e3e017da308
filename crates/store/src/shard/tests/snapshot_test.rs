//! Snapshots: consistent with their cut, whatever is applied and removed while they are read.

use std::{
    collections::BTreeSet,
    ops::Range,
    sync::{
        Arc,
        atomic::{self, AtomicUsize},
    },
};

use bytes::Bytes;
use stead_state::{
    lineage::Lineage,
    rows::{GROUP_PREFIX_LEN, Order, Row, Unreadable, kind},
    shard::command::{ContinueRewind, Erase, Follow, RetentionFloor},
};
use stead_types::{Epoch, Sequence};

use super::{
    super::ShardMachine,
    node::{FOLLOWER, HOME, Node, create, delete, installed, put, tenant, version},
};
use crate::{
    background::Background,
    engine::{Engine, Kind, RowChange},
    machine::Machine,
};

const TENANTS: u64 = 3_000;

#[test]
fn maintenance_removes_nothing_while_snapshot_is_read() {
    let mut node = Node::new(HOME);
    node.propose(&[create(1)]);
    for value in 0..2_000 {
        node.propose(&[put(1, (value % 10) as u8, value)]);
    }
    let mut snapshot = node.machine.snapshot().unwrap();
    let before = node.state();
    let index = node.machine.applied().index;
    let first = snapshot.chunks.next().unwrap();
    let floor = RetentionFloor { index, tenants: vec![] };
    node.propose(&[floor.encode()]);
    let erase = Erase {
        tenant: tenant(1),
        version: version(9),
        deleted: true,
        forks: vec![],
        recorded: None,
    };
    node.propose(&[erase.encode()]);
    node.machine.checkpoint().unwrap();
    snapshot.chunks = Box::new(std::iter::once(first).chain(snapshot.chunks));
    let other = installed(snapshot, HOME);
    assert_eq!(other.state(), before);
    while node.machine.maintain().unwrap() {}
    node.machine.checkpoint().unwrap();
    let engine = node.disk.open();
    let rows = engine.range(&[0x11]..&[0x14], Order::Ascending).count();
    assert_eq!(rows, 0, "after the snapshot everything goes");
}

#[test]
fn snapshot_has_no_windows_of_discarded_copies() {
    // Invariant 6.
    let mut node = Node::new(HOME);
    node.propose(&[create(1), create(2)]);
    for value in 0..10 {
        node.propose(&[put(1, 1, value), put(2, 1, value)]);
    }
    node.machine.checkpoint().unwrap();
    let erase = Erase {
        tenant: tenant(1),
        version: version(9),
        deleted: true,
        forks: vec![],
        recorded: None,
    };
    // Held back, maintenance has not come to the copy that is discarded when the second snapshot is cut.
    let pin = node.machine.snapshot().unwrap();
    node.propose(&[erase.encode()]);
    let cut = node.machine.snapshot().unwrap();
    drop(pin);
    let other = installed(cut, HOME);
    while other.machine.maintain().unwrap() {}
    other.machine.checkpoint().unwrap();
    let engine = other.disk.open();
    let rows = engine.range(&[kind::CLIENT]..&[kind::CLIENT + 1], Order::Ascending);
    let tenants: BTreeSet<u64> = rows
        .map(|row| u64::from_be_bytes(row.unwrap().0[9..17].try_into().unwrap()))
        .collect();
    assert_eq!(tenants, [2].into());
}

#[test]
fn swept_tombstone_is_not_current_after_install() {
    let mut node = Node::new(HOME);
    node.propose(&[create(1), put(1, 1, 1), put(1, 2, 2)]);
    node.propose(&[delete(1, 1)]);
    // Held back, maintenance has not removed the delete itself when the second snapshot is cut.
    let pin = node.machine.snapshot().unwrap();
    let floor = RetentionFloor {
        index: node.machine.applied().index,
        tenants: vec![],
    };
    node.propose(&[floor.encode()]);
    let swept = node.state();
    assert_eq!(swept.current.len(), 1, "of the deleted key nothing is current");
    let other = installed(node.machine.snapshot().unwrap(), HOME);
    drop(pin);
    assert_eq!(other.state(), swept);
}

/// Creates many tenants, each with a client's window.
fn many_tenants(node: &mut Node) {
    for number in 1..=TENANTS {
        node.propose(&[create(number), put(number, 1, 1), put(number, 2, 2)]);
    }
}

/// Invariant 6.
#[test]
fn slowly_read_snapshot_is_consistent_with_its_cut() {
    let mut node = Node::new(HOME);
    many_tenants(&mut node);
    node.machine.checkpoint().unwrap();
    let mut snapshot = node.machine.snapshot().unwrap();
    let (before, index) = (node.state(), node.machine.applied().index);
    let mut chunks = Vec::new();
    for round in 0..3 {
        for number in (1..=TENANTS).step_by(7) {
            let value = 10 * (round + 1) + number % 5;
            node.propose(&[put(number, 1, value), delete(number, 2), put(number, 3, value + 1)]);
        }
        node.propose(&[create(TENANTS + 1 + round), put(TENANTS + 1 + round, 1, 7)]);
        let floor = RetentionFloor {
            index: index + 100 * (round + 1),
            tenants: vec![],
        };
        node.propose(&[floor.encode()]);
        node.machine.checkpoint().unwrap();
        // Another one, of which nothing is read.
        drop(node.machine.snapshot().unwrap());
        chunks.extend(snapshot.chunks.next());
    }
    snapshot.chunks = Box::new(chunks.into_iter().chain(snapshot.chunks));
    let other = installed(snapshot, HOME);
    assert!(other.state() == before);
}

/// Invariant 6, also where a copy leaves memory.
#[test]
fn fork_leaves_earlier_snapshot_unchanged() {
    // The whole copy becomes the fork, or its tail.
    for kept in [0, 10] {
        check_fork_after_snapshot(kept);
    }
}

fn check_fork_after_snapshot(kept: u64) {
    let mut node = Node::new(HOME);
    node.propose(&[create(1)]);
    for value in 0..400 {
        node.propose(&[put(1, 1, value)]);
    }
    let snapshot = node.machine.snapshot().unwrap();
    let start = snapshot.applied.index as usize;
    for value in 400..800 {
        node.propose(&[put(1, 1, value)]);
    }
    let mut lineage = Lineage::starting(Epoch::FIRST);
    lineage.record_promotion(Epoch::FIRST.next().unwrap(), Sequence::new(kept).unwrap());
    let follow = Follow {
        tenant: tenant(1),
        version: version(9),
        home: FOLLOWER,
        epoch: Epoch::FIRST.next().unwrap(),
        lineage,
    };
    let rewind = ContinueRewind { tenant: tenant(1) };
    for command in [follow.encode(), rewind.encode()] {
        node.propose(&[command]);
    }
    let mut other = installed(snapshot, HOME);
    for entry in node.log[start..].iter().cloned() {
        other.machine.apply(vec![entry]).unwrap();
    }
    assert_eq!(other.state(), node.state());
    let windows = |node: &mut Node| {
        node.machine.checkpoint().unwrap();
        let engine = node.disk.open();
        let rows = engine.range(&[kind::CLIENT]..&[kind::CLIENT + 1], Order::Ascending);
        let rows = rows.map(|row| row.map(|(key, value)| (key.slice(GROUP_PREFIX_LEN..), value)).unwrap());
        rows.collect::<Vec<_>>()
    };
    let expected = windows(&mut node);
    assert!(!expected.is_empty());
    assert_eq!(windows(&mut other), expected);
}

/// Engine that counts the rows that are read.
struct CountingEngine {
    engine: Arc<dyn Engine>,
    rows: Arc<AtomicUsize>,
}

impl Engine for CountingEngine {
    fn kind(&self) -> Kind {
        self.engine.kind()
    }

    fn get(&self, key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
        self.rows.fetch_add(1, atomic::Ordering::Relaxed);
        self.engine.get(key)
    }

    fn range<'a>(&'a self, range: Range<&[u8]>, order: Order) -> Box<dyn Iterator<Item = Row> + 'a> {
        let rows = self.engine.range(range, order);
        Box::new(rows.inspect(|_| {
            self.rows.fetch_add(1, atomic::Ordering::Relaxed);
        }))
    }

    fn write(&self, batch: &mut dyn Iterator<Item = RowChange>) -> std::io::Result<()> {
        self.engine.write(batch)
    }

    fn checkpoint(&self) -> std::io::Result<()> {
        self.engine.checkpoint()
    }

    fn disk_len(&self) -> u64 {
        self.engine.disk_len()
    }
}

/// Invariant 6: applying never waits for a read of rows, whatever the group holds.
#[test]
fn snapshot_cut_reads_no_rows() {
    let mut node = Node::new(HOME);
    many_tenants(&mut node);
    node.machine.checkpoint().unwrap();
    let rows = Arc::new(AtomicUsize::new(0));
    let engine = CountingEngine {
        engine: node.disk.open(),
        rows: rows.clone(),
    };
    let machine = ShardMachine::open(Arc::new(engine), Arc::new(Background::inline()), HOME).unwrap();
    rows.store(0, atomic::Ordering::Relaxed);
    let snapshot = machine.snapshot().unwrap();
    assert_eq!(
        rows.load(atomic::Ordering::Relaxed),
        0,
        "rows looked at while applying waits"
    );
    assert!(snapshot.chunks.map(Result::unwrap).count() > 1);
    assert!(rows.load(atomic::Ordering::Relaxed) > 3 * TENANTS as usize);
}
