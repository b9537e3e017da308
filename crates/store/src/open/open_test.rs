//! Tests of opening and closing a node's storage, of power cuts and full disks, and of damaged rows.

use bytes::Bytes;
use stead_types::GroupId;

use super::*;
use crate::engine::RowChange;

const LOG: raft_engine::Options = raft_engine::Options {
    file_len: 1 << 20,
    purge_len: 2 << 20,
    prefill_len: 0,
};

fn check(config: &Config) {
    for expected in [None, Some(Bytes::from("v"))] {
        let store = open(config.clone()).unwrap();
        assert_eq!(store.engine.get(b"k").unwrap(), expected);
        let log = store.log.group(GroupId::DIRECTORY);
        assert_eq!(log.state().unwrap().vote, expected);
        let (key, value) = (Bytes::from("k"), Some(Bytes::from("v")));
        store.engine.write(&mut [RowChange { key, value }].into_iter()).unwrap();
        store.engine.checkpoint().unwrap();
        let (sender, receiver) = std::sync::mpsc::channel();
        log.save_vote(Bytes::from("v"), Box::new(move |done| sender.send(done).unwrap()));
        receiver.recv().unwrap().unwrap();
    }
}

fn config(location: StorageLocation) -> Config {
    Config {
        cluster: "test".into(),
        node: NodeId::new(1),
        location,
        health: Health::default(),
    }
}

#[test]
fn storage_reopens_with_every_engine() {
    for engine in [Kind::Fjall, Kind::Sled] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        check(&config(StorageLocation::Directory { path, engine, log: LOG }));
    }
    check(&config(StorageLocation::Memory(Disk::default())));
}

#[test]
fn power_cut_between_operations_stops_all_writes() {
    let disk = Disk::default();
    let store = in_memory(&disk, Health::default());
    let key = |key: &'static str| Bytes::from(key);
    let write = |name| {
        let value = Some(key(name));
        store
            .engine
            .write(&mut [RowChange { key: key(name), value }].into_iter())
    };
    write("a").unwrap();
    disk.cut_after(2);
    store.engine.checkpoint().unwrap();
    write("b").unwrap();
    assert!(disk.is_cut());
    write("c").unwrap_err();
    let log = store.log.group(GroupId::DIRECTORY);
    log.save_vote(key("v"), Box::new(|done| drop(done.unwrap_err())));
    disk.power_loss(9, 9);
    let store = in_memory(&disk, Health::default());
    let found = ["a", "b", "c"].map(|key| store.engine.get(key.as_bytes()).unwrap().is_some());
    assert_eq!(found, [true, true, false]);
    assert_eq!(store.log.group(GroupId::DIRECTORY).state().unwrap().vote, None);
}

#[test]
fn full_disk_accepts_writes_after_space_and_reopen() {
    let disk = Disk::default();
    let store = in_memory(&disk, Health::default());
    disk.fill(true);
    let vote = || Bytes::from("v");
    let log = store.log.group(GroupId::DIRECTORY);
    log.save_vote(vote(), Box::new(|done| drop(done.unwrap_err())));
    assert!(store.log.health().failure().is_some());
    disk.fill(false);
    let log = in_memory(&disk, Health::default()).log.group(GroupId::DIRECTORY);
    log.save_vote(vote(), Box::new(|done| done.unwrap()));
    assert_eq!(log.state().unwrap().vote, Some(vote()));
}

#[test]
fn orderly_closed_storage_is_not_rewritten() {
    for engine in [Kind::Fjall, Kind::Sled] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let config = config(StorageLocation::Directory { path, engine, log: LOG });
        let was_clean = |store: &Store| store.dir.as_ref().unwrap().was_clean();
        drop(open(config.clone()).unwrap());
        let store = open(config.clone()).unwrap();
        assert!(!was_clean(&store));
        let log = store.log.group(GroupId::DIRECTORY);
        assert!(!store.close().unwrap(), "the log of a group is held");
        drop(log);
        let store = open(config.clone()).unwrap();
        assert!(!was_clean(&store) && store.close().unwrap());
        assert!(was_clean(&open(config).unwrap()));
    }
}

#[test]
fn failed_last_log_sync_is_no_orderly_stop() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let config = config(StorageLocation::Directory {
        path: path.clone(),
        engine: Kind::Fjall,
        log: LOG,
    });
    drop(open(config.clone()).unwrap());
    let identity = Identity {
        cluster: config.cluster.clone(),
        node: config.node,
        engine: Kind::Fjall,
    };
    let fault = raft_engine::SyncFault::default();
    let dir = DataDir::open(&path, &identity).unwrap();
    let (stagger, health) = (Stagger::of(config.node), Health::default());
    let store = on_disk(dir, Kind::Fjall, &LOG, fault.clone(), stagger, health).unwrap();
    // No caller waits for this write: it is synced together with the next one, and here none follows.
    let group = store.log.group(GroupId::DIRECTORY);
    group.save_committed(Bytes::from("c")).unwrap();
    drop(group);
    fault.set(true);
    assert!(!store.close().unwrap());
    assert!(!open(config).unwrap().dir.unwrap().was_clean());
}

#[test]
fn damaged_rows_are_set_aside_and_log_stays() {
    for engine in [Kind::Fjall, Kind::Sled] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let config = config(StorageLocation::Directory { path, engine, log: LOG });
        let store = open(config.clone()).unwrap();
        let log = store.log.group(GroupId::DIRECTORY);
        let (sender, receiver) = std::sync::mpsc::channel();
        log.save_vote(Bytes::from("v"), Box::new(move |done| sender.send(done).unwrap()));
        receiver.recv().unwrap().unwrap();
        drop((store, log));
        rewrite::rewrite(&dir.path().join("rows"), |path| {
            std::fs::write(path, [0x5a; 100]).unwrap();
            true
        })
        .unwrap();
        let store = open(config).unwrap();
        assert_eq!(
            store.log.group(GroupId::DIRECTORY).state().unwrap().vote,
            Some(Bytes::from("v"))
        );
        assert!(dir.path().join("rows.damaged-1").is_dir() && dir.path().join("REBUILDING").exists());
        store.finish_rebuild().unwrap();
        assert!(!dir.path().join("REBUILDING").exists());
    }
}

#[test]
fn open_error_names_the_part() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().to_owned();
    let config = config(StorageLocation::Directory {
        path,
        engine: Kind::Fjall,
        log: LOG,
    });
    drop(open(config.clone()).unwrap());
    std::fs::remove_dir_all(dir.path().join("log")).unwrap();
    std::fs::write(dir.path().join("log"), "no directory").unwrap();
    let error = open(config).err().expect("the log is no directory").to_string();
    assert!(error.starts_with("cannot open the Raft log in "), "{error}");
}
