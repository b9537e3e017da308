#!/bin/sh
# Needs cargo and a C compiler; exits 77 without them.
#
# fjall 3.1.13 (lsm-tree 3.1.10): tables that a compaction has replaced stay on the disk, without a bound in time.
#
# Source: the documentation of Keyspace::major_compact ("performs major compaction, blocking the caller until it's done") and of
#   Keyspace::disk_space ("the disk space usage of this keyspace"). The cause is in src/snapshot_tracker.rs of fjall and
#   src/version/super_version.rs of lsm-tree: old versions, and with them their tables, go once they are below a watermark, and
#   this moves where a memtable is flushed and with every 10,000th snapshot that is closed.
# One would guess: after all rows were removed and everything was compacted, the files are gone, as disk_space() says.
# What is so: with rows that come by ingestion no memtable is ever flushed. The replaced tables stay with every byte of every
#   removed row, and disk_space() does not count them. Compacting again changes nothing. Once 10,000 snapshots were closed (any
#   range or prefix iterator counts as one), the next compaction removes them.
# Output:
#   | ingested: disk_space() counts all tables: true, 400 of 400 values are in files
#   | all removed by ingestion, compacted: disk_space() 0, 400 of 400 values are in files
#   | compacted again: disk_space() 0, 400 of 400 values are in files
#   | 10000 snapshots closed, a row more, compacted: 0 of 400 values are in files
# Why it matters: a store that is filled by ingestion takes up to twice its size on the disk, what was deleted can be read from
#   its files for as long as it runs, and monitoring by disk_space() sees neither.

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
name = "fjall-compacted-tables-stay"
edition = "2024"

[dependencies]
fjall = "=3.1.13"
lsm-tree = "=3.1.10"
TOML

cat >src/main.rs <<'RUST'
use std::fs;
use std::path::Path;

use fjall::{Database, Keyspace, KeyspaceCreateOptions, Result};

const ROWS: u64 = 400;

/// 64 bytes that differ for each row and do not compress.
fn value(row: u64) -> Vec<u8> {
    let mut x = row + 1;
    let words = (0..8).flat_map(|_| {
        x = x.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        x.to_be_bytes()
    });
    words.collect()
}

fn tables(folder: &Path, files: &mut Vec<Vec<u8>>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            tables(&path, files);
        } else if path.parent().is_some_and(|parent| parent.ends_with("tables")) {
            files.push(fs::read(&path).unwrap());
        }
    }
}

/// Number of values of which some part is in a file; a value may go over the end of a block.
fn found() -> usize {
    let mut files = Vec::new();
    tables(Path::new("data"), &mut files);
    let is_in = |row: &u64| {
        let value = value(*row);
        [0..24, 40..64].into_iter().any(|part| {
            let part = &value[part];
            files.iter().any(|file| file.windows(part.len()).any(|window| window == part))
        })
    };
    (0..ROWS).filter(is_in).count()
}

fn ingest(rows: &Keyspace, from: u64, until: u64, remove: bool) -> Result<()> {
    let mut ingestion = rows.start_ingestion()?;
    for row in from..until {
        let key = format!("{row:06}");
        if remove {
            ingestion.write_tombstone(key.as_str())?;
        } else {
            ingestion.write(key.as_str(), value(row).as_slice())?;
        }
    }
    ingestion.finish()
}

fn main() -> Result<()> {
    let database = Database::builder("data").open()?;
    let rows = database.keyspace("rows", KeyspaceCreateOptions::default)?;
    ingest(&rows, 0, ROWS, false)?;
    let counts = rows.disk_space() >= ROWS * 64;
    println!("ingested: disk_space() counts all tables: {counts}, {} of {ROWS} values are in files", found());
    ingest(&rows, 0, ROWS, true)?;
    for what in ["all removed by ingestion, compacted", "compacted again"] {
        rows.major_compact()?;
        println!("{what}: disk_space() {}, {} of {ROWS} values are in files", rows.disk_space(), found());
    }
    for _ in 0..10_000 {
        drop(database.snapshot());
    }
    ingest(&rows, ROWS, ROWS + 1, false)?;
    rows.major_compact()?;
    println!("10000 snapshots closed, a row more, compacted: {} of {ROWS} values are in files", found());
    Ok(())
}
RUST

actual=$(CARGO_TARGET_DIR="${FINDINGS_TARGET:-$folder/target}" cargo run --quiet)
printf '%s\n' "$actual"
if [ "$actual" != "$expected" ]; then
    printf 'CHANGED: this was expected:\n%s\n' "$expected"
    exit 1
fi
