//! Opening of a node's storage: data directory, Raft log, rows and checkpoint thread, or all of it in memory.

mod disk;
mod error;
mod rows;
mod store;

use std::{
    path::{Path, PathBuf},
    sync::Arc,
};

use stead_types::NodeId;

pub use self::{disk::Disk, error::Error, store::Store};
use crate::{
    background::{Background, Stagger},
    data_dir::{DataDir, Identity, rewrite},
    engine::{self, Kind},
    health::Health,
    log::raft_engine,
};

/// Configuration of a node's storage.
#[derive(Clone)]
pub struct Config {
    /// Name of the cluster.
    pub cluster: String,
    /// The node.
    pub node: NodeId,
    /// Location of the storage.
    pub location: StorageLocation,
    /// Health of the node; the first storage failure is reported there.
    pub health: Health,
}

/// Location of storage.
#[derive(Clone)]
pub enum StorageLocation {
    /// A directory, which is created if it is missing; the memory engine leaves it alone.
    Directory {
        /// Its path.
        path: PathBuf,
        /// The engine; fixed when the directory is created.
        engine: Kind,
        /// Sizes of the log's files.
        log: raft_engine::Options,
    },
    /// Memory, without threads.
    Memory(Disk),
}

/// Opens all storage of a node.
pub fn open(config: Config) -> Result<Store, Error> {
    match config.location {
        StorageLocation::Directory {
            engine: Kind::Memory, ..
        } => Ok(in_memory(&Disk::default(), config.health)),
        StorageLocation::Memory(disk) => Ok(in_memory(&disk, config.health)),
        StorageLocation::Directory { path, engine, log } => {
            let node = config.node;
            let identity = Identity {
                cluster: config.cluster,
                node,
                engine,
            };
            let dir = DataDir::open(&path, &identity)?;
            let fault = raft_engine::SyncFault::default();
            on_disk(dir, engine, &log, fault, Stagger::of(node), config.health)
        }
    }
}

fn in_memory(disk: &Disk, health: Health) -> Store {
    Store {
        engine: engine::cached(disk.rows.open_with(health.clone())),
        log: disk.log.open_with(health.clone()),
        background: Arc::new(Background::inline_with(health.clone())),
        health,
        dir: None,
    }
}

fn on_disk(
    dir: DataDir,
    kind: Kind,
    log: &raft_engine::Options,
    fault: raft_engine::SyncFault,
    stagger: Stagger,
    health: Health,
) -> Result<Store, Error> {
    let part = |part, path| move |source| Error::Part { part, path, source };
    let (rows_dir, log_dir) = (dir.rows(), dir.log());
    if !dir.was_clean() {
        rewrite(&log_dir, &rows_dir, kind)?;
    }
    let log = raft_engine::open(&log_dir, log, fault, health.clone()).map_err(part("Raft log", log_dir.clone()))?;
    let background = Background::thread("checkpoints", health.clone(), stagger);
    let background = background.map_err(part("checkpoint thread", rows_dir))?;
    let engine = rows::open_rows(&dir, kind, &background)?;
    Ok(Store {
        engine: engine::cached(engine::guarded_once_opened(engine, health.clone())),
        log,
        background: Arc::new(background),
        health,
        dir: Some(dir),
    })
}

/// Rewrites the files of log and rows, so that everything that is read at start is durable. It costs the log and, of
/// the rows, all but tables that fjall has synced: little with fjall, everything with sled.
fn rewrite(log: &Path, rows: &Path, kind: Kind) -> Result<(), Error> {
    tracing::info!("the node did not stop in order: rewriting files, so that their contents are durable");
    let log = rewrite::rewrite(log, raft_engine::is_spare)?;
    let rows = rewrite::rewrite(rows, |path| kind == Kind::Fjall && engine::fjall::is_written_once(path))?;
    tracing::info!(
        log_files = log.files,
        log_bytes = log.bytes,
        row_files = rows.files,
        row_bytes = rows.bytes,
        "files are rewritten"
    );
    Ok(())
}

#[cfg(test)]
mod open_test;
