//! Applying of entries: through restarts, failed reads and entries that cannot be applied.

use bytes::Bytes;
use stead_state::{
    codec::encode_entry,
    shard::{ApplyResult, command::RetentionFloor},
};

use super::node::{FOLLOWER, HOME, Node, create, delete, open, put};
use crate::{
    engine::memory::{Disk, DiskOperation},
    machine::{CommittedEntry, Machine, Payload},
};

#[test]
fn put_is_read_after_restart_with_and_without_checkpoint() {
    let mut node = Node::new(HOME);
    node.propose(&[create(1)]);
    let answers = node.propose(&[put(1, 7, 70), put(1, 7, 71)]);
    assert!(matches!(&answers[1], ApplyResult::Write(written) if written.revision == "1.2".parse().unwrap()));
    node.power_loss(0);
    assert_eq!(node.state().data[0].len(), 1);
    node.machine.checkpoint().unwrap();
    let before = node.state();
    node.power_loss(0);
    assert_eq!(node.machine.applied().index, 2);
    assert_eq!(node.state(), before);
}

/// Returns the commands of an entry that reads rows by key and by range, trims, erases and records outcomes.
fn entry_that_reads() -> Vec<Bytes> {
    let floor = RetentionFloor {
        index: 3,
        tenants: vec![],
    };
    vec![put(1, 1, 30), delete(1, 2), floor.encode(), put(1, 3, 31)]
}

fn node_with_data() -> Node {
    let mut node = Node::new(HOME);
    node.propose(&[create(1)]);
    for value in 0..20 {
        node.propose(&[put(1, (value % 4) as u8, value)]);
    }
    node.machine.checkpoint().unwrap();
    node
}

#[test]
fn failed_read_in_apply_leaves_no_trace() {
    let mut whole = node_with_data();
    whole.propose(&entry_that_reads());
    let mut failures = 0;
    for after in 0.. {
        let mut node = node_with_data();
        let (before, durable) = (node.state(), node.machine.durable());
        let entry = CommittedEntry {
            index: durable.index + 1,
            log_id: Bytes::from_static(b"id"),
            payload: Payload::Commands(encode_entry(1_000 + durable.index + 1, &entry_that_reads())),
        };
        node.log.push(entry.clone());
        node.disk.fail_once(DiskOperation::Read, after);
        if node.machine.apply(vec![entry]).is_ok() {
            assert!(node.disk.will_fail(DiskOperation::Read));
            break;
        }
        failures += 1;
        let again = node.log.last().unwrap().clone();
        assert!(
            node.machine.apply(vec![again]).is_err(),
            "not even the same entry again"
        );
        assert!(node.machine.read(|_| ()).is_err());
        assert!(node.machine.checkpoint().is_err());
        assert!(node.machine.maintain().is_err());
        assert!(node.machine.snapshot().is_err());
        assert!(node.machine.install(whole.machine.snapshot().unwrap()).is_err());
        assert_eq!(node.machine.applied(), durable);
        // Stopped in order: whatever reached the disk is found again.
        let survivors = node.disk.pending();
        node.disk.power_loss(survivors);
        node.machine = open(&node.disk, HOME);
        assert_eq!((node.state(), node.machine.applied()), (before, durable));
        let again = node.log.last().unwrap().clone();
        node.machine.apply(vec![again]).unwrap();
        assert_eq!(node.state(), whole.state());
    }
    assert!(2 < failures, "{failures}");
}

#[test]
fn entry_out_of_order_is_not_applied() {
    for skip in [0, 2, 7] {
        let mut node = Node::new(HOME);
        node.propose(&[create(1)]);
        let mut entry = node.log[0].clone();
        entry.index = 1 + skip;
        entry.payload = Payload::Commands(encode_entry(2_000, &[put(1, 1, 1)]));
        let failed = node.machine.apply(vec![entry]).unwrap_err();
        let reason = failed.source.to_string();
        let expected = format!("entry {} is out of order: the last applied entry is 1", 1 + skip);
        assert_eq!(reason, expected);
        assert!(node.machine.read(|_| ()).is_err());
    }
}

#[test]
fn entry_with_unknown_command_is_rejected_whole() {
    let mut node = Node::new(HOME);
    node.propose(&[create(1)]);
    let entry = CommittedEntry {
        index: 2,
        log_id: Bytes::from_static(b"2"),
        payload: Payload::Commands(encode_entry(1_002, &[put(1, 1, 1), Bytes::from_static(b"\xc8?")])),
    };
    let before = node.state();
    let failed = node.machine.apply(vec![entry]).unwrap_err();
    assert!(
        chain(&failed).contains("log entry 2 holds a command of kind 200 that stead"),
        "{}",
        chain(&failed)
    );
    node.power_loss(0);
    assert_eq!(node.state(), before);
    assert_eq!(node.machine.applied().index, 1);
}

/// Returns an error with its causes.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(error.source(), |cause| cause.source());
    causes.fold(error.to_string(), |text, cause| format!("{text}: {cause}"))
}

#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "nested read of a machine"))]
fn nested_read_of_a_machine_panics_in_debug_builds() {
    // Invariant 5.
    let machine = open(&Disk::default(), HOME);
    let other = open(&Disk::default(), FOLLOWER);
    machine.read(|_| other.read(|_| ()).unwrap()).unwrap();
    machine.read(|_| ()).unwrap();
    machine
        .read(|state| {
            machine
                .read(|again| assert_eq!(state.applied(), again.applied()))
                .unwrap()
        })
        .unwrap();
}
