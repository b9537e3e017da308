//! The data directory: whose it is, in which format, and that one process alone uses it.
//!
//! ```text
//!   LOCK          held while a process uses the directory
//!   stead.json    format, cluster, node, engine; written once
//!   CLEAN         there after an orderly stop, gone while a process uses the directory
//!   log/          the Raft log
//!   rows/         the engine's files
//!   rows.damaged-1/   rows that could not be opened: the last ones, two at most
//!   REBUILDING    there while rows that were set aside come back; says what they must reach, if it must be said
//!   REBUILDING.new    the same, before the rows are set aside
//!   REBUILT       when that was last
//! ```
//!
//! # Invariants
//!
//! 1. Nothing in a directory is touched before it is locked and known to be this node's.
//! 2. `CLEAN` says that all that stands in the directory is on the disk: it is made when everything was synced, after the
//!    last write, and durably removed before the next one.
//! 3. Rows that were set aside stay until those that took their place were whole.
//! 4. Where there are no rows because they were set aside, what their successors must reach is known, whole.

pub(crate) mod renew;

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use stead_types::{GroupId, NodeId};

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
const CLEAN: &str = "CLEAN";
const REBUILDING: &str = "REBUILDING";
const REBUILDING_NEXT: &str = "REBUILDING.new";
const REBUILT: &str = "REBUILT";
/// How names of rows that were set aside begin; a number follows.
const DAMAGED: &str = "rows.damaged-";
/// Most rows that are kept of those that were set aside.
const DAMAGED_MAX: usize = 2;

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
    /// The file that says up to where rows must be rebuilt cannot be read.
    #[error(
        "{0} does not say up to which entry of which group the rows must be rebuilt: replace the node, its own log is not \
         believed"
    )]
    GarbledMark(PathBuf),
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
    was_clean: bool,
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
        let was_clean = take_clean_mark(path)?;
        end_setting_aside(path)?;
        Ok(Self {
            path: path.to_owned(),
            created,
            was_clean,
            _lock: lock,
        })
    }

    /// Tells whether all that stands here is known to be on the disk: nothing does yet, or the last use ended in order
    /// (invariant 2).
    pub fn was_clean(&self) -> bool {
        self.created || self.was_clean
    }

    /// Notes durably that the use of the directory ended in order, and gives up the lock. Everything was synced before,
    /// and nothing is written afterwards.
    pub fn end_clean(self) -> Result<(), Refused> {
        let mark = self.path.join(CLEAN);
        let write = || -> io::Result<()> {
            File::create(&mark)?.sync_all()?;
            File::open(&self.path)?.sync_all()
        };
        write().map_err(io_error(&mark))
    }

    /// Tells whether the directory was made by this opening: the node remembers nothing.
    pub fn created(&self) -> bool {
        self.created
    }

    /// Moves rows that are damaged or not to be believed out of the way and returns where they are kept. Those that take
    /// their place must reach `reaching` in its group. Rows that had not come back whole after an earlier time are
    /// removed: what they lack is in those that were set aside then (invariant 3).
    pub fn set_rows_aside(&self, reaching: Option<(GroupId, u64)>) -> Result<Option<PathBuf>, Refused> {
        let (rows, mark) = (self.rows(), self.path.join(REBUILDING));
        if mark.exists() {
            fs::remove_dir_all(&rows).map_err(io_error(&rows))?;
            return Ok(None);
        }
        let mut kept = self.damaged()?;
        let number = kept.last().map_or(1, |last| last + 1);
        let aside = self.path.join(format!("{DAMAGED}{number}"));
        // First what their successors must reach, so that a power cut between any two of these steps forgets nothing.
        let next = self.path.join(REBUILDING_NEXT);
        let text = reaching.map(|(group, index)| format!("{} {index}\n", group.get()));
        let noted = File::create(&next).and_then(|mut file| {
            file.write_all(text.unwrap_or_default().as_bytes())?;
            file.sync_all()
        });
        noted.map_err(io_error(&next))?;
        self.sync()?;
        fs::rename(&rows, &aside).map_err(io_error(&rows))?;
        self.sync()?;
        end_setting_aside(&self.path)?;
        kept.push(number);
        for number in &kept[..kept.len().saturating_sub(DAMAGED_MAX)] {
            let old = self.path.join(format!("{DAMAGED}{number}"));
            fs::remove_dir_all(&old).map_err(io_error(&old))?;
        }
        Ok(Some(aside))
    }

    /// Returns which entry the rows of a group must reach that take the place of rows that were set aside.
    pub fn reaching(&self) -> Result<Option<(GroupId, u64)>, Refused> {
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
        parsed.map(Some).ok_or(Refused::GarbledMark(mark))
    }

    /// Returns the file whose age is how long ago the rows were last whole again after they had been set aside; it is
    /// missing if that never was.
    pub fn rebuilt(&self) -> PathBuf {
        self.path.join(REBUILT)
    }

    /// Notes that the rows hold all that they must.
    pub fn rows_are_whole(&self) -> Result<(), Refused> {
        let mark = self.path.join(REBUILDING);
        if mark.exists() {
            let rebuilt = self.rebuilt();
            File::create(&rebuilt).map_err(io_error(&rebuilt))?;
        }
        match fs::remove_file(&mark) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
            removed => removed.map_err(io_error(&mark))?,
        }
        self.sync()
    }

    /// Returns the numbers of rows that were set aside, ascending.
    fn damaged(&self) -> Result<Vec<u64>, Refused> {
        let entries = fs::read_dir(&self.path).map_err(io_error(&self.path))?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut numbers: Vec<u64> = names
            .filter_map(|name| name.strip_prefix(DAMAGED)?.parse().ok())
            .collect();
        numbers.sort_unstable();
        Ok(numbers)
    }

    fn sync(&self) -> Result<(), Refused> {
        let synced = File::open(&self.path).and_then(|dir| dir.sync_all());
        synced.map_err(io_error(&self.path))
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

/// Returns how long ago a file was written; `None` of one that is missing.
pub(crate) fn age(file: &Path) -> Option<Duration> {
    let written = fs::metadata(file).and_then(|file| file.modified()).ok()?;
    // A clock that was set back since then makes it a moment ago.
    Some(written.elapsed().unwrap_or_default())
}

/// Removes the mark of an orderly stop, durably, and tells whether it was there.
fn take_clean_mark(dir: &Path) -> Result<bool, Refused> {
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

/// Ends what setting rows aside has begun, or forgets it if the rows are still there.
fn end_setting_aside(dir: &Path) -> Result<(), Refused> {
    let next = dir.join(REBUILDING_NEXT);
    if !next.exists() {
        return Ok(());
    }
    let ended = if dir.join(ROWS).exists() {
        fs::remove_file(&next)
    } else {
        fs::rename(&next, dir.join(REBUILDING))
    };
    let ended = ended.and_then(|()| File::open(dir)?.sync_all());
    ended.map_err(io_error(&next))
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
