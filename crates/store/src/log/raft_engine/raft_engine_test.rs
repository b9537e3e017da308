//! Tests of the log on disk alone: many writers, a failing sync, a tail larger than its cache.

use std::sync::mpsc;

use bytes::Bytes;

use super::super::LogRecord;
use super::super::conformance::{check, record, wait};
use super::*;
use crate::small_disk::SmallDisk;

const GROUP: GroupId = GroupId::new(1);

const OPTIONS: Options = Options {
    file_len: 1 << 20,
    purge_len: 2 << 20,
    prefill_len: 0,
};

fn open_in(dir: &tempfile::TempDir) -> Arc<dyn LogStore> {
    open_in_dir(dir.path())
}

fn open_in_dir(dir: &Path) -> Arc<dyn LogStore> {
    open(dir, &OPTIONS, SyncFault::default(), Health::default()).unwrap()
}

#[test]
fn raft_engine_log_conforms_to_log() {
    let dir = tempfile::tempdir().unwrap();
    check(&mut || open_in(&dir));
}

#[test]
fn failed_sync_fails_every_later_call() {
    let dir = tempfile::tempdir().unwrap();
    let fault = SyncFault::default();
    let health = Health::default();
    let logs = open(dir.path(), &OPTIONS, fault.clone(), health.clone()).unwrap();
    let log = logs.group(GROUP);
    wait(|done| log.append(vec![record(0, "a")], done)).unwrap();
    fault.set(true);
    wait(|done| log.append(vec![record(1, "a")], done)).unwrap_err();
    assert_eq!(health.failure().unwrap().doing, "writing the log");
    wait(|done| log.save_vote(Bytes::from("v"), done)).unwrap_err();
    log.truncate_after(None).unwrap_err();
    log.state().unwrap_err();
    drop((log, logs));
    let last = open_in(&dir).group(GROUP).state().unwrap().last;
    assert!(last == Some(record(0, "a")) || last == Some(record(1, "a")));
}

