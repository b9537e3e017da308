//! Installs of snapshots: what they replace, what they leave, and what an interrupted one leaves.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use stead_state::{
    rows::Order,
    shard::command::{Effect, Operation, Write},
};

use super::{
    super::ShardMachine,
    node::{HOME, Node, create, open, put, tenant},
    state::data,
};
use crate::{
    engine::memory::{Disk, DiskOperation},
    machine::{Machine, Snapshot},
};

#[test]
fn maintenance_removes_nothing_during_install() {
    let mut from = Node::new(HOME);
    from.propose(&[create(1)]);
    // More than is sorted in memory at a time.
    for key in 0..40 {
        let operation = Operation::new(vec![b'k', key], Effect::put(noise(key, 512 << 10)));
        from.propose(&[Write::new(tenant(1), None, operation).encode()]);
    }
    let Snapshot { applied, chunks } = from.machine.snapshot().unwrap();
    let chunks: Vec<_> = chunks.collect();
    let last = chunks.len() - 1;
    assert!(last > 0, "the last chunk comes when others are written");
    let machine = Arc::new(open(&Disk::default(), HOME));
    let meanwhile = machine.clone();
    let sweep = move |(number, chunk)| {
        while number == last && meanwhile.maintain().unwrap() {}
        chunk
    };
    let chunks = Box::new(chunks.into_iter().enumerate().map(sweep));
    machine.install(Snapshot { applied, chunks }).unwrap();
    let state = |machine: &ShardMachine| machine.read(|view| data(&view, tenant(1), None));
    assert_eq!(state(&machine), state(&from.machine));
}

/// Bytes that cannot be compressed.
fn noise(seed: u8, len: usize) -> Bytes {
    let mut state = u64::from(seed) + 1;
    let next = |_| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state as u8
    };
    (0..len).map(next).collect()
}

#[test]
fn install_replaces_everything_and_leaves_no_old_rows() {
    let mut old = Node::new(HOME);
    old.propose(&[create(1), put(1, 1, 1), create(2), put(2, 1, 2)]);
    old.machine.checkpoint().unwrap();
    let mut new = Node::new(HOME);
    new.propose(&[create(3)]);
    for value in 0..10 {
        new.propose(&[put(3, value, u64::from(value))]);
    }
    for _ in 0..2 {
        old.machine.install(new.machine.snapshot().unwrap()).unwrap();
        assert_eq!(old.state(), new.state());
        assert_eq!(old.machine.durable(), new.machine.applied());
    }
    old.disk.power_loss(0);
    old.machine = open(&old.disk, HOME);
    assert_eq!(old.state(), new.state());
    while old.machine.maintain().unwrap() {}
    old.machine.checkpoint().unwrap();
    let engine = old.disk.open();
    let rows = engine
        .range(&[0x10]..&[0x20], Order::Ascending)
        .map(|row| row.unwrap().0);
    let installs: BTreeSet<u8> = rows.map(|key| key[8]).collect();
    assert_eq!(installs.len(), 1, "only the last install is left");
}

#[test]
fn interrupted_install_number_is_never_reused() {
    // Invariant 4.
    let mut new = Node::new(HOME);
    new.propose(&[create(3)]);
    for value in 0..10 {
        new.propose(&[put(3, value, u64::from(value))]);
    }
    let mut interrupted = 0;
    for (operation, after) in [DiskOperation::Write, DiskOperation::Sync]
        .into_iter()
        .flat_map(|operation| (0..6).map(move |after| (operation, after)))
    {
        let mut old = Node::new(HOME);
        old.propose(&[create(1), put(1, 1, 1)]);
        old.machine.checkpoint().unwrap();
        old.disk.fail_once(operation, after);
        interrupted += u32::from(old.machine.install(new.machine.snapshot().unwrap()).is_err());
        let survivors = old.disk.pending();
        old.disk.power_loss(survivors);
        old.machine = open(&old.disk, HOME);
        // The rows that the install left are removed, but not durably, when the next one comes.
        while old.machine.maintain().unwrap() {}
        old.machine.install(new.machine.snapshot().unwrap()).unwrap();
        assert_eq!(old.state(), new.state(), "{operation:?} {after}");
        old.machine.checkpoint().unwrap();
        old.disk.power_loss(0);
        old.machine = open(&old.disk, HOME);
        assert_eq!(old.state(), new.state(), "{operation:?} {after}");
    }
    assert!(4 < interrupted, "{interrupted}");
}

#[test]
fn truncated_snapshot_changes_nothing() {
    let mut node = Node::new(HOME);
    node.propose(&[create(1), put(1, 1, 1)]);
    let before = node.state();
    let mut cut = node.machine.snapshot().unwrap();
    cut.chunks = Box::new(std::iter::empty());
    assert!(node.machine.install(cut).is_err());
    assert_eq!(node.state(), before);
}
