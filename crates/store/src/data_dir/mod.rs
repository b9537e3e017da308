//! Data directory of a node: its identity, its format, and its lock.
//!
//! ```text
//!   LOCK          locked while a process uses the directory
//!   stead.json    format, cluster, node, engine; written once
//!   CLEAN         exists after an orderly stop, removed while a process uses the directory
//!   log/          the Raft log
//!   rows/         the engine's files
//!   rows.damaged-1/   rows that were set aside: the last ones, two at most
//!   REBUILDING    exists while rows are rebuilt; holds the entry that they must reach, if there is one
//!   REBUILDING.new    the same, before the rows are set aside
//!   REBUILT       its time is the end of the last rebuild
//!   BALLAST       disk space for the time when there is none; belongs to the server
//!   RECOVERING    exists while a recovery replaces the directory's rows and log; holds the new incarnation
//! ```
//!
//! # Invariants
//!
//! 1. Nothing in a directory is touched before it is locked and its identity is checked.
//! 2. `CLEAN` means that everything in the directory is durable: it is created when everything was synced, after the
//!    last write, and durably removed before the next one.
//! 3. Rows that were set aside stay until the rows in their place are rebuilt.
//! 4. While rows are missing because they were set aside, the entry that the rebuilt rows must reach is durably known.

pub(crate) mod rewrite;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stead_types::{GroupId, Incarnation, NodeId};

use crate::engine::Kind;

/// Format that this program reads and writes: of this directory's files, of the log's entries, of rows and of
/// snapshots.
pub const FORMAT: u32 = 2;

/// Oldest format that this program reads.
const FORMAT_MIN: u32 = 2;

const LOCK: &str = "LOCK";
const IDENTITY: &str = "stead.json";
const LOG: &str = "log";
const ROWS: &str = "rows";
const SENT: &str = "sent";
const CLEAN: &str = "CLEAN";
const REBUILDING: &str = "REBUILDING";
const REBUILDING_NEXT: &str = "REBUILDING.new";
const REBUILT: &str = "REBUILT";
const RECOVERING: &str = "RECOVERING";
/// Prefix of the names of rows that were set aside; a number follows.
const DAMAGED: &str = "rows.damaged-";
/// Most directories of set-aside rows that are kept.
const DAMAGED_MAX: usize = 2;

/// Identity of the node that uses a data directory.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// Name of the cluster.
    pub cluster: String,
    /// The node.
    pub node: NodeId,
    /// Its storage engine.
    pub engine: Kind,
}

/// Error while a data directory is used; its text says what to do.
#[derive(Debug, thiserror::Error)]
pub enum DataDirError {
    /// Another process uses it.
    #[error("{0} is in use by another process: stop that one, or give this node a data_dir of its own")]
    InUse(PathBuf),
    /// A newer program wrote it.
    #[error("{dir} has format {found}, this program knows formats up to {FORMAT}: use a newer version of stead")]
    NewerFormat {
        /// The directory.
        dir: PathBuf,
        /// Its format.
        found: u32,
    },
    /// An older program wrote it, in a format that is not supported.
    #[error(
        "{dir} has format {found}, this program reads format {FORMAT} and converts nothing: start it with the version \
         of stead that wrote it, or move the directory away and start with an empty one"
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
    /// It was created with another engine.
    #[error(
        "{dir} was created with storage.engine = \"{found}\", not \"{expected}\": set it back; to change a node's engine, \
         replace the node"
    )]
    OtherEngine {
        /// The directory.
        dir: PathBuf,
        /// The engine that created it.
        found: String,
        /// The engine that was asked for.
        expected: Kind,
    },
    /// It holds data, but no identity file.
    #[error("{0} holds data but no {IDENTITY}: restore that file from a backup, or move the directory away")]
    NoIdentity(PathBuf),
    /// It holds rows, but no log.
    #[error("{0} holds rows but no log: restore the log from a backup of the same time, or replace the node")]
    NoLog(PathBuf),
    /// The identity file cannot be parsed.
    #[error("{path} cannot be parsed: restore it from a backup, or move the directory away")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        #[source]
        source: serde_json::Error,
    },
    /// The mark of a running rebuild cannot be parsed.
    #[error(
        "{0} does not name the group and the entry that the rebuilt rows must reach: replace the node, its own log is \
         not trusted"
    )]
    MalformedMark(PathBuf),
    /// The mark of a recovery cannot be parsed.
    #[error(
        "{0} does not name the incarnation of the recovery that was interrupted: write its number into it, 2 for the first one"
    )]
    MalformedRecovery(PathBuf),
    /// A file operation failed.
    #[error("cannot use {path}")]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

/// Data directory that is locked and whose identity is checked.
#[derive(Debug)]
pub struct DataDir {
    path: PathBuf,
    created: bool,
    was_clean: bool,
    _lock: File,
}

/// Contents of the identity file.
#[derive(Serialize, Deserialize)]
struct IdentityFile {
    format: u32,
    cluster: String,
    node: u64,
    engine: String,
}

