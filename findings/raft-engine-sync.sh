#!/bin/sh
# Needs cargo and a C compiler; exits 77 without them.
#
# raft-engine 0.4.2: Engine::sync() syncs nothing.
#
# Source: the documentation of Engine::sync ("synchronizes the Raft engine") and of Engine::write ("if `sync` is true,
#   the write will be followed by a call to `fdatasync` on the log file"). The cause is in src/engine.rs: sync() is a
#   write of an empty batch with `sync`, and a write of an empty batch returns before it looks at `sync`.
# One would guess: several writes with `sync = false` and one sync() at their end are durable: group commit by hand.
# What is so: sync() returns Ok and calls fdatasync not once; nor does a write of an empty batch with `sync = true`.
#   Only a batch with at least one item can sync what was written before.
# Output, with a file system under the engine that counts the calls:
#   | three writes with sync = false: 0 calls of fdatasync
#   | then sync(): 0 calls of fdatasync
#   | then an empty batch with sync = true: 0 calls of fdatasync
#   | then a batch of one key with sync = true: 1 calls of fdatasync
# Why it matters: a Raft log that acknowledges entries after sync() loses them with the power, and nothing reports it:
#   killing the process, which is what most tests do, loses nothing. Give each group commit a batch that has an item,
#   if only a key that says how far the log goes.

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
name = "raft-engine-sync"
edition = "2024"

[dependencies]
raft-engine = { version = "=0.4.2", default-features = false }
TOML

cat >src/main.rs <<'RUST'
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use raft_engine::env::{DefaultFileSystem, FileSystem, Handle, Permission};
use raft_engine::{Config, Engine, LogBatch, ReadableSize, Result};

static SYNCS: AtomicUsize = AtomicUsize::new(0);

/// The engine's own file system, with its calls of fdatasync counted.
struct CountingFileSystem;

struct CountingHandle(Arc<<DefaultFileSystem as FileSystem>::Handle>);

impl Handle for CountingHandle {
    fn truncate(&self, offset: usize) -> io::Result<()> {
        self.0.truncate(offset)
    }

    fn file_size(&self) -> io::Result<usize> {
        self.0.file_size()
    }

    fn sync(&self) -> io::Result<()> {
        SYNCS.fetch_add(1, Ordering::SeqCst);
        self.0.sync()
    }
}

impl FileSystem for CountingFileSystem {
    type Handle = CountingHandle;
    type Reader = <DefaultFileSystem as FileSystem>::Reader;
    type Writer = <DefaultFileSystem as FileSystem>::Writer;

    fn create<P: AsRef<Path>>(&self, path: P) -> io::Result<CountingHandle> {
        Ok(CountingHandle(Arc::new(DefaultFileSystem.create(path)?)))
    }

    fn open<P: AsRef<Path>>(&self, path: P, permission: Permission) -> io::Result<CountingHandle> {
        Ok(CountingHandle(Arc::new(DefaultFileSystem.open(path, permission)?)))
    }

    fn delete<P: AsRef<Path>>(&self, path: P) -> io::Result<()> {
        DefaultFileSystem.delete(path)
    }

    fn rename<P: AsRef<Path>>(&self, from: P, to: P) -> io::Result<()> {
        DefaultFileSystem.rename(from, to)
    }

    fn new_reader(&self, handle: Arc<CountingHandle>) -> io::Result<Self::Reader> {
        DefaultFileSystem.new_reader(handle.0.clone())
    }

    fn new_writer(&self, handle: Arc<CountingHandle>) -> io::Result<Self::Writer> {
        DefaultFileSystem.new_writer(handle.0.clone())
    }
}

fn one_key(value: u8) -> Result<LogBatch> {
    let mut batch = LogBatch::default();
    batch.put(1, b"key".to_vec(), vec![value])?;
    Ok(batch)
}

fn main() -> Result<()> {
    let config = Config { dir: "data".into(), purge_threshold: ReadableSize::mb(128), ..Config::default() };
    let engine = Engine::open_with_file_system(config, Arc::new(CountingFileSystem))?;
    let mut before = SYNCS.load(Ordering::SeqCst);
    let mut report = |step: &str| {
        let now = SYNCS.load(Ordering::SeqCst);
        println!("{step}: {} calls of fdatasync", now - before);
        before = now;
    };
    for value in 0..3 {
        engine.write(&mut one_key(value)?, false)?;
    }
    report("three writes with sync = false");
    engine.sync()?;
    report("then sync()");
    engine.write(&mut LogBatch::default(), true)?;
    report("then an empty batch with sync = true");
    engine.write(&mut one_key(3)?, true)?;
    report("then a batch of one key with sync = true");
    Ok(())
}
RUST

actual=$(CARGO_TARGET_DIR="${FINDINGS_TARGET:-$folder/target}" cargo run --quiet)
printf '%s\n' "$actual"
if [ "$actual" != "$expected" ]; then
    printf 'CHANGED: this was expected:\n%s\n' "$expected"
    exit 1
fi
