//! The directory's replica on a voter: the machine that Raft drives, and what views are fed from.
//!
//! The whole state is in memory; its rows follow at checkpoints. Watchers read changes from a short history in memory
//! and wake when the version moves.
//!
//! # Invariants
//!
//! 1. [`DirectoryMachine::changes_since`] a version, applied to a view of that version, gives the view of the version it
//!    returns.
//! 2. Rows and what has been applied become durable together.

#[cfg(test)]
mod directory_test;
mod history;
mod snapshot;

use std::sync::Arc;

use bytes::Bytes;
use history::History;
use stead_state::{
    codec::Entry,
    directory::{Answer as DirectoryAnswer, Change, Command, Directory},
    rows::{Order, Rows, RowsMut, Unreadable, after, directory as rows, kind},
};
use stead_types::{DirectoryVersion, GroupId};
use tokio::sync::watch;

use crate::{
    background::Background,
    engine::Engine,
    group_rows::{GroupRows, HalfChanged, Inner, failed},
    machine::{Answer, Applied, Committed, Failed, Machine, Payload, Snapshot},
};

/// One replica of the directory.
pub struct DirectoryMachine {
    rows: Arc<GroupRows<State>>,
    version: watch::Sender<DirectoryVersion>,
}

struct State {
    directory: Directory,
    history: History,
}

/// What a view lacks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Changes {
    /// What the view has is void: this is everything there is.
    pub is_snapshot: bool,
    /// Encoded [`Change`]s, in their order.
    pub changes: Vec<Bytes>,
    /// What the view reaches with them.
    pub version: DirectoryVersion,
}

impl DirectoryMachine {
    /// Opens the replica whose rows are in an engine; a new one if there are none.
    pub fn open(engine: Arc<dyn Engine>, background: Arc<Background>) -> Result<Self, Failed> {
        let rows = GroupRows::open(engine, background, GroupId::DIRECTORY, |table, _| {
            let directory = rows::load(table).map_err(failed("reading the directory"))?;
            // The rows are as of what was applied to them.
            let history = History::after(directory.view().version().index);
            Ok(State { directory, history })
        })?;
        let (version, _) = watch::channel(rows.read()?.state.directory.view().version());
        Ok(Self { rows, version })
    }

    /// Reads the directory as of what has been applied.
    ///
    /// # Errors
    ///
    /// After an entry failed half way: nothing is read any more, and the node must stop.
    pub fn read<T>(&self, read: impl FnOnce(&Directory) -> T) -> Result<T, HalfChanged> {
        Ok(read(&self.rows.read()?.state.directory))
    }

    /// Returns the version that has been applied, and wakes when it moves.
    pub fn version(&self) -> watch::Receiver<DirectoryVersion> {
        self.version.subscribe()
    }

    /// Returns what a view of this version lacks: about `max` changes of whole entries, or everything there is if the
    /// history does not reach back so far. A view that is ahead of this replica lacks nothing.
    ///
    /// # Errors
    ///
    /// As for [`DirectoryMachine::read`].
    pub fn changes_since(&self, version: DirectoryVersion, max: usize) -> Result<Changes, HalfChanged> {
        let inner = self.rows.read()?;
        let state = &inner.state;
        let now = state.directory.view().version();
        if version.incarnation == now.incarnation {
            if version.index >= now.index {
                return Ok(Changes {
                    is_snapshot: false,
                    changes: Vec::new(),
                    version,
                });
            }
            if let Some((changes, end)) = state.history.since(version.index, max) {
                let index = end.unwrap_or(now.index);
                return Ok(Changes {
                    is_snapshot: false,
                    changes,
                    version: DirectoryVersion { index, ..now },
                });
            }
        }
        Ok(Changes {
            is_snapshot: true,
            changes: state.directory.view().things().map(|thing| thing.encode()).collect(),
            version: now,
        })
    }

    /// Tells watchers which version has been applied, if it is another one.
    fn announce(&self) -> Result<(), HalfChanged> {
        let reached = self.read(|directory| directory.view().version())?;
        self.version.send_if_modified(|version| {
            let is_new = *version != reached;
            *version = reached;
            is_new
        });
        Ok(())
    }
}

fn apply(inner: &mut Inner<State>, committed: Committed) -> Result<Vec<Answer>, Failed> {
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
            let unreadable = "reading an entry of the directory";
            let entry = Entry::parse(commands).map_err(failed(unreadable))?;
            let time = entry.time;
            let commands = entry.decode(committed.index, Command::decode);
            let commands = commands.map_err(failed(unreadable))?;
            // One without commands only writes the time down: no view has to follow.
            if !commands.is_empty() {
                directory.reach(committed.index);
            }
            inner.applied.time = time.max(inner.applied.time);
            for command in commands {
                let applied = directory.apply(time, command);
                rows::write(&mut inner.table, directory, &applied);
                changed.extend(applied.changes.iter().map(Change::encode));
                let answer: DirectoryAnswer = applied.answer;
                answers.push(Box::new(answer) as Answer);
            }
        }
    }
    rows::write_meta(&mut inner.table, directory);
    inner.state.history.push(committed.index, changed);
    inner.applied.index = committed.index;
    inner.applied.log_id = committed.log_id;
    Ok(answers)
}

/// Replaces every row, and what was applied.
fn replace(inner: &mut Inner<State>, directory: Directory, applied: Applied) -> Result<(), Unreadable> {
    let start = [kind::DIRECTORY];
    let old: Result<Vec<Bytes>, Unreadable> = inner
        .table
        .range(&start[..]..&after(&start), Order::Ascending)
        .map(|row| row.map(|(key, _)| key))
        .collect();
    old?.into_iter().for_each(|key| inner.table.delete(key));
    for (key, value) in rows::all(&directory) {
        inner.table.put(key, value);
    }
    inner.state = State {
        history: History::after(applied.index),
        directory,
    };
    inner.applied = applied;
    Ok(())
}

impl Machine for DirectoryMachine {
    fn applied(&self) -> Applied {
        self.rows.applied()
    }

    fn durable(&self) -> Applied {
        self.rows.durable()
    }

    fn apply(&self, entries: Vec<Committed>) -> Result<Vec<Vec<Answer>>, Failed> {
        let mut inner = self.rows.change()?;
        let answers: Result<Vec<Vec<Answer>>, Failed> =
            entries.into_iter().map(|entry| apply(&mut inner, entry)).collect();
        let answers = answers?;
        inner.commit();
        self.announce()?;
        self.rows.checkpoint_if_due()?;
        Ok(answers)
    }

    fn checkpoint(&self) -> Result<(), Failed> {
        self.rows.checkpoint()
    }

    fn snapshot(&self) -> Result<Snapshot, Failed> {
        let inner = self.rows.read()?;
        Ok(Snapshot {
            applied: inner.applied.clone(),
            chunks: snapshot::pack(&inner.state.directory),
        })
    }

    fn install(&self, snapshot: Snapshot) -> Result<(), Failed> {
        let directory = snapshot::unpack(snapshot.chunks)?;
        let mut inner = self.rows.change()?;
        let replaced = replace(&mut inner, directory, snapshot.applied);
        replaced.map_err(failed("replacing the directory by a snapshot"))?;
        inner.commit();
        self.announce()?;
        self.rows.checkpoint()
    }
}
