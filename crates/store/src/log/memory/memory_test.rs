//! Tests of power loss and failing syncs of the log in memory.

use super::super::conformance;
use super::*;

const GROUP: GroupId = GroupId::new(3);

fn record(index: u64) -> LogRecord {
    let bytes = Bytes::from(index.to_string());
    LogRecord { index, bytes }
}

#[test]
fn memory_log_conforms_to_log() {
    let disk = Disk::default();
    conformance::check(&mut || disk.open());
}

#[test]
fn power_loss_keeps_synced_records_and_prefix() {
    let disk = Disk::default();
    let log = disk.open().group(GROUP);
    log.append(vec![record(0)], Box::new(|done| done.unwrap()));
    disk.hold_syncs(true);
    log.append(vec![record(1)], Box::new(|_| panic!("never synced")));
    log.append(vec![record(2)], Box::new(|_| panic!("never synced")));
    assert_eq!(log.read(0..9, usize::MAX).unwrap().len(), 3);
    assert_eq!(disk.pending(), 2);
    disk.power_loss(1);
    assert!(log.state().is_err(), "a handle from before");
    let log = disk.open().group(GROUP);
    assert_eq!(log.state().unwrap().last, Some(record(1)));
}

#[test]
fn failed_sync_is_final_until_reopened() {
    let disk = Disk::default();
    let logs = disk.open();
    let log = logs.group(GROUP);
    disk.fail_next_sync();
    log.append(vec![record(0)], Box::new(|done| drop(done.unwrap_err())));
    assert!(logs.health().failure().is_some());
    log.save_vote(Bytes::from("v"), Box::new(|done| drop(done.unwrap_err())));
    assert!(log.read(0..1, 1).is_err());
    disk.power_loss(0);
    assert_eq!(disk.open().group(GROUP).state().unwrap(), GroupLogState::default());
}
