//! The data directory: whose it is, in which format, and that one process alone uses it.
//!
//! ```text
//!   LOCK          held while a process uses the directory
//!   stead.json    format, cluster, node, engine; written once
//!   log/          the Raft log
//!   rows/         the engine's files
//! ```
//!
//! # Invariants
//!
//! 1. Nothing in a directory is touched before it is locked and known to be this node's.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use stead_types::NodeId;

use crate::engine::Kind;

/// The format that this program reads and writes: of this directory's files, of the log's entries, of rows and of
/// snapshots.
pub const FORMAT: u32 = 2;

/// The oldest format that this program reads.
const FORMAT_MIN: u32 = 2;

const LOCK: &str = "LOCK";
const IDENTITY: &str = "stead.json";
const LOG: &str = "log";
const ROWS: &str = "rows";

/// Who uses a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Names the cluster.
    pub cluster: String,
    /// The node.
    pub node: NodeId,
    /// Its storage engine.
    pub engine: Kind,
}

/// A data directory cannot be used; the sentence says what to do.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// Another process uses it.
    #[error("{0} is in use by another process: stop that one, or give this node a data_dir of its own")]
    InUse(PathBuf),
    /// A newer program has written it.
    #[error("{dir} has format {found}, this program knows formats up to {FORMAT}: use a newer version of stead")]
    NewerFormat {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// An older program has written it, in a format that is not read any more.
    #[error(
        "{dir} has format {found}, this program reads format {FORMAT} and converts nothing: start it with the version \
         of stead that wrote it, or move the directory away and start anew with an empty one"
    )]
    OlderFormat {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// It belongs to another cluster.
    #[error(
        "{dir} belongs to cluster \"{found}\", this node to \"{expected}\": correct cluster.name or data_dir, \
         or start with an empty directory"
    )]
    OtherCluster {
        /// The directory.
        dir: PathBuf,
        /// The cluster that it belongs to.
        found: String,
        /// The cluster that was asked for.
        expected: String,
    },
    /// It belongs to another node.
    #[error(
        "{dir} belongs to node {found}, this is node {expected}: correct node.name or data_dir; \
         a node's directory can never become another's"
    )]
    OtherNode {
        /// The directory.
        dir: PathBuf,
        /// The node that it belongs to.
        found: u64,
        /// The node that asked.
        expected: u64,
    },
    /// It was made with another engine.
    #[error(
        "{dir} was made with storage.engine = \"{found}\", not \"{expected}\": set it back; to change a node's engine, \
         replace the node"
    )]
    OtherEngine {
        /// The directory.
        dir: PathBuf,
        /// The engine that made it.
        found: String,
        /// The engine that was asked for.
        expected: Kind,
    },
    /// Data is there, but not the file that says whose it is.
    #[error("{0} holds data but no {IDENTITY}: bring that file back from a backup, or move the directory away")]
    NoIdentity(PathBuf),
    /// The rows are there, but not the log that they follow.
    #[error("{0} holds rows but no log: bring the log back from a backup of the same time, or replace the node")]
    NoLog(PathBuf),
    /// The file that says whose it is cannot be read.
    #[error("{path} cannot be understood: bring it back from a backup, or move the directory away")]
    Garbled {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The operating system refused.
    #[error("cannot use {path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// A data directory that is locked and known to be this node's.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    created: bool,
    _lock: File,
}

/// What stands in the identity file.
#[derive(Serialize, Deserialize)]
struct Written {
    format: u32,
    cluster: String,
    node: u64,
    engine: String,
}

/// The one field that every format has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl DataDir {
    /// Locks a directory and checks whose it is, or makes it.
    pub fn open(path: &Path, identity: &Identity) -> Result<Self, Refused> {
        fs::create_dir_all(path).map_err(io_error(path))?;
        let lock = lock(path)?;
        let file = path.join(IDENTITY);
        let created = match fs::read(&file) {
            Ok(bytes) => {
                check(path, &bytes, identity)?;
                false
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                create(path, &file, identity)?;
                true
            }
            Err(error) => return Err(io_error(&file)(error)),
        };
        Ok(Self {
            path: path.to_owned(),
            created,
            _lock: lock,
        })
    }

    /// Tells whether the directory was made by this opening: the node remembers nothing.
    pub fn created(&self) -> bool {
        self.created
    }

    /// Where the Raft log is, which must be made before the rows.
    pub fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// Where the rows are.
    pub fn rows(&self) -> PathBuf {
        self.path.join(ROWS)
    }
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> Refused {
    let path = path.to_owned();
    move |source| Refused::Io { path, source }
}

fn lock(dir: &Path) -> Result<File, Refused> {
    let path = dir.join(LOCK);
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    let file = options.open(&path).map_err(io_error(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(Refused::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(io_error(&path)(error)),
    }
}

fn check(dir: &Path, bytes: &[u8], identity: &Identity) -> Result<(), Refused> {
    let garbled = |source| {
        let path = dir.join(IDENTITY);
        Refused::Garbled { path, source }
    };
    let dir = dir.to_owned();
    let found = serde_json::from_slice::<Format>(bytes).map_err(garbled)?.format;
    if FORMAT < found {
        return Err(Refused::NewerFormat { dir, found });
    }
    if found < FORMAT_MIN {
        return Err(Refused::OlderFormat { dir, found });
    }
    let written: Written = serde_json::from_slice(bytes).map_err(garbled)?;
    if written.cluster != identity.cluster {
        let (found, expected) = (written.cluster, identity.cluster.clone());
        return Err(Refused::OtherCluster { dir, found, expected });
    }
    if written.node != identity.node.get() {
        let (found, expected) = (written.node, identity.node.get());
        return Err(Refused::OtherNode { dir, found, expected });
    }
    if written.engine != identity.engine.to_string() {
        let (found, expected) = (written.engine, identity.engine);
        return Err(Refused::OtherEngine { dir, found, expected });
    }
    if dir.join(ROWS).exists() && !dir.join(LOG).exists() {
        return Err(Refused::NoLog(dir));
    }
    Ok(())
}

/// Writes the identity file, whole or not at all.
fn create(dir: &Path, file: &Path, identity: &Identity) -> Result<(), Refused> {
    if dir.join(LOG).exists() || dir.join(ROWS).exists() {
        return Err(Refused::NoIdentity(dir.to_owned()));
    }
    let written = Written {
        format: FORMAT,
        cluster: identity.cluster.clone(),
        node: identity.node.get(),
        engine: identity.engine.to_string(),
    };
    let text = serde_json::to_string_pretty(&written).expect("numbers and strings are always JSON");
    let draft = dir.join("stead.json.new");
    let write = || -> io::Result<()> {
        let mut new = File::create(&draft)?;
        new.write_all(text.as_bytes())?;
        new.sync_all()?;
        fs::rename(&draft, file)?;
        File::open(dir)?.sync_all()
    };
    write().map_err(io_error(file))
}

#[cfg(test)]
mod dir_test;