/// Field of the identity file that every format has.
#[derive(Deserialize)]
struct Format {
    format: u32,
}

impl DataDir {
    /// Locks a directory and checks its identity, or creates it.
    pub fn open(path: &Path, identity: &Identity) -> Result<Self, DataDirError> {
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
        let was_clean = take_clean_mark(path)?;
        finish_setting_aside(path)?;
        Ok(Self {
            path: path.to_owned(),
            created,
            was_clean,
            _lock: lock,
        })
    }

    /// Tells whether everything in the directory is known to be durable: it is new, or the last use ended in order
    /// (invariant 2).
    pub fn was_clean(&self) -> bool {
        self.created || self.was_clean
    }

    /// Records durably that the use of the directory ended in order, and releases the lock. Everything must be synced
    /// before, and nothing is written afterwards.
    pub fn end_clean(self) -> Result<(), DataDirError> {
        let mark = self.path.join(CLEAN);
        let write = || -> io::Result<()> {
            File::create(&mark)?.sync_all()?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(io_error(&mark))
    }

    /// Tells whether this opening created the directory: the node has no state.
    pub fn created(&self) -> bool {
        self.created
    }

    /// Sets aside rows that are damaged or diverged, and returns their new path. The rebuilt rows must reach
    /// `rebuild_target` in its group. Rows whose rebuild had not ended are deleted, and `None` is returned: those
    /// that they replaced were set aside before (invariant 3), and the target of that time stays.
    pub fn set_rows_aside(&self, rebuild_target: Option<(GroupId, u64)>) -> Result<Option<PathBuf>, DataDirError> {
        let (rows, mark) = (self.rows(), self.path.join(REBUILDING));
        if mark.exists() {
            fs::remove_dir_all(&rows).map_err(io_error(&rows))?;
            return Ok(None);
        }
        let mut kept = self.damaged()?;
        let number = kept.last().map_or(1, |last| last + 1);
        let aside = self.path.join(format!("{DAMAGED}{number}"));
        // The target comes first, so that a power cut between any two of these steps loses nothing.
        let next = self.path.join(REBUILDING_NEXT);
        let text = rebuild_target.map(|(group, index)| format!("{} {index}\n", group.get()));
        let written = File::create(&next).and_then(|mut file| {
            file.write_all(text.unwrap_or_default().as_bytes())?;
            file.sync_all()
        });
        written.map_err(io_error(&next))?;
        self.sync()?;
        fs::rename(&rows, &aside).map_err(io_error(&rows))?;
        self.sync()?;
        finish_setting_aside(&self.path)?;
        kept.push(number);
        for number in &kept[..kept.len().saturating_sub(DAMAGED_MAX)] {
            let old = self.path.join(format!("{DAMAGED}{number}"));
            fs::remove_dir_all(&old).map_err(io_error(&old))?;
        }
        Ok(Some(aside))
    }

    /// Returns the entry that the rebuilt rows of a group must reach, if a rebuild is running and has one.
    pub fn rebuild_target(&self) -> Result<Option<(GroupId, u64)>, DataDirError> {
        let mark = self.path.join(REBUILDING);
        let text = match fs::read_to_string(&mark) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(io_error(&mark))?,
        };
        if text.is_empty() {
            return Ok(None);
        }
        let numbers = text.strip_suffix('\n').and_then(|text| text.split_once(' '));
        let parsed = numbers.and_then(|(group, index)| Some((GroupId::new(group.parse().ok()?), index.parse().ok()?)));
        parsed.map(Some).ok_or(DataDirError::MalformedMark(mark))
    }

    /// Returns the path of the file whose age is the time since the last rebuild ended; it is missing if there was
    /// none.
    pub fn rebuilt_mark(&self) -> PathBuf {
        self.path.join(REBUILT)
    }

