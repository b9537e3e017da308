//! Test that a start after a kill rewrites its files before it trusts them, and a start after an orderly stop does not.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::sync::mpsc;
use std::time::SystemTime;

use bytes::Bytes;
use stead_store::engine::{Kind, RowChange};
use stead_store::health::Health;
use stead_store::log::raft_engine::Options;
use stead_store::{Config, StorageLocation, Store, open};
use stead_types::{GroupId, NodeId};

const LOG: Options = Options {
    file_len: 1 << 20,
    purge_len: 2 << 20,
    prefill_len: 0,
};

fn files(below: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(below).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

/// Returns the files of the log and of the rows.
fn storage(dir: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(&dir.join("log"), &mut found);
    files(&dir.join("rows"), &mut found);
    found
}

fn is_table_of_fjall(path: &Path) -> bool {
    path.parent().is_some_and(|folder| folder.ends_with("tables"))
}

fn write(store: &Store) {
    let (key, value) = (Bytes::from("k"), Some(Bytes::from("v")));
    store.engine.write(&mut [RowChange { key, value }].into_iter()).unwrap();
    store.engine.checkpoint().unwrap();
    let (sender, receiver) = mpsc::channel();
    let log = store.log.group(GroupId::DIRECTORY);
    log.save_vote(Bytes::from("v"), Box::new(move |done| sender.send(done).unwrap()));
    receiver.recv().unwrap().unwrap();
}

/// Opens the storage, and returns it with the files that were not written meanwhile.
fn open_and_list_untouched(config: &Config, dir: &Path) -> (Store, Vec<PathBuf>) {
    let long_ago = SystemTime::UNIX_EPOCH;
    for path in storage(dir) {
        File::options()
            .append(true)
            .open(path)
            .unwrap()
            .set_modified(long_ago)
            .unwrap();
    }
    let store = open(config.clone()).unwrap();
    // An empty file, such as a lock, has nothing to write.
    let is_untouched = |path: &PathBuf| {
        let found = fs::metadata(path).unwrap();
        found.len() > 0 && found.modified().unwrap() == long_ago
    };
    (store, storage(dir).into_iter().filter(is_untouched).collect())
}

/// Invariant 2 of `data_dir`.
#[test]
fn start_after_kill_rewrites_files() {
    for engine in [Kind::Fjall, Kind::Sled] {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let config = Config {
            cluster: "test".into(),
            node: NodeId::new(1),
            health: Health::default(),
            location: StorageLocation::Directory { path, engine, log: LOG },
        };
        let store = open(config.clone()).unwrap();
        write(&store);
        drop(store);

        let (store, untouched) = open_and_list_untouched(&config, dir.path());
        assert!(
            untouched.iter().all(|path| is_table_of_fjall(path)),
            "{engine}: {untouched:?} may not be durable"
        );
        assert!(store.close().unwrap());

        let (_store, untouched) = open_and_list_untouched(&config, dir.path());
        assert!(
            untouched.iter().any(|path| !is_table_of_fjall(path)),
            "{engine}: everything is rewritten after an orderly stop"
        );
    }
}
