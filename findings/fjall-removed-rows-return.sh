#!/bin/sh
# Needs cargo and a C compiler; exits 77 without them.
#
# fjall 3.1.13: a row that an ingestion removed comes back at an open after compaction has done its work.
#
# Source: the documentation of Ingestion::write_tombstone and Keyspace::start_ingestion, and the journal's promise
#   that opening restores the last state. The cause is in src/recovery.rs: opening replays a record of the journal
#   unless a table of its keyspace has a sequence number at least as high, and an ingested tombstone leaves no record.
# One would guess: compaction never changes what can be read, neither before nor after a restart.
# What is so: the highest sequence number in the tables says what need not be replayed. Compaction drops the ingested
#   tombstone once it has met the row, and no table is left that says so. The journal still has the insertion, and
#   inserts the row again. Without compaction the same steps are harmless, so that the fault shows late, and only in
#   keyspaces (or ends of them) where the removal was the last thing that happened.
# Output:
#   | removed, not yet compacted, restarted: absent
#   | removed, compacted (no table is left): absent
#   | removed, compacted, restarted: present
#   | the same with remove() instead of an ingestion: absent
# Why it matters: deletes come back hours after they were acknowledged and after any test that opens the database
#   once. Who mixes both ways of writing in one keyspace must remove through the journal what came through the
#   journal; who removes by ingestion must let nothing of that keyspace through the journal.

set -eu
expected=$(sed -n 's/^#   | //p' "$0")
for tool in cargo cc; do
    command -v $tool >/dev/null || { echo "skipped: there is no $tool"; exit 77; }
done
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
trap 'exit 1' INT TERM
cd "$folder"
mkdir src

cat >Cargo.toml <<'TOML'
[package]
name = "fjall-removed-rows-return"
edition = "2024"

[dependencies]
fjall = "=3.1.13"
TOML

cat >src/main.rs <<'RUST'
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use fjall::compaction::Leveled;
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Result};

/// Opens a keyspace that is compacted in the background after so many new tables; the default is 4.
fn open(folder: &str, tables: u8) -> Result<(Database, Keyspace)> {
    let database = Database::builder(folder).open()?;
    let strategy = Leveled::default().with_l0_threshold(tables);
    let options = || KeyspaceCreateOptions::default().compaction_strategy(Arc::new(strategy));
    let rows = database.keyspace("rows", options)?;
    Ok((database, rows))
}

fn remove(rows: &Keyspace) -> Result<()> {
    let mut ingestion = rows.start_ingestion()?;
    ingestion.write_tombstone("row")?;
    ingestion.finish()
}

fn insert_and_remove(folder: &str, tables: u8) -> Result<(Database, Keyspace)> {
    let (database, rows) = open(folder, tables)?;
    rows.insert("row", "1")?;
    database.persist(PersistMode::SyncAll)?;
    remove(&rows)?;
    Ok((database, rows))
}

/// Waits until compaction has removed the row, and the tombstones. It runs after ingestions only, so that a run that
/// left something needs another one.
fn wait_for_compaction(rows: &Keyspace) -> Result<()> {
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let next = Instant::now() + Duration::from_millis(500);
        while Instant::now() < next {
            if rows.disk_space() == 0 {
                return Ok(());
            }
            thread::sleep(Duration::from_millis(5));
        }
        assert!(Instant::now() < deadline, "the background compaction did not remove the tables");
        remove(rows)?;
    }
}

fn text(rows: &Keyspace) -> Result<&'static str> {
    Ok(if rows.contains_key("row")? { "present" } else { "absent" })
}

fn main() -> Result<()> {
    drop(insert_and_remove("not-compacted", 4)?);
    println!("removed, not yet compacted, restarted: {}", text(&open("not-compacted", 4)?.1)?);

    let (database, rows) = insert_and_remove("compacted", 1)?;
    wait_for_compaction(&rows)?;
    println!("removed, compacted (no table is left): {}", text(&rows)?);
    drop((database, rows));
    println!("removed, compacted, restarted: {}", text(&open("compacted", 1)?.1)?);

    let (database, rows) = open("journal", 1)?;
    rows.insert("row", "1")?;
    rows.remove("row")?;
    database.persist(PersistMode::SyncAll)?;
    drop((database, rows));
    println!("the same with remove() instead of an ingestion: {}", text(&open("journal", 1)?.1)?);
    Ok(())
}
RUST

actual=$(CARGO_TARGET_DIR="${FINDINGS_TARGET:-$folder/target}" cargo run --quiet)
printf '%s\n' "$actual"
if [ "$actual" != "$expected" ]; then
    printf 'CHANGED: this was expected:\n%s\n' "$expected"
    exit 1
fi
