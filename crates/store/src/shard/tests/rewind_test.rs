//! Rewinds in a machine: snapshots that are cut before or amid one, and power losses.

use bytes::Bytes;
use stead_state::{
    lineage::Lineage,
    rows::{GROUP_PREFIX_LEN, Order, kind},
    shard::{
        ApplyResult,
        command::{Activate, ContinueRewind, Freeze},
        record::{LeaseLossPolicy, OperationId, TenantRecord},
    },
};
use stead_types::{Epoch, Revision, Sequence, TenantTime};

use super::{
    super::ShardMachine,
    node::{HOME, Node, create, delete, installed, put, tenant, version},
};
use crate::machine::Machine;

const CHANGES: u64 = 3_000;
const POINT: u64 = 500;

fn epoch(number: u32) -> Epoch {
    Epoch::new(number).unwrap()
}

/// The home of a tenant with so many changes of a few keys.
fn home() -> Node {
    let mut node = Node::new(HOME);
    node.propose(&[create(1)]);
    for value in 0..CHANGES {
        let key = (value % 40) as u8;
        let held = value % 7 == 3 && value > 100;
        node.propose(&[if held { delete(1, key) } else { put(1, key, value) }]);
    }
    node
}

/// The freeze for an epoch, after a promotion to the epoch before that kept changes up to a sequence.
fn freeze(node: &Node, number: u32, kept: u64) -> Bytes {
    let mut lineage = record(node).lineage;
    lineage.record_promotion(epoch(number - 1), Sequence::new(kept).unwrap());
    let freeze = Freeze {
        tenant: tenant(1),
        version: version(u64::from(number)),
        operation: OperationId(u64::from(number)),
        epoch: epoch(number),
        lineage,
    };
    freeze.encode()
}

fn record(node: &Node) -> TenantRecord {
    node.machine
        .read(|view| view.shard().record(tenant(1)).cloned())
        .unwrap()
        .unwrap()
}

fn step() -> Bytes {
    ContinueRewind { tenant: tenant(1) }.encode()
}

fn finish(node: &mut Node) -> usize {
    let mut steps = 0;
    while record(node).rewind.is_some() {
        node.propose(&[step()]);
        steps += 1;
    }
    steps
}

/// Rewinds, takes over, and uses sequences again that were cut.
fn rewind_and_go_on(node: &mut Node, number: u32, kept: u64) {
    let freeze = freeze(node, number, kept);
    assert_eq!(node.propose(&[freeze]), [ApplyResult::Done]);
    finish(node);
    let activate = Activate {
        tenant: tenant(1),
        version: version(u64::from(number)),
        home: HOME,
        epoch: epoch(number),
        kept: record(node).live.revision,
        time: TenantTime(0),
        policy: LeaseLossPolicy::Stop,
        uncounted: Vec::new(),
    };
    assert_eq!(node.propose(&[activate.encode()]), [ApplyResult::Done]);
    for value in 0..200 {
        node.propose(&[put(1, (value % 40) as u8, u64::from(number) * 10_000 + value)]);
    }
    assert_eq!(
        record(node).live.revision,
        Revision::new(epoch(number), Sequence::new(kept + 200).unwrap())
    );
}

/// Returns all rows of data, whatever copy they are of.
fn rows(machine: &ShardMachine) -> Vec<(u8, Bytes, Bytes)> {
    let of_kind = |kind: u8| {
        machine.read(|view| {
            let range = view.shard().prefix().range(kind);
            let rows = view
                .rows
                .range(&range.start..&range.end, Order::Ascending)
                .map(Result::unwrap);
            rows.map(|(key, row)| (kind, key.slice(GROUP_PREFIX_LEN..), row))
                .collect::<Vec<_>>()
        })
    };
    let kinds = [kind::CURRENT, kind::CHANGE, kind::EXPIRY, kind::CLIENT];
    kinds.into_iter().flat_map(|kind| of_kind(kind).unwrap()).collect()
}

#[test]
fn snapshot_cut_before_rewinds_is_as_of_its_cut() {
    // Invariant 6: the tail is moved, and its sequences are used again and moved again, while it is read.
    let mut node = home();
    let mut snapshot = node.machine.snapshot().unwrap();
    let before = node.state();
    let first = snapshot.chunks.next().unwrap();
    rewind_and_go_on(&mut node, 3, POINT);
    rewind_and_go_on(&mut node, 5, POINT + 50);
    snapshot.chunks = Box::new(std::iter::once(first).chain(snapshot.chunks));
    let other = installed(snapshot, HOME);
    assert_eq!(other.state(), before);
    // One that is cut now has all copies.
    let other = installed(node.machine.snapshot().unwrap(), HOME);
    assert_eq!(other.state(), node.state());
    node.machine.checkpoint().unwrap();
    assert!(rows(&other.machine) == rows(&node.machine), "all rows are the same");
}

#[test]
fn rewind_goes_on_after_snapshot_amid_it() {
    let mut node = home();
    let freeze = freeze(&node, 3, POINT);
    node.propose(&[freeze]);
    node.propose(&[step()]);
    let next = record(&node).rewind.unwrap().next.get();
    assert!((POINT + 1..CHANGES - 1_000).contains(&next), "{next}");
    let mut other = installed(node.machine.snapshot().unwrap(), HOME);
    assert_eq!(record(&other), record(&node));
    assert_eq!(finish(&mut other), finish(&mut node));
    rewind_and_go_on(&mut other, 5, POINT - 10);
    rewind_and_go_on(&mut node, 5, POINT - 10);
    assert_eq!(other.state(), node.state());
    node.machine.checkpoint().unwrap();
    other.machine.checkpoint().unwrap();
    assert!(rows(&other.machine) == rows(&node.machine), "all rows are the same");
}

#[test]
fn rewind_goes_on_after_power_loss() {
    let mut expected = home();
    rewind_and_go_on(&mut expected, 3, POINT);
    for survivors in [0, 1, 3, usize::MAX] {
        let mut node = home();
        node.machine.checkpoint().unwrap();
        let freeze = freeze(&node, 3, POINT);
        assert_eq!(node.propose(&[freeze]), [ApplyResult::Done]);
        node.power_loss(survivors);
        node.propose(&[step()]);
        node.machine.checkpoint().unwrap();
        node.propose(&[step()]);
        node.power_loss(survivors);
        finish(&mut node);
        assert_eq!(record(&node).live.keys, expected_keys(&expected));
    }
}

/// Number of keys at the fork point.
fn expected_keys(node: &Node) -> u64 {
    let at = Revision::new(epoch(1), Sequence::new(POINT).unwrap());
    let data = node
        .machine
        .read(|view| super::state::data(&view, tenant(1), Some(at)))
        .unwrap();
    data.len() as u64
}

#[test]
fn lineage_of_node_is_that_of_its_promotions() {
    let mut node = home();
    rewind_and_go_on(&mut node, 3, POINT);
    let mut lineage = Lineage::starting(epoch(1));
    lineage.record_promotion(epoch(3), Sequence::new(POINT).unwrap());
    assert_eq!(record(&node).lineage, lineage);
}