/// Writes that were acknowledged before, while and after a disk is full are there; those that wait are
/// acknowledged once there is room.
#[test]
fn full_disk_holds_writes_up_until_there_is_room() {
    const LEN: usize = 100_000;
    let Some(disk) = SmallDisk::mount(16 << 20) else { return };
    let health = Health::default();
    let options = Options {
        file_len: 1 << 20,
        ..OPTIONS
    };
    let logs = open(disk.path(), &options, SyncFault::default(), health.clone()).unwrap();
    let log = logs.group(GROUP);
    let big = |index: u64| LogRecord {
        index,
        bytes: vec![index as u8; LEN].into(),
    };
    wait(|done| log.append(vec![big(0)], done)).unwrap();
    disk.fill_to(1_500_000);
    let (sender, receiver) = mpsc::channel();
    for index in 1..31 {
        let sender = sender.clone();
        log.append(
            vec![big(index)],
            Box::new(move |done| sender.send((index, done)).unwrap()),
        );
    }
    let latest = std::time::Instant::now() + std::time::Duration::from_secs(60);
    while !health.retries().iter().any(|(part, _)| *part == "writing the log") {
        assert!(std::time::Instant::now() < latest, "the disk has never been full");
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    assert!(health.failure().is_none(), "{health:?}");
    let written = receiver.try_iter().count() as u64;
    assert!(written < 30, "there was no room for all of it");
    disk.free();
    for index in 1 + written..31 {
        let (done_index, done) = receiver.recv().unwrap();
        done.unwrap();
        assert_eq!(done_index, index);
    }
    log.purge(21, Bytes::new()).unwrap();
    drop((log, logs));
    let logs = open(disk.path(), &options, SyncFault::default(), Health::default()).unwrap();
    let read = logs.group(GROUP).read(0..1_000, usize::MAX).unwrap();
    assert_eq!(read, (22..31).map(big).collect::<Vec<_>>());
}

/// A node that stops while its disk is full acknowledges nothing of what waits.
#[test]
fn log_closed_on_full_disk_fails_what_waits() {
    let Some(disk) = SmallDisk::mount(4 << 20) else { return };
    let logs = open(disk.path(), &OPTIONS, SyncFault::default(), Health::default()).unwrap();
    let log = logs.group(GROUP);
    wait(|done| log.append(vec![record(0, "a")], done)).unwrap();
    disk.fill_to(0);
    let (sender, receiver) = mpsc::channel();
    let bytes = vec![7; 3 << 20].into();
    log.append(
        vec![LogRecord { index: 1, bytes }],
        Box::new(move |done| sender.send(done).unwrap()),
    );
    drop((log, logs));
    receiver.recv().unwrap().unwrap_err();
    let last = open_in_dir(disk.path()).group(GROUP).state().unwrap().last;
    assert_eq!(last, Some(record(0, "a")));
}

#[test]
fn callbacks_of_many_groups_come_in_order() {
    const RECORDS: u64 = 200;
    let dir = tempfile::tempdir().unwrap();
    let logs = open_in(&dir);
    let handles: Vec<_> = (0..8).map(|group| logs.group(GroupId::new(group))).collect();
    let (sender, receiver) = mpsc::channel();
    for index in 0..RECORDS {
        for (group, log) in handles.iter().enumerate() {
            let sender = sender.clone();
            let done: SyncCallback = Box::new(move |done| sender.send((index, group, done.is_ok())).unwrap());
            log.append(vec![record(index, "x")], done);
        }
    }
    for index in 0..RECORDS {
        for group in 0..handles.len() {
            assert_eq!(receiver.recv().unwrap(), (index, group, true), "invariant 1");
        }
    }
    drop((handles, logs));
    let logs = open_in(&dir);
    for group in logs.groups() {
        assert_eq!(logs.group(group).read(0..RECORDS, usize::MAX).unwrap().len(), 200);
    }
}

#[test]
fn records_beyond_the_tail_are_read_from_disk() {
    const LEN: usize = 256 << 10;
    let dir = tempfile::tempdir().unwrap();
    let logs = open_in(&dir);
    let log = logs.group(GROUP);
    let count = 2 * (TAIL_LEN_MAX / LEN) as u64;
    let big = |index: u64| LogRecord {
        index,
        bytes: vec![index as u8; LEN].into(),
    };
    for index in 0..count {
        wait(|done| log.append(vec![big(index)], done)).unwrap();
    }
    let read = log.read(0..count, usize::MAX).unwrap();
    assert_eq!(read, (0..count).map(big).collect::<Vec<_>>());
    assert_eq!(log.read(3..count, 2 * LEN + 100).unwrap(), [big(3), big(4)]);
    log.purge(count - 2, Bytes::new()).unwrap();
    wait(|done| log.append(vec![big(count)], done)).unwrap();
    assert_eq!(log.read(0..count + 1, usize::MAX).unwrap().len(), 2);
    drop((log, logs));
    assert_eq!(open_in(&dir).group(GROUP).read(0..999, 0).unwrap(), [big(count - 1)]);
}

#[test]
fn panicking_callback_stops_the_node() {
    let dir = tempfile::tempdir().unwrap();
    let health = Health::default();
    let logs = open(dir.path(), &OPTIONS, SyncFault::default(), health.clone()).unwrap();
    let log = logs.group(GROUP);
    log.append(vec![record(0, "a")], Box::new(|_| panic!("on purpose")));
    // A later call is rejected, or its callback gets the error.
    let (sender, receiver) = mpsc::channel();
    log.save_vote(Bytes::from("v"), Box::new(move |done| drop(sender.send(done))));
    let outcome = receiver.recv_timeout(std::time::Duration::from_secs(60));
    if let Ok(done) = outcome {
        done.unwrap_err();
    }
    drop((log, logs));
    let failure = health.failure().unwrap();
    assert_eq!(
        (failure.doing, failure.source.to_string()),
        ("writing the log", "panic: on purpose".to_owned())
    );
}
