#!/bin/sh
# Needs cargo and a C compiler; exits 77 without them.
#
# fjall 3.1.13: rows ingested after a clear are gone after the next open.
#
# Source: the documentation of Keyspace::clear ("clears the entire keyspace in O(1) time"), of
#   Keyspace::start_ingestion ("prefer this method ... for maximum bulk load speed") and of Database::persist. The
#   cause is in src/recovery.rs and src/db.rs: a clear is a record of the journal, and its replay clears the whole
#   keyspace, whatever tables of a later sequence number it has. An ingestion leaves no record in the journal.
# One would guess: clear, then bulk load, is how a keyspace is replaced. Once `finish` has returned and everything is
#   persisted, the loaded rows stay.
# What is so: they are there until the database is opened again. Then the journal's clear is replayed over them. A row
#   that was inserted through the journal after the clear comes back, so that a part of the data looks right.
# Output:
#   | before the restart: inserted=1 loaded-1=1 loaded-2=1
#   | after the restart:  inserted=1
#   | loaded again, without a clear, and restarted: inserted=1
#   | loaded into a keyspace that was never cleared, and restarted: loaded-1=1 loaded-2=1
# Why it matters: this is acknowledged data lost without any fault: restoring a backup, installing a snapshot of Raft
#   or rebuilding an index by clear and ingestion. The third line says that the record of the clear goes on: it takes
#   what is loaded later as well, for as long as that journal file is kept. Load into a keyspace of a new name and
#   delete the old one, as the last line does, or write what follows a clear through the journal.

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
name = "fjall-clear-before-ingestion"
edition = "2024"

[dependencies]
fjall = "=3.1.13"
TOML

cat >src/main.rs <<'RUST'
use fjall::{Database, Keyspace, KeyspaceCreateOptions, PersistMode, Result};

fn open(folder: &str, keyspace: &str) -> Result<(Database, Keyspace)> {
    let database = Database::builder(folder).open()?;
    let rows = database.keyspace(keyspace, KeyspaceCreateOptions::default)?;
    Ok((database, rows))
}

fn load(rows: &Keyspace) -> Result<()> {
    let mut ingestion = rows.start_ingestion()?;
    ingestion.write("loaded-1", "1")?;
    ingestion.write("loaded-2", "1")?;
    ingestion.finish()
}

fn text(rows: &Keyspace) -> Result<String> {
    let mut text = Vec::new();
    for row in rows.iter() {
        let (key, value) = row.into_inner()?;
        text.push(format!("{}={}", String::from_utf8_lossy(&key), String::from_utf8_lossy(&value)));
    }
    Ok(text.join(" "))
}

fn main() -> Result<()> {
    {
        let (database, rows) = open("data", "rows")?;
        rows.insert("old", "1")?;
        rows.clear()?;
        load(&rows)?;
        rows.insert("inserted", "1")?;
        database.persist(PersistMode::SyncAll)?;
        println!("before the restart: {}", text(&rows)?);
    }
    {
        let (database, rows) = open("data", "rows")?;
        println!("after the restart:  {}", text(&rows)?);
        load(&rows)?;
        database.persist(PersistMode::SyncAll)?;
    }
    println!("loaded again, without a clear, and restarted: {}", text(&open("data", "rows")?.1)?);
    {
        let (database, rows) = open("data", "rows-2")?;
        load(&rows)?;
        database.persist(PersistMode::SyncAll)?;
    }
    println!("loaded into a keyspace that was never cleared, and restarted: {}", text(&open("data", "rows-2")?.1)?);
    Ok(())
}
RUST

actual=$(CARGO_TARGET_DIR="${FINDINGS_TARGET:-$folder/target}" cargo run --quiet)
printf '%s\n' "$actual"
if [ "$actual" != "$expected" ]; then
    printf 'CHANGED: this was expected:\n%s\n' "$expected"
    exit 1
fi
