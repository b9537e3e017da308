//! Opening, rebuilding and closing of a node's storage: data directory, Raft log, rows and checkpoint thread.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stead_types::{GroupId, NodeId};

use crate::background::{Background, Stagger};
use crate::data_dir::{self, DataDir, DataDirError, Identity, rewrite};
use crate::engine::{self, Engine, Kind};
use crate::health::Health;
use crate::log::{self, LogStore, raft_engine};
use crate::power::Power;

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
    /// A directory, which is created if it is missing.
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

/// Simulated disk in memory, which survives the death of its node.
#[derive(Clone)]
pub struct Disk {
    /// The Raft log.
    pub log: log::memory::Disk,
    /// The rows.
    pub rows: engine::memory::Disk,
    power: Power,
}

impl Default for Disk {
    fn default() -> Self {
        let power = Power::default();
        Self {
            log: log::memory::Disk::powered_by(power.clone()),
            rows: engine::memory::Disk::powered_by(power.clone()),
            power,
        }
    }
}

impl Disk {
    /// Cuts the power after this many more writes and syncs of log and rows, between any two of them. The node on the
    /// disk must be dead before its responses are used; then call [`Disk::power_loss`].
    pub fn cut_after(&self, operations: u64) {
        self.power.cut_after(operations);
    }

    /// Tells whether the power is off.
    pub fn is_cut(&self) -> bool {
        self.power.is_cut()
    }

    /// Fills the disk, or frees space again.
    pub fn fill(&self, is_full: bool) {
        self.power.fill(is_full);
    }

    /// Cuts the power, unless it is off, and switches it on again: of the pending operations of log and rows this many
    /// survive.
    pub fn power_loss(&self, log_survivors: usize, rows_survivors: usize) {
        self.log.power_loss(log_survivors);
        self.rows.power_loss(rows_survivors);
        self.power.on();
    }
}

/// All storage of a node. Dropping it releases the lock of the data directory, so keep it until every user of a part is
/// gone.
pub struct Store {
    /// The rows of all groups.
    pub engine: Arc<dyn Engine>,
    /// The Raft log of all groups.
    pub log: Arc<dyn LogStore>,
    /// The thread that runs checkpoints.
    pub background: Arc<Background>,
    /// The node's health.
    pub health: Health,
    /// The data directory; none for storage in memory.
    pub dir: Option<DataDir>,
}

