//! Conformance tests for implementations of the log; they cite the invariants of [`super`].

use std::io;
use std::sync::Arc;
use std::sync::mpsc;
use std::time::Duration;

use bytes::Bytes;
use stead_types::GroupId;

use super::{GroupLog, GroupLogState, LogRecord, LogStore, PurgePoint, SyncCallback};

const GROUP: GroupId = GroupId::new(1);
const OTHER: GroupId = GroupId::DIRECTORY;

/// Timeout for a callback.
const DEADLINE: Duration = Duration::from_secs(20);

pub(super) fn record(index: u64, text: &str) -> LogRecord {
    let bytes = Bytes::from(format!("{text}{index}"));
    LogRecord { index, bytes }
}

/// Runs a call and waits until it is durable or has failed.
pub(super) fn wait(call: impl FnOnce(SyncCallback)) -> io::Result<()> {
    let (sender, receiver) = mpsc::channel();
    call(Box::new(move |done| sender.send(done).unwrap()));
    receiver.recv_timeout(DEADLINE).expect("called back in time")
}

fn records(range: std::ops::Range<u64>, text: &str) -> Vec<LogRecord> {
    range.map(|index| record(index, text)).collect()
}

fn append(log: &Arc<dyn GroupLog>, range: std::ops::Range<u64>, text: &str) {
    let records = records(range, text);
    wait(|done| log.append(records, done)).unwrap();
}

/// Runs all checks; `open` opens the same log again, the one opened before being dropped.
pub(super) fn check(open: &mut dyn FnMut() -> Arc<dyn LogStore>) {
    appends_are_read_and_survive(open);
    holes_are_refused(open);
    truncation_survives_with_and_without_an_append(open);
    purge_leaves_the_rest_and_may_pass_the_end(open);
    votes_and_commits_survive(open);
    groups_are_apart_and_can_be_erased(open);
}

fn appends_are_read_and_survive(open: &mut dyn FnMut() -> Arc<dyn LogStore>) {
    let log = open().group(GROUP);
    assert_eq!(log.state().unwrap(), GroupLogState::default());
    assert_eq!(log.read(0..10, 100).unwrap(), []);
    let (sender, receiver) = mpsc::channel();
    log.append(records(0..5, "a"), Box::new(move |done| sender.send(done).unwrap()));
    assert_eq!(log.read(0..10, 1000).unwrap(), records(0..5, "a"), "invariant 2");
    receiver.recv_timeout(DEADLINE).unwrap().unwrap();
    drop(log);
    let log = open().group(GROUP);
    assert_eq!(log.read(0..10, 1000).unwrap(), records(0..5, "a"), "invariant 3");
    assert_eq!(log.read(2..4, 1000).unwrap(), records(2..4, "a"));
    assert_eq!(log.read(2..4, 0).unwrap(), records(2..3, "a"), "never empty");
    assert!(
        (1..=2).contains(&log.read(0..5, 4).unwrap().len()),
        "at most four bytes"
    );
    let state = log.state().unwrap();
    assert_eq!((state.first, state.last), (Some(0), Some(record(4, "a"))));
}

fn holes_are_refused(open: &mut dyn FnMut() -> Arc<dyn LogStore>) {
    let logs = open();
    let log = logs.group(GROUP);
    for start in [3, 4, 6] {
        wait(|done| log.append(records(start..8, "x"), done)).unwrap_err();
    }
    assert_eq!(log.state().unwrap().last, Some(record(4, "a")), "invariant 4");
    assert!(logs.health().failure().is_none());
}

