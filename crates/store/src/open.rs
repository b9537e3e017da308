//! Opens all storage of a node.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use stead_types::{GroupId, NodeId};

use crate::background::{Background, Stagger};
use crate::dir::{self, DataDir, Identity, Refused, renew};
use crate::engine::{self, Engine, Kind};
use crate::health::Health;
use crate::log::{self, LogStore, raft_engine};
use crate::power::Power;

/// What storage to open.
#[derive(Clone)]
pub struct Config {
    /// Names the cluster.
    pub cluster: String,
    /// The node.
    pub node: NodeId,
    /// Where.
    pub place: Place,
    /// The node's health, which the first failure of storage ends.
    pub health: Health,
}

/// Where storage is.
#[derive(Clone)]
pub enum Place {
    /// In a directory, which is made if it is missing.
    Directory {
        /// Its path.
        path: PathBuf,
        /// The engine; fixed when the directory is made.
        engine: Kind,
        /// Sizes of the log's files.
        log: raft_engine::Options,
    },
    /// In memory, without threads.
    Memory(Disk),
}

/// A disk in memory, which survives what kills its node.
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
    /// Switches the power off after so many more writes and syncs of log and rows: between any two of them. Whoever
    /// runs on the disk must be dead before its answers are heard; then [`Disk::power_loss`].
    pub fn cut_after(&self, operations: u64) {
        self.power.cut_after(operations);
    }

    /// Tells whether the power is off.
    pub fn is_cut(&self) -> bool {
        self.power.is_cut()
    }

    /// Fills the disk, or makes room again.
    pub fn fill(&self, is_full: bool) {
        self.power.fill(is_full);
    }

    /// Cuts the power, unless it is off, and switches it on again: of what is pending in log and rows so much is found
    /// again.
    pub fn power_loss(&self, log_survivors: usize, rows_survivors: usize) {
        self.log.power_loss(log_survivors);
        self.rows.power_loss(rows_survivors);
        self.power.on();
    }
}

/// All storage of a node. Keep it until everything that uses a part of it is gone: with it goes the lock.
pub struct Store {
    /// The rows of all groups.
    pub engine: Arc<dyn Engine>,
    /// The Raft log of all groups.
    pub log: Arc<dyn LogStore>,
    /// Where checkpoints run.
    pub background: Arc<Background>,
    /// The node's health.
    pub health: Health,
    /// The directory, unless this is memory.
    pub dir: Option<DataDir>,
}

/// Storage could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The data directory is not to be used.
    #[error(transparent)]
    Refused(#[from] Refused),
    /// Its contents cannot be opened.
    #[error("cannot open the {part} in {path}")]
    Part {
        /// What could not be opened.
        part: &'static str,
        /// Where it is.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// What may not be on the disk cannot be written there.
    #[error(
        "cannot make {path} durable: what is read of it may not be on the disk, since the node did not end in order; see to \
         the disk, then start the node again"
    )]
    Renew {
        /// The file or directory.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
}

impl From<renew::Failed> for Error {
    fn from(renew::Failed { path, source }: renew::Failed) -> Self {
        Self::Renew { path, source }
    }
}

/// Opens all storage of a node.
pub fn open(config: Config) -> Result<Store, Error> {
    match config.place {
        Place::Directory {
            engine: Kind::Memory, ..
        } => Ok(in_memory(&Disk::default(), config.health)),
        Place::Memory(disk) => Ok(in_memory(&disk, config.health)),
        Place::Directory { path, engine, log } => {
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
        renew(&log_dir, &rows_dir, kind)?;
    }
    let log = raft_engine::open(&log_dir, log, fault, health.clone()).map_err(part("Raft log", log_dir.clone()))?;
    let background = Background::thread("checkpoints", health.clone(), stagger);
    let background = background.map_err(part("checkpoint thread", rows_dir))?;
    let engine = open_rows(&dir, kind, &background)?;
    Ok(Store {
        engine: engine::on_trial(engine, health.clone()),
        log,
        background: Arc::new(background),
        health,
        dir: Some(dir),
    })
}

/// Opens the rows; those whose files are damaged are set aside, and new ones take their place.
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
    reaching: Option<(GroupId, u64)>,
) -> Result<(), Refused> {
    let kept = dir.set_rows_aside(reaching)?;
    let kept = kept.map_or_else(
        || "not kept, they were being rebuilt".to_owned(),
        |path| path.display().to_string(),
    );
    tracing::warn!(
        error,
        kept,
        "the rows are damaged: they are set aside, and come back from the log or from other voters"
    );
    Ok(())
}

/// Makes sure that what the log and the rows will be read from is on the disk. What it costs is the log and, of the rows,
/// all but tables that fjall has synced: little with fjall, everything with sled.
fn renew(log: &Path, rows: &Path, kind: Kind) -> Result<(), Error> {
    tracing::info!(
        "the node did not end in order: files are written anew, so that what is read of them is on the disk"
    );
    let log = renew::renew(log, raft_engine::is_spare)?;
    let rows = renew::renew(rows, |path| kind == Kind::Fjall && engine::fjall::is_written_once(path))?;
    tracing::info!(
        log_files = log.files,
        log_bytes = log.bytes,
        row_files = rows.files,
        row_bytes = rows.bytes,
        "files are on the disk"
    );
    Ok(())
}

impl Store {
    /// Tells whether somebody else still holds a part of it.
    pub fn is_in_use(&self) -> bool {
        let is_shared = 1 < Arc::strong_count(&self.log) || 1 < Arc::strong_count(&self.background);
        is_shared || 1 < Arc::strong_count(&self.engine) || self.log.is_in_use()
    }