/// Error while storage is opened, rebuilt or closed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory cannot be used.
    #[error(transparent)]
    DataDir(#[from] DataDirError),
    /// A part of the data directory cannot be opened.
    #[error("cannot open the {part} in {path}")]
    Part {
        /// The part.
        part: &'static str,
        /// Its path.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A file whose contents may not be durable cannot be rewritten.
    #[error(
        "cannot make {path} durable: its contents may be in the page cache only, because the node did not stop in order; \
         repair the disk, then start the node again"
    )]
    Rewrite {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl From<rewrite::RewriteError> for Error {
    fn from(rewrite::RewriteError { path, source }: rewrite::RewriteError) -> Self {
        Self::Rewrite { path, source }
    }
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
        engine: disk.rows.open_with(health.clone()),
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
    let engine = open_rows(&dir, kind, &background)?;
    Ok(Store {
        engine: engine::guarded_once_opened(engine, health.clone()),
        log,
        background: Arc::new(background),
        health,
        dir: Some(dir),
    })
}

/// Opens the rows; damaged ones are set aside, and empty ones take their place.
fn open_rows(dir: &DataDir, kind: Kind, background: &Background) -> Result<Arc<dyn Engine>, Error> {
    let path = dir.rows();
    let open = || {
        let path = path.clone();
        let opened = background.run(None, "opening the rows", move || Ok(engine::open(kind, &path)));
        opened.map_err(|failed| io::Error::other(failed.source)).flatten()
    };
    let opened = match open() {
        Err(error) if engine::is_damage(&error) => {
            set_aside(dir, &error, None)?;
            open()
        }
        opened => opened,
    };
    opened.map_err(|source| Error::Part {
        part: "rows",
        path: path.clone(),
        source,
    })
}

fn set_aside(
    dir: &DataDir,
    error: &(dyn std::error::Error + 'static),
    rebuild_target: Option<(GroupId, u64)>,
) -> Result<(), DataDirError> {
    let kept = dir.set_rows_aside(rebuild_target)?;
    let kept = kept.map_or_else(
        || "deleted, because a rebuild was running".to_owned(),
        |path| path.display().to_string(),
    );
    tracing::warn!(
        error,
        kept,
        "the rows are damaged: they are set aside and rebuilt from the log or from other voters"
    );
    Ok(())
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

impl Store {
    /// Tells whether a part of it is still referenced elsewhere.
    pub fn is_in_use(&self) -> bool {
        let is_shared = 1 < Arc::strong_count(&self.log) || 1 < Arc::strong_count(&self.background);
        is_shared || 1 < Arc::strong_count(&self.engine) || self.log.is_in_use()
    }

    /// Sets aside rows that were opened but cannot be read, and opens empty ones. The engine must not be referenced
    /// elsewhere.
    ///
    /// # Errors
    ///
    /// When a file operation fails.
    pub fn set_rows_aside(self, error: &(dyn std::error::Error + 'static)) -> Result<Self, Error> {
        let Self {
            engine,
            log,
            background,
            health,
            dir,
        } = self;
        let kind = engine.kind();
        drop(engine);
        let engine = match &dir {
            None => engine::memory::Disk::default().open(),
            Some(dir) => {
                set_aside(dir, error, None)?;
                open_rows(dir, kind, &background)?
            }
        };
        Ok(Self {
            engine: engine::guarded_once_opened(engine, health.clone()),
            log,
            background,
            health,
            dir,
        })
    }

    /// Records that the rows are rebuilt.
    ///
    /// # Errors
    ///
    /// When a file operation fails.
    pub fn finish_rebuild(&self) -> Result<(), Error> {
        Ok(self.dir.as_ref().map_or(Ok(()), DataDir::finish_rebuild)?)
    }

    /// Returns the entry that the rebuilt rows of a group must reach, if a rebuild is running and has one.
    ///
    /// # Errors
    ///
    /// When a file operation fails.
    pub fn rebuild_target(&self) -> Result<Option<(GroupId, u64)>, Error> {
        Ok(self.dir.as_ref().map_or(Ok(None), DataDir::rebuild_target)?)
    }

    /// Returns a function that returns the time since the last rebuild ended; `None` if there was none.
    pub fn time_since_rebuild(&self) -> impl Fn() -> Option<Duration> + Send + Sync + use<> {
        let mark = self.dir.as_ref().map(DataDir::rebuilt_mark);
        move || mark.as_deref().and_then(data_dir::age)
    }

    /// Sets aside the rows of a failed node if its failure asks for a rebuild. Rows in memory stay, since they cannot
    /// be damaged. The engine must not be referenced elsewhere.
    ///
    /// # Errors
    ///
    /// When a file operation fails.
    pub fn set_aside_failed_rows(self) -> Result<(), Error> {
        let Self {
            engine,
            log,
            background,
            health,
            dir,
        } = self;
        // The threads of each end with it.
        drop((log, engine, background));
        if let (Some(failure), Some(dir)) = (health.failure(), dir)
            && let Some(rebuild) = failure.rebuild
        {
            set_aside(&dir, &*failure.source, rebuild.target)?;
        }
        Ok(())
    }

    /// Closes the storage in order: everything is synced, and the next start trusts the files. Returns false if that
    /// cannot be guaranteed, because a part is in use or has failed.
    ///
    /// # Errors
    ///
    /// When a file cannot be synced.
    pub fn close(self) -> Result<bool, Error> {
        // An error of the engine's own threads may not be reported yet.
        if self.engine.checkpoint().is_err() || self.health.failure().is_some() || self.is_in_use() {
            return Ok(false);
        }
        let Self {
            engine,
            log,
            background,
            health,
            dir,
        } = self;
        // The threads of each end with it, and write what is still queued: that may fail too, and a later sync would
        // not report it.
        drop((log, engine, background));
        if health.failure().is_some() {
            return Ok(false);
        }
        if let Some(dir) = dir {
            rewrite::sync(&dir.log())?;
            rewrite::sync(&dir.rows())?;
            dir.end_clean()?;
        }
        Ok(true)
    }

    /// Tells whether this opening created the storage: the node has no state, not even its votes.
    pub fn created(&self) -> bool {
        self.dir.as_ref().is_some_and(DataDir::created)
    }
}

#[cfg(test)]
mod tests {

    use bytes::Bytes;
    use stead_types::GroupId;

    use super::*;
    use crate::engine::RowChange;

    const LOG: raft_engine::Options = raft_engine::Options {
        file_len: 1 << 20,
        purge_len: 2 << 20,
        prefill_len: 0,
    };

    fn check(config: &Config) {
        for expected in [None, Some(Bytes::from("v"))] {
            let store = open(config.clone()).unwrap();
            assert_eq!(store.engine.get(b"k").unwrap(), expected);
            let log = store.log.group(GroupId::DIRECTORY);
            assert_eq!(log.state().unwrap().vote, expected);
            let (key, value) = (Bytes::from("k"), Some(Bytes::from("v")));
            store.engine.write(&mut [RowChange { key, value }].into_iter()).unwrap();
            store.engine.checkpoint().unwrap();
            let (sender, receiver) = std::sync::mpsc::channel();
            log.save_vote(Bytes::from("v"), Box::new(move |done| sender.send(done).unwrap()));
            receiver.recv().unwrap().unwrap();
        }
    }

    fn config(location: StorageLocation) -> Config {
        Config {
            cluster: "test".into(),
            node: NodeId::new(1),
            location,
            health: Health::default(),
        }
    }

    #[test]
    fn storage_reopens_with_every_engine() {
        for engine in [Kind::Fjall, Kind::Sled] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().to_owned();
            check(&config(StorageLocation::Directory { path, engine, log: LOG }));
        }
        check(&config(StorageLocation::Memory(Disk::default())));
    }

    #[test]
    fn power_cut_between_operations_stops_all_writes() {
        let disk = Disk::default();
        let store = in_memory(&disk, Health::default());
        let key = |key: &'static str| Bytes::from(key);
        let write = |name| {
            let value = Some(key(name));
            store
                .engine
                .write(&mut [RowChange { key: key(name), value }].into_iter())
        };
        write("a").unwrap();
        disk.cut_after(2);
        store.engine.checkpoint().unwrap();
        write("b").unwrap();
        assert!(disk.is_cut());
        write("c").unwrap_err();
        let log = store.log.group(GroupId::DIRECTORY);
        log.save_vote(key("v"), Box::new(|done| drop(done.unwrap_err())));
        disk.power_loss(9, 9);
        let store = in_memory(&disk, Health::default());
        let found = ["a", "b", "c"].map(|key| store.engine.get(key.as_bytes()).unwrap().is_some());
        assert_eq!(found, [true, true, false]);
        assert_eq!(store.log.group(GroupId::DIRECTORY).state().unwrap().vote, None);
    }

    #[test]
    fn full_disk_accepts_writes_after_space_and_reopen() {
        let disk = Disk::default();
        let store = in_memory(&disk, Health::default());
        disk.fill(true);
        let vote = || Bytes::from("v");
        let log = store.log.group(GroupId::DIRECTORY);
        log.save_vote(vote(), Box::new(|done| drop(done.unwrap_err())));
        assert!(store.log.health().failure().is_some());
        disk.fill(false);
        let log = in_memory(&disk, Health::default()).log.group(GroupId::DIRECTORY);
        log.save_vote(vote(), Box::new(|done| done.unwrap()));
        assert_eq!(log.state().unwrap().vote, Some(vote()));
    }

    #[test]
    fn orderly_closed_storage_is_not_rewritten() {
        for engine in [Kind::Fjall, Kind::Sled] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().to_owned();
            let config = config(StorageLocation::Directory { path, engine, log: LOG });
            let was_clean = |store: &Store| store.dir.as_ref().unwrap().was_clean();
            drop(open(config.clone()).unwrap());
            let store = open(config.clone()).unwrap();
            assert!(!was_clean(&store));
            let log = store.log.group(GroupId::DIRECTORY);
            assert!(!store.close().unwrap(), "the log of a group is held");
            drop(log);
            let store = open(config.clone()).unwrap();
            assert!(!was_clean(&store) && store.close().unwrap());
            assert!(was_clean(&open(config).unwrap()));
        }
    }

    #[test]
    fn failed_last_log_sync_is_no_orderly_stop() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let config = config(StorageLocation::Directory {
            path: path.clone(),
            engine: Kind::Fjall,
            log: LOG,
        });
        drop(open(config.clone()).unwrap());
        let identity = Identity {
            cluster: config.cluster.clone(),
            node: config.node,
            engine: Kind::Fjall,
        };
        let fault = raft_engine::SyncFault::default();
        let dir = DataDir::open(&path, &identity).unwrap();
        let (stagger, health) = (Stagger::of(config.node), Health::default());
        let store = on_disk(dir, Kind::Fjall, &LOG, fault.clone(), stagger, health).unwrap();
        // No caller waits for this write: it is synced together with the next one, and here none follows.
        let group = store.log.group(GroupId::DIRECTORY);
        group.save_committed(Bytes::from("c")).unwrap();
        drop(group);
        fault.set(true);
        assert!(!store.close().unwrap());
        assert!(!open(config).unwrap().dir.unwrap().was_clean());
    }

    #[test]
    fn damaged_rows_are_set_aside_and_log_stays() {
        for engine in [Kind::Fjall, Kind::Sled] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().to_owned();
            let config = config(StorageLocation::Directory { path, engine, log: LOG });
            let store = open(config.clone()).unwrap();
            let log = store.log.group(GroupId::DIRECTORY);
            let (sender, receiver) = std::sync::mpsc::channel();
            log.save_vote(Bytes::from("v"), Box::new(move |done| sender.send(done).unwrap()));
            receiver.recv().unwrap().unwrap();
            drop((store, log));
            rewrite::rewrite(&dir.path().join("rows"), |path| {
                std::fs::write(path, [0x5a; 100]).unwrap();
                true
            })
            .unwrap();
            let store = open(config).unwrap();
            assert_eq!(
                store.log.group(GroupId::DIRECTORY).state().unwrap().vote,
                Some(Bytes::from("v"))
            );
            assert!(dir.path().join("rows.damaged-1").is_dir() && dir.path().join("REBUILDING").exists());
            store.finish_rebuild().unwrap();
            assert!(!dir.path().join("REBUILDING").exists());
        }
    }

    #[test]
    fn open_error_names_the_part() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let config = config(StorageLocation::Directory {
            path,
            engine: Kind::Fjall,
            log: LOG,
        });
        drop(open(config.clone()).unwrap());
        std::fs::remove_dir_all(dir.path().join("log")).unwrap();
        std::fs::write(dir.path().join("log"), "no directory").unwrap();
        let error = open(config).err().expect("the log is no directory").to_string();
        assert!(error.starts_with("cannot open the Raft log in "), "{error}");
    }
}
