//! Crash test: kills a writing process repeatedly, and checks that everything it acknowledged survives.
//!
//! The child is this test binary itself, started with the name of one of its tests and a directory.

#![expect(clippy::unwrap_used, reason = "a test")]

use std::io::{BufRead, BufReader, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, mpsc};

use bytes::Bytes;
use stead_state::rows::Order;
use stead_store::engine::{self, Engine, RowChange};
use stead_store::health::Health;
use stead_store::log::raft_engine::{self, Options, SyncFault};
use stead_store::log::{LogRecord, LogStore};
use stead_types::GroupId;

const DIR: &str = "STEAD_KILL_TEST_DIR";
const ROUNDS: u64 = 4;
/// Acknowledgements after which the child is killed, times the round.
const ACKNOWLEDGED: usize = 40;
const GROUPS: u32 = 3;
/// Rows in a batch; enough for several pages of each engine.
const ROWS: u32 = 600;

/// Returns the child's directory, if this process is the child.
fn child() -> Option<PathBuf> {
    std::env::var_os(DIR).map(PathBuf::from)
}

/// Writes a line that the parent reads as an acknowledgement.
fn acknowledge(number: u64) {
    let mut out = std::io::stdout().lock();
    writeln!(out, "\nack {number}").unwrap();
    out.flush().unwrap();
}

/// Starts the child, kills it after this many acknowledgements, and returns the last one that it had written.
fn kill_after(test: &str, dir: &Path, acknowledgements: usize) -> u64 {
    let mut command = Command::new(std::env::current_exe().unwrap());
    let command = command.args([test, "--exact", "--nocapture"]).env(DIR, dir);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let lines = BufReader::new(child.stdout.take().unwrap()).lines();
    let mut acknowledged = lines.filter_map(|line| line.unwrap().strip_prefix("ack ")?.parse().ok());
    let enough = acknowledged.nth(acknowledgements).expect("the child lives on");
    child.kill().unwrap();
    child.wait().unwrap();
    acknowledged.last().unwrap_or(enough)
}

fn open_log(dir: &Path) -> Arc<dyn LogStore> {
    let options = Options {
        file_len: 64 << 10,
        purge_len: 128 << 10,
        prefill_len: 0,
    };
    raft_engine::open(dir, &options, SyncFault::default(), Health::default()).unwrap()
}

fn record(index: u64) -> LogRecord {
    let bytes = vec![index as u8; 100 + (index % 400) as usize].into();
    LogRecord { index, bytes }
}

#[test]
fn killed_log_keeps_every_acknowledged_record() {
    if let Some(dir) = child() {
        return write_log(&dir);
    }
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=ROUNDS {
        let test = "killed_log_keeps_every_acknowledged_record";
        let last = kill_after(test, dir.path(), ACKNOWLEDGED * round as usize);
        let logs = open_log(dir.path());
        for group in 0..GROUPS {
            let log = logs.group(GroupId::new(group));
            let state = log.state().unwrap();
            let (first, end) = (state.first.unwrap(), state.last.unwrap().index + 1);
            assert!(last < end, "{last} was acknowledged, the log ends before {end}");
            assert_eq!(
                log.read(0..end, usize::MAX).unwrap(),
                (first..end).map(record).collect::<Vec<_>>()
            );
        }
    }
}

/// Appends one record to each group at a time, and truncates and purges periodically, until it is killed.
fn write_log(dir: &Path) {
    let logs = open_log(dir);
    let groups: Vec<_> = (0..GROUPS).map(|group| logs.group(GroupId::new(group))).collect();
    let lasts = groups.iter().map(|log| log.state().unwrap().last);
    let lasts: Vec<_> = lasts.map(|last| last.map(|record| record.index)).collect();
    let common = lasts.iter().copied().min().flatten();
    for log in &groups {
        log.truncate_after(common).unwrap();
    }
    for index in common.map_or(0, |common| common + 1).. {
        let (sender, receiver) = mpsc::channel();
        for log in &groups {
            let sender = sender.clone();
            log.append(vec![record(index)], Box::new(move |done| sender.send(done).unwrap()));
        }
        for _ in &groups {
            receiver.recv().unwrap().unwrap();
        }
        acknowledge(index);
        if index % 64 == 63 {
            let purged = groups.iter().try_for_each(|log| log.purge(index - 32, Bytes::new()));
            purged.unwrap();
        }
    }
}

type Open = fn(&Path) -> std::io::Result<Arc<dyn Engine>>;

fn kill_engine(test: &str, open: Open) {
    if let Some(dir) = child() {
        return write_rows(&*open(&dir).unwrap());
    }
    let dir = tempfile::tempdir().unwrap();
    for round in 1..=ROUNDS {
        let last = kill_after(test, dir.path(), round as usize);
        let found = batch_found(&*open(dir.path()).unwrap()).expect("a batch is there");
        assert!(last <= found, "batch {last} was acknowledged, {found} was found");
    }
}

/// Returns the number of the batch that all rows are of; no row may be of another.
fn batch_found(engine: &dyn Engine) -> Option<u64> {
    let rows = engine.range(b"r".as_slice()..b"s".as_slice(), Order::Ascending);
    let numbers: Vec<_> = rows
        .map(|row| u64::from_be_bytes(row.unwrap().1[..8].try_into().unwrap()))
        .collect();
    let first = *numbers.first()?;
    assert!(
        numbers.iter().all(|number| *number == first),
        "a batch is there in part"
    );
    assert_eq!(numbers.len() as u32, rows_of(first).count() as u32);
    Some(first)
}

/// Returns the rows of a batch: those of the last one that it lacks are removed.
fn rows_of(batch: u64) -> impl Iterator<Item = u32> {
    (0..ROWS).filter(move |row| !(u64::from(*row) + batch).is_multiple_of(3))
}

fn write_rows(engine: &dyn Engine) {
    let start = batch_found(engine).map_or(0, |found| found + 1);
    for batch in start.. {
        let mut value = batch.to_be_bytes().to_vec();
        value.resize(300, batch as u8);
        let value = Bytes::from(value);
        let present: std::collections::BTreeSet<_> = rows_of(batch).collect();
        let mut changes = (0..ROWS).map(|row| RowChange {
            key: Bytes::from(format!("r{row:05}")),
            value: present.contains(&row).then(|| value.clone()),
        });
        engine.write(&mut changes).unwrap();
        engine.checkpoint().unwrap();
        acknowledge(batch);
    }
}

#[test]
fn killed_fjall_keeps_checkpoints_and_whole_batches() {
    let test = "killed_fjall_keeps_checkpoints_and_whole_batches";
    kill_engine(test, engine::fjall::open);
}

#[test]
fn killed_sled_keeps_checkpoints_and_whole_batches() {
    let test = "killed_sled_keeps_checkpoints_and_whole_batches";
    kill_engine(test, engine::sled::open);
}