    /// Sets rows aside that were opened and cannot be read, and opens new ones. Nobody else may hold a part of the engine.
    ///
    /// # Errors
    ///
    /// The system refuses.
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
            engine: engine::on_trial(engine, health.clone()),
            log,
            background,
            health,
            dir,
        })
    }

    /// Notes that rows which took the place of damaged ones have come back.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn rows_are_whole(&self) -> Result<(), Error> {
        Ok(self.dir.as_ref().map_or(Ok(()), DataDir::rows_are_whole)?)
    }

    /// Returns which entry the rows of a group must reach that take the place of rows that were set aside.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn reaching(&self) -> Result<Option<(GroupId, u64)>, Error> {
        Ok(self.dir.as_ref().map_or(Ok(None), DataDir::reaching)?)
    }

    /// Returns what tells, whenever it is asked, how long ago the rows were last whole again after they had been set aside;
    /// `None` if that never was.
    pub fn last_rebuild(&self) -> impl Fn() -> Option<Duration> + Send + Sync + use<> {
        let rebuilt = self.dir.as_ref().map(DataDir::rebuilt);
        move || rebuilt.as_deref().and_then(dir::age)
    }

    /// Sets the rows of a node that has failed aside, if that is what they were found to need. What is in memory is not:
    /// nothing of it is damaged. Nobody else may hold a part of the engine.
    ///
    /// # Errors
    ///
    /// The system refuses.
    pub fn give_up_rows(self) -> Result<(), Error> {
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
            set_aside(&dir, &*failure.source, rebuild.reaching)?;
        }
        Ok(())
    }

    /// Ends the use of storage in order: all is synced, and the next start believes what it reads. Returns false if it
    /// cannot say so, because a part is in use or has failed.
    ///
    /// # Errors
    ///
    /// What cannot be synced.
    pub fn close(self) -> Result<bool, Error> {
        // What the engine's own threads have met may not have been told yet.
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
        // The threads of each end with it, and write what they still hold: that may fail as well, and a sync after it
        // would not tell.
        drop((log, engine, background));
        if health.failure().is_some() {
            return Ok(false);
        }
        if let Some(dir) = dir {
            renew::sync(&dir.log())?;
            renew::sync(&dir.rows())?;
            dir.end_clean()?;
        }
        Ok(true)
    }

    /// Tells whether storage was made by this opening: the node remembers nothing, not even its votes.
    pub fn created(&self) -> bool {
        self.dir.as_ref().is_some_and(DataDir::created)
    }
}

#[cfg(test)]
mod tests {

    use bytes::Bytes;
    use stead_types::GroupId;

    use super::*;
    use crate::engine::Change;

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
            store.engine.write(&mut [Change { key, value }].into_iter()).unwrap();
            store.engine.checkpoint().unwrap();
            let (sender, receiver) = std::sync::mpsc::channel();
            log.save_vote(Bytes::from("v"), Box::new(move |done| sender.send(done).unwrap()));
            receiver.recv().unwrap().unwrap();
        }
    }

    fn config(place: Place) -> Config {
        Config {
            cluster: "test".into(),
            node: NodeId::new(1),
            place,
            health: Health::default(),
        }
    }

    #[test]
    fn storage_is_found_again_with_every_engine() {
        for engine in [Kind::Fjall, Kind::Sled] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().to_owned();
            check(&config(Place::Directory { path, engine, log: LOG }));
        }
        check(&config(Place::Memory(Disk::default())));
    }

    #[test]
    fn the_power_goes_off_between_two_operations_and_nothing_is_written_after_it() {
        let disk = Disk::default();
        let store = in_memory(&disk, Health::default());
        let key = |key: &'static str| Bytes::from(key);
        let write = |name| {
            let value = Some(key(name));
            store.engine.write(&mut [Change { key: key(name), value }].into_iter())
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
    fn a_full_disk_takes_writes_again_when_there_is_room_and_it_is_opened() {
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
    fn storage_that_is_closed_in_order_is_not_written_anew() {
        for engine in [Kind::Fjall, Kind::Sled] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().to_owned();
            let config = config(Place::Directory { path, engine, log: LOG });
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
    fn failed_last_sync_of_the_log_is_no_orderly_stop() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let config = config(Place::Directory {
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
        // Nobody waits for it: it is written with what comes next, here with nothing.
        let group = store.log.group(GroupId::DIRECTORY);
        group.save_committed(Bytes::from("c")).unwrap();
        drop(group);
        fault.set(true);
        assert!(!store.close().unwrap());
        assert!(!open(config).unwrap().dir.unwrap().was_clean());
    }

    #[test]
    fn damaged_rows_are_set_aside_and_the_log_stays() {
        for engine in [Kind::Fjall, Kind::Sled] {
            let dir = tempfile::tempdir().unwrap();
            let path = dir.path().to_owned();
            let config = config(Place::Directory { path, engine, log: LOG });
            let store = open(config.clone()).unwrap();
            let log = store.log.group(GroupId::DIRECTORY);
            let (sender, receiver) = std::sync::mpsc::channel();
            log.save_vote(Bytes::from("v"), Box::new(move |done| sender.send(done).unwrap()));
            receiver.recv().unwrap().unwrap();
            drop((store, log));
            renew::renew(&dir.path().join("rows"), |path| {
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
            store.rows_are_whole().unwrap();
            assert!(!dir.path().join("REBUILDING").exists());
        }
    }

    #[test]
    fn what_cannot_be_opened_is_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().to_owned();
        let config = config(Place::Directory {
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