fn truncation_survives_with_and_without_an_append(open: &mut dyn FnMut() -> Arc<dyn LogStore>) {
    let log = open().group(GROUP);
    log.truncate_after(Some(3)).unwrap();
    assert_eq!(log.state().unwrap().last, Some(record(3, "a")));
    wait(|done| log.save_vote(Bytes::from("1"), done)).unwrap();
    drop(log);
    let log = open().group(GROUP);
    assert_eq!(log.read(0..10, 1000).unwrap(), records(0..4, "a"));
    log.truncate_after(Some(1)).unwrap();
    append(&log, 2..4, "b");
    drop(log);
    let log = open().group(GROUP);
    assert_eq!(log.read(0..2, 1000).unwrap(), records(0..2, "a"));
    assert_eq!(log.read(2..10, 1000).unwrap(), records(2..4, "b"));
    log.truncate_after(None).unwrap();
    assert_eq!(log.state().unwrap().first, None);
    assert_eq!(log.read(0..10, 1000).unwrap(), []);
    wait(|done| log.save_vote(Bytes::from("2"), done)).unwrap();
    drop(log);
    let log = open().group(GROUP);
    assert_eq!(log.state().unwrap().last, None);
    append(&log, 0..10, "c");
    assert_eq!(log.read(0..10, 1000).unwrap(), records(0..10, "c"));
}

fn purge_leaves_the_rest_and_may_pass_the_end(open: &mut dyn FnMut() -> Arc<dyn LogStore>) {
    let log = open().group(GROUP);
    log.purge(4, Bytes::from("id4")).unwrap();
    log.purge(2, Bytes::from("id2")).unwrap();
    assert_eq!(log.state().unwrap().first, Some(5));
    assert_eq!(log.read(0..10, 1000).unwrap(), records(5..10, "c"));
    append(&log, 10..11, "c");
    drop(log);
    let log = open().group(GROUP);
    let meta = Bytes::from("id4");
    assert_eq!(log.state().unwrap().purged, Some(PurgePoint { index: 4, meta }));
    assert_eq!(log.read(0..20, 1000).unwrap(), records(5..11, "c"));
    log.purge(99, Bytes::from("id99")).unwrap();
    let state = log.state().unwrap();
    assert_eq!((state.first, state.last), (None, None));
    append(&log, 100..103, "d");
    assert_eq!(log.read(0..200, 1000).unwrap(), records(100..103, "d"));
    drop(log);
    let log = open().group(GROUP);
    assert_eq!(log.read(0..200, 1000).unwrap(), records(100..103, "d"));
    log.truncate_after(Some(99)).unwrap();
    assert_eq!(log.state().unwrap().last, None);
    append(&log, 100..102, "e");
    drop(log);
    let log = open().group(GROUP);
    assert_eq!(log.read(0..200, 1000).unwrap(), records(100..102, "e"));
}

fn votes_and_commits_survive(open: &mut dyn FnMut() -> Arc<dyn LogStore>) {
    let log = open().group(GROUP);
    log.save_committed(Bytes::from("c1")).unwrap();
    assert_eq!(log.state().unwrap().committed, Some(Bytes::from("c1")));
    wait(|done| log.save_vote(Bytes::from("v1"), done)).unwrap();
    drop(log);
    let state = open().group(GROUP).state().unwrap();
    assert_eq!(state.vote, Some(Bytes::from("v1")));
    assert_eq!(state.committed, Some(Bytes::from("c1")), "rode along");
}

fn groups_are_apart_and_can_be_erased(open: &mut dyn FnMut() -> Arc<dyn LogStore>) {
    let logs = open();
    let other = logs.group(OTHER);
    assert_eq!(other.state().unwrap(), GroupLogState::default());
    append(&other, 0..2, "o");
    assert_eq!(logs.groups(), [OTHER, GROUP]);
    wait(|done| logs.erase(GROUP, done)).unwrap();
    assert_eq!(logs.group(GROUP).state().unwrap(), GroupLogState::default());
    drop(other);
    drop(logs);
    let logs = open();
    assert_eq!(logs.groups(), [OTHER]);
    assert_eq!(logs.group(GROUP).state().unwrap(), GroupLogState::default());
    append(&logs.group(GROUP), 7..9, "f");
    assert_eq!(logs.group(GROUP).read(0..10, 1000).unwrap(), records(7..9, "f"));
    assert_eq!(logs.group(OTHER).read(0..10, 1000).unwrap(), records(0..2, "o"));
}
