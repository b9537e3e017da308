//! Directory machine: a voter's replica of the directory, which Raft drives and directory views follow.
//!
//! The whole state is in memory; its rows are written at checkpoints. Watchers read changes from a short history in
//! memory and wake when the version changes.
//!
//! # Invariants
//!
//! 1. [`DirectoryMachine::changes_since`] a version, applied to a view of that version, gives the view of the version
//!    it returns.
//! 2. Rows and the applied state become durable together.

#[cfg(test)]
mod directory_test;
mod history;
mod snapshot;

use std::sync::Arc;

use bytes::Bytes;
use history::ChangeHistory;
use stead_state::{
    codec::Entry,
    directory::{Command, Directory, DirectoryChange, DirectoryResult},
    rows::{Order, Rows, RowsMut, Unreadable, directory as rows, kind, prefix_end},
};
use stead_types::{DirectoryVersion, GroupId};
use tokio::sync::watch;

use crate::{
    background::Background,
    engine::Engine,
    group_rows::{GroupRows, IncompleteChange, Inner, failed},
    machine::{AppliedState, CommittedEntry, Machine, MachineError, Payload, Snapshot},
};

/// Replica of the directory.
pub struct DirectoryMachine {
    rows: Arc<GroupRows<State>>,
    version: watch::Sender<DirectoryVersion>,
}

struct State {
    directory: Directory,
    history: ChangeHistory,
}

/// Changes that bring a directory view to a version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryChanges {
    /// The changes are a snapshot that replaces the view.
    pub is_snapshot: bool,
    /// Encoded [`DirectoryChange`]s, in their order.
    pub changes: Vec<Bytes>,
    /// The version of the view after them.
    pub version: DirectoryVersion,
}

/// Directory at one logged time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectoryAt {
    /// The directory.
    pub directory: Directory,
    /// The logged time, in milliseconds since 1970.
    pub time: u64,
}

impl DirectoryMachine {
    /// Opens the replica whose rows are in an engine; an empty one if there are none.
    pub fn open(engine: Arc<dyn Engine>, background: Arc<Background>) -> Result<Self, MachineError> {
        let rows = GroupRows::open(engine, background, GroupId::DIRECTORY, |table, _| {
            let directory = rows::load(table).map_err(failed("reading the directory"))?;
            // The rows are as of the last checkpoint.
            let history = ChangeHistory::after(directory.view().version().index);
            Ok(State { directory, history })
        })?;
        let (version, _) = watch::channel(rows.read()?.state.directory.view().version());
        Ok(Self { rows, version })
    }

    /// Reads the directory as of the last applied entry.
    ///
    /// # Errors
    ///
    /// After an incomplete change: nothing is read any more, and the node must stop.
    pub fn read<T>(&self, read: impl FnOnce(&Directory) -> T) -> Result<T, IncompleteChange> {
        Ok(read(&self.rows.read()?.state.directory))
    }

    /// Returns a watch of the applied version.
    pub fn version(&self) -> watch::Receiver<DirectoryVersion> {
        self.version.subscribe()
    }

    /// Returns the changes that a view of this version lacks: about `max` changes of whole entries, or a snapshot if
    /// the history does not reach back so far. A view that is ahead of this replica lacks nothing.
    ///
    /// # Errors
    ///
    /// As for [`DirectoryMachine::read`].
    pub fn changes_since(&self, version: DirectoryVersion, max: usize) -> Result<DirectoryChanges, IncompleteChange> {
        let inner = self.rows.read()?;
        let state = &inner.state;
        let now = state.directory.view().version();
        if version.incarnation == now.incarnation {
            if version.index >= now.index {
                return Ok(DirectoryChanges {
                    is_snapshot: false,
                    changes: Vec::new(),
                    version,
                });
            }
            if let Some((changes, end)) = state.history.since(version.index, max) {
                let index = end.unwrap_or(now.index);
                return Ok(DirectoryChanges {
                    is_snapshot: false,
                    changes,
                    version: DirectoryVersion { index, ..now },
                });
            }
        }
        Ok(DirectoryChanges {
            is_snapshot: true,
            changes: state
                .directory
                .view()
                .as_changes()
                .map(|change| change.encode())
                .collect(),
            version: now,
        })
    }

    /// Returns the directory as it is after further entries; the replica stays as it is.
    ///
    /// # Errors
    ///
    /// As for [`DirectoryMachine::read`], and for an entry that is out of order or cannot be decoded.
    pub fn after(&self, entries: Vec<CommittedEntry>) -> Result<DirectoryAt, MachineError> {
        let inner = self.rows.read()?;
        let mut applied = inner.applied.clone();
        let mut directory = inner.state.directory.clone();
        for entry in entries {
            applied.check_next(entry.index)?;
            applied.index = entry.index;
            let (time, commands) = match entry.payload {
                Payload::Blank | Payload::Membership(_) => (0, None),
                Payload::Commands(commands) => {
                    let (time, commands) = decode(entry.index, commands)?;
                    (time, Some(commands))
                }
            };
            applied.time = applied.time.max(time);
            // An entry without commands only records the logged time.
            if commands.as_ref().is_none_or(|commands| !commands.is_empty()) {
                directory.reach(entry.index);
            }
            for command in commands.into_iter().flatten() {
                directory.apply(time, command);
            }
        }
        Ok(DirectoryAt {
            directory,
            time: applied.time,
        })
    }