    /// Records that the rows are rebuilt.
    pub fn finish_rebuild(&self) -> Result<(), DataDirError> {
        let mark = self.path.join(REBUILDING);
        if mark.exists() {
            let rebuilt = self.rebuilt_mark();
            File::create(&rebuilt).map_err(io_error(&rebuilt))?;
        }
        match fs::remove_file(&mark) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed.map_err(io_error(&mark))?,
        }
        self.sync()
    }

    /// Records durably that a recovery begins to replace the directory's rows and log by a new incarnation.
    pub fn begin_recovery(&self, incarnation: Incarnation) -> Result<(), DataDirError> {
        let mark = self.path.join(RECOVERING);
        let next = self.path.join("RECOVERING.new");
        let written = File::create(&next).and_then(|mut file| {
            writeln!(file, "{}", incarnation.0)?;
            file.sync_all()
        });
        written.map_err(io_error(&next))?;
        fs::rename(&next, &mark).map_err(io_error(&mark))?;
        self.sync()
    }

    /// Returns the incarnation of a recovery that has begun and not ended.
    pub fn recovery(&self) -> Result<Option<Incarnation>, DataDirError> {
        let mark = self.path.join(RECOVERING);
        let text = match fs::read_to_string(&mark) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            read => read.map_err(io_error(&mark))?,
        };
        let parsed = text.trim_end().parse().map(Incarnation);
        parsed.map(Some).map_err(|_| DataDirError::MalformedRecovery(mark))
    }

    /// Records durably that the recovery has ended.
    pub fn end_recovery(&self) -> Result<(), DataDirError> {
        let mark = self.path.join(RECOVERING);
        fs::remove_file(&mark).map_err(io_error(&mark))?;
        self.sync()
    }

    /// Returns the numbers of rows that were set aside, ascending.
    fn damaged(&self) -> Result<Vec<u64>, DataDirError> {
        let entries = fs::read_dir(&self.path).map_err(io_error(&self.path))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut numbers: Vec<u64> = names
            .filter_map(|name| name.strip_prefix(DAMAGED)?.parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn sync(&self) -> Result<(), DataDirError> {
        let synced = File::open(&self.path).and_then(|dir| dir.sync_all());
        synced.map_err(io_error(&self.path))
    }

    /// Returns the path of the Raft log, which must be created before the rows.
    pub fn log(&self) -> PathBuf {
        self.path.join(LOG)
    }

    /// Returns the path of the ledger of what the node has sent of tenants.
    pub fn sent(&self) -> PathBuf {
        self.path.join(SENT)
    }

    /// Returns the path of the rows.
    pub fn rows(&self) -> PathBuf {
        self.path.join(ROWS)
    }
}

/// Returns the time since a file was written; `None` if it is missing.
pub(crate) fn age(file: &Path) -> Option<Duration> {
    let written = fs::metadata(file).and_then(|file| file.modified()).ok()?;
    // With a clock that was set back since then it is zero.
    Some(written.elapsed().unwrap_or_default())
}

/// Removes the mark of an orderly stop, durably, and tells whether it existed.
fn take_clean_mark(dir: &Path) -> Result<bool, DataDirError> {
    let mark = dir.join(CLEAN);
    let was_there = match fs::remove_file(&mark) {
        Ok(()) => true,
        Err(error) if error.kind() == io::ErrorKind::NotFound => false,
        Err(error) => return Err(io_error(&mark)(error)),
    };
    let synced = File::open(dir).and_then(|dir| dir.sync_all());
    synced.map_err(io_error(dir))?;
    Ok(was_there)
}

/// Finishes setting rows aside after the rows were moved, or cancels it if they are still in place.
fn finish_setting_aside(dir: &Path) -> Result<(), DataDirError> {
    let next = dir.join(REBUILDING_NEXT);
    if !next.exists() {
        return Ok(());
    }
    let finished = if dir.join(ROWS).exists() {
        fs::remove_file(&next)
    } else {
        fs::rename(&next, dir.join(REBUILDING))
    };
    let finished = finished.and_then(|()| File::open(dir)?.sync_all());
    finished.map_err(io_error(&next))
}

fn io_error(path: &Path) -> impl FnOnce(io::Error) -> DataDirError {
    let path = path.to_owned();
    move |source| DataDirError::Io { path, source }
}

fn lock(dir: &Path) -> Result<File, DataDirError> {
    let path = dir.join(LOCK);
    let mut options = OpenOptions::new();
    options.create(true).truncate(false).write(true);
    let file = options.open(&path).map_err(io_error(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(DataDirError::InUse(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(io_error(&path)(error)),
    }
}

fn check(dir: &Path, bytes: &[u8], identity: &Identity) -> Result<(), DataDirError> {
    let malformed = |source| {
        let path = dir.join(IDENTITY);
        DataDirError::Malformed { path, source }
    };
    let dir = dir.to_owned();
    let found = serde_json::from_slice::<Format>(bytes).map_err(malformed)?.format;
    if FORMAT < found {
        return Err(DataDirError::NewerFormat { dir, found });
    }
    if found < FORMAT_MIN {
        return Err(DataDirError::OlderFormat { dir, found });
    }
    let written: IdentityFile = serde_json::from_slice(bytes).map_err(malformed)?;
    if written.cluster != identity.cluster {
        let (found, expected) = (written.cluster, identity.cluster.clone());
        return Err(DataDirError::OtherCluster { dir, found, expected });
    }
    if written.node != identity.node.get() {
        let (found, expected) = (written.node, identity.node.get());
        return Err(DataDirError::OtherNode { dir, found, expected });
    }
    if written.engine != identity.engine.to_string() {
        let (found, expected) = (written.engine, identity.engine);
        return Err(DataDirError::OtherEngine { dir, found, expected });
    }
    if dir.join(ROWS).exists() && !dir.join(LOG).exists() {
        return Err(DataDirError::NoLog(dir));
    }
    Ok(())
}

/// Writes the identity file atomically.
fn create(dir: &Path, file: &Path, identity: &Identity) -> Result<(), DataDirError> {
    if dir.join(LOG).exists() || dir.join(ROWS).exists() {
        return Err(DataDirError::NoIdentity(dir.to_owned()));
    }
    let written = IdentityFile {
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
mod data_dir_test;