    /// Replaces the replica by a new incarnation of the directory, before the first entry of its log, and returns when
    /// that is durable.
    ///
    /// # Errors
    ///
    /// The rows cannot be read or written.
    pub fn begin_incarnation(&self, begins: DirectoryAt) -> Result<(), MachineError> {
        let applied = AppliedState {
            time: begins.time,
            ..AppliedState::default()
        };
        let mut inner = self.rows.change()?;
        let replaced = replace(&mut inner, begins.directory, applied);
        replaced.map_err(failed("beginning an incarnation of the directory"))?;
        inner.commit();
        self.announce()?;
        self.rows.checkpoint()
    }

    /// Notifies watchers of the applied version, if it has changed.
    fn announce(&self) -> Result<(), IncompleteChange> {
        let reached = self.read(|directory| directory.view().version())?;
        self.version.send_if_modified(|version| {
            let is_new = *version != reached;
            *version = reached;
            is_new
        });
        Ok(())
    }
}

fn apply(inner: &mut Inner<State>, committed: CommittedEntry) -> Result<Vec<DirectoryResult>, MachineError> {
    inner.applied.check_next(committed.index)?;
    let directory = &mut inner.state.directory;
    let (mut answers, mut changed) = (Vec::new(), Vec::new());
    match committed.payload {
        Payload::Blank => directory.reach(committed.index),
        Payload::Membership(membership) => {
            directory.reach(committed.index);
            inner.applied.membership = membership;
        }
        Payload::Commands(commands) => {
            let (time, commands) = decode(committed.index, commands)?;
            // An entry without commands only records the logged time: no view has to follow.
            if !commands.is_empty() {
                directory.reach(committed.index);
            }
            inner.applied.time = time.max(inner.applied.time);
            for command in commands {
                let applied = directory.apply(time, command);
                rows::write(&mut inner.table, directory, &applied);
                changed.extend(applied.changes.iter().map(DirectoryChange::encode));
                answers.push(applied.result);
            }
        }
    }
    rows::write_meta(&mut inner.table, directory);
    inner.state.history.push(committed.index, changed);
    inner.applied.index = committed.index;
    inner.applied.log_id = committed.log_id;
    Ok(answers)
}

/// Decodes the logged time and the commands of an entry.
fn decode(index: u64, entry: Bytes) -> Result<(u64, Vec<Command>), MachineError> {
    let unreadable = "decoding an entry of the directory";
    let entry = Entry::parse(entry).map_err(failed(unreadable))?;
    let time = entry.time;
    let commands = entry.decode(index, Command::decode).map_err(failed(unreadable))?;
    Ok((time, commands))
}

/// Replaces every row, the state and the applied state.
fn replace(inner: &mut Inner<State>, directory: Directory, applied: AppliedState) -> Result<(), Unreadable> {
    let start = [kind::DIRECTORY];
    let old: Result<Vec<Bytes>, Unreadable> = inner
        .table
        .range(&start[..]..&prefix_end(&start), Order::Ascending)
        .map(|row| row.map(|(key, _)| key))
        .collect();
    old?.into_iter().for_each(|key| inner.table.delete(key));
    for (key, value) in rows::all(&directory) {
        inner.table.put(key, value);
    }
    inner.state = State {
        history: ChangeHistory::after(applied.index),
        directory,
    };
    inner.applied = applied;
    Ok(())
}

impl Machine for DirectoryMachine {
    type CommandResult = DirectoryResult;

    fn applied(&self) -> AppliedState {
        self.rows.applied()
    }

    fn durable(&self) -> AppliedState {
        self.rows.durable()
    }

    fn apply(&self, entries: Vec<CommittedEntry>) -> Result<Vec<Vec<DirectoryResult>>, MachineError> {
        let mut inner = self.rows.change()?;
        let answers: Result<Vec<Vec<DirectoryResult>>, MachineError> =
            entries.into_iter().map(|entry| apply(&mut inner, entry)).collect();
        let answers = answers?;
        inner.commit();
        self.announce()?;
        self.rows.checkpoint_if_due()?;
        Ok(answers)
    }

    fn checkpoint(&self) -> Result<(), MachineError> {
        self.rows.checkpoint()
    }

    fn has_checkpoint_room(&self) -> bool {
        self.rows.has_checkpoint_room()
    }

    fn snapshot(&self) -> Result<Snapshot, MachineError> {
        let inner = self.rows.read()?;
        Ok(Snapshot {
            applied: inner.applied.clone(),
            chunks: snapshot::pack(&inner.state.directory),
        })
    }

    fn install(&self, snapshot: Snapshot) -> Result<(), MachineError> {
        let directory = snapshot::unpack(snapshot.chunks)?;
        let mut inner = self.rows.change()?;
        let replaced = replace(&mut inner, directory, snapshot.applied);
        replaced.map_err(failed("installing a snapshot of the directory"))?;
        inner.commit();
        self.announce()?;
        self.rows.checkpoint()
    }
}
