//! Storage of a node at start: opening it, and replacing rows that are damaged or missing.
//!
//! ```text
//!   log, vote ── whole ──> rows open, readable? ──no──> set aside, new rows ──> from the log, or from other voters
//! ```

use std::{collections::BTreeMap, sync::Arc};

use stead_raft::{GroupConfig, Timing};
use stead_replication::SharedDirectoryView;
use stead_state::directory::Group;
use stead_store::{
    Config as StoreConfig, Disk, StorageLocation, Store,
    directory::DirectoryMachine,
    directory_view::DirectoryViewRows,
    engine::{Kind, is_damage},
    group_rows,
    health::Health,
    log::raft_engine,
    machine::Machine,
    shard::ShardMachine,
};
use stead_types::{GroupId, Incarnation, NodeId};
use tracing::info;

use crate::{
    config::ValidatedConfig,
    hosted_groups::{HostedSet, first_groups},
    node::Error,
};

/// Sizes of the Raft log's files, in bytes.
const LOG: raft_engine::Options = raft_engine::Options {
    file_len: 8 << 20,
    purge_len: 32 << 20,
    prefill_len: 32 << 20,
};

/// Opens the storage and reads its rows. Rows whose files are damaged are set aside: their content is in the log, or
/// another voter has it. Rows that the system failed to read are left as they are: they may be intact.
pub(crate) fn open_storage(
    config: &ValidatedConfig,
    disk: Option<Disk>,
    health: &Health,
) -> Result<(Store, StoredState), Error> {
    let store = open_store(config, disk, health)?;
    if let Some(incarnation) = store.recovery()? {
        return Err(Error::RecoveryInterrupted(incarnation));
    }
    read_rows(config, store)
}

/// Opens the storage for a recovery of the directory, also if one was interrupted.
pub(crate) fn open_for_recovery(config: &ValidatedConfig, health: &Health) -> Result<(Store, StoredState), Error> {
    let store = open_store(config, None, health)?;
    let stored = StoredState::open(config, &store)?;
    Ok((store, stored))
}

fn read_rows(config: &ValidatedConfig, store: Store) -> Result<(Store, StoredState), Error> {
    let (store, stored) = match StoredState::open(config, &store) {
        Err(Error::Unreadable(error)) if store.dir.is_some() && is_damage(&*error) => {
            let store = store.set_rows_aside(&*error)?;
            let stored = StoredState::open(config, &store)?;
            (store, stored)
        }
        stored => (store, stored?),
    };
    store.engine.mark_opened();
    Ok((store, stored))
}

/// State read from the rows of a node: its directory view and the state machines of its groups.
pub(crate) struct StoredState {
    pub(crate) directory_view_rows: DirectoryViewRows,
    pub(crate) directory_view: SharedDirectoryView,
    /// Voters of the directory, this node included if it is one: as the view says, or, on a new node, the configuration.
    pub(crate) directory_voters: Vec<NodeId>,
    /// The directory's group and state machine, on its voters.
    pub(crate) directory: Option<(GroupConfig, Arc<DirectoryMachine>)>,
    /// Groups and state machines of the data groups in which this node votes: from the view, or, on a new node, from
    /// the configuration.
    pub(crate) data: Vec<(GroupConfig, Arc<ShardMachine>)>,
    /// The groups that are opened.
    pub(crate) hosted: HostedSet,
    /// Nodes from which rows of each group can be restored.
    sources: BTreeMap<GroupId, Vec<NodeId>>,
}

impl StoredState {
    fn open(config: &ValidatedConfig, store: &Store) -> Result<Self, Error> {
        let directory_view_rows = DirectoryViewRows::new(store.engine.clone());
        let view = directory_view_rows.load();
        let view = view.map_err(|error| Error::Unreadable(error.into()))?;
        let hosted = HostedSet::of(config, &view);
        let directory_view = SharedDirectoryView::new(view);
        erase_left_groups(config, store, &directory_view)?;
        // A group that is opened for the first time is in the view on the disk from then on.
        let logs = store.log.groups();
        let is_new = |group: GroupId| !logs.contains(&group);
        let has_view = directory_view.read(|view| view.groups().next().is_some());
        if has_view && hosted.groups().any(is_new) {
            store
                .engine
                .checkpoint()
                .map_err(|error| Error::Unreadable(error.into()))?;
        }
        let known: Vec<Group> = directory_view.read(|view| view.groups().cloned().collect());
        let known = if known.is_empty() { first_groups(config) } else { known };
        let directory = known.iter().find(|group| group.number == GroupId::DIRECTORY);
        let directory_voters = directory.map(|group| group.voters.clone()).unwrap_or_default();
        let incarnation = directory.map_or(Incarnation::FIRST, |group| group.incarnation);
        let sources = known.iter().map(|group| (group.number, group.voters.clone())).collect();
        let mut data = Vec::new();
        for group in known
            .iter()
            .filter(|group| group.region.is_some() && group.is_on(config.node.id))
        {
            let machine = ShardMachine::open(store.engine.clone(), store.background.clone(), group.number);
            let machine = Arc::new(machine.map_err(|error| Error::Unreadable(error.into()))?);
            data.push((group_config(config, group, Timing::Region), machine));
        }
        let own = directory.filter(|group| group.is_on(config.node.id));
        let directory = match own.map(|group| group_config(config, group, hosted.directory_timing())) {
            None => None,
            Some(group) => {
                if incarnation > Incarnation::FIRST {
                    info!(
                        incarnation = incarnation.0,
                        "the directory was recovered from a lost majority"
                    );
                }
                let machine = DirectoryMachine::open(store.engine.clone(), store.background.clone());
                let machine = machine.map_err(|error| Error::Unreadable(error.into()))?;
                Some((group, Arc::new(machine)))
            }
        };
        Ok(Self {
            directory_view_rows,
            directory_view,
            directory_voters,
            directory,
            data,
            hosted,
            sources,
        })
    }

    /// Restores from other voters the rows that were set aside.
    pub(crate) async fn restore(&self, raft: &stead_raft::Node, store: &Store) -> Result<(), Error> {
        let directory = self.directory.iter();
        let directory = directory.map(|(group, machine)| (group, machine.clone() as Arc<dyn Machine>));
        let data = self.data.iter();
        let data = data.map(|(group, machine)| (group, machine.clone() as Arc<dyn Machine>));
        let target = store.rebuild_target()?;
        let all = directory.chain(data).map(|(group, machine)| {
            let min_index = target.filter(|(of, _)| *of == group.group).map(|(_, index)| index);
            let voters = self.sources.get(&group.group).cloned().unwrap_or_default();
            let group = GroupConfig {
                voters,
                ..group.clone()
            };
            async move { raft.restore(&group, machine, min_index).await }
        });
        futures::future::try_join_all(all).await?;
        Ok(store.finish_rebuild()?)
    }
}

fn open_store(config: &ValidatedConfig, disk: Option<Disk>, health: &Health) -> Result<Store, Error> {
    let kind: Kind = config.engine.parse().unwrap_or(Kind::Fjall);
    let location = match disk {
        Some(disk) => StorageLocation::Memory(disk),
        None => StorageLocation::Directory {
            path: config.data_dir.clone(),
            engine: kind,
            log: LOG,
        },
    };
    Ok(stead_store::open(StoreConfig {
        cluster: config.cluster.clone(),
        node: config.node.id,
        location,
        health: health.clone(),
    })?)
}

/// Erases rows and logs of groups that this node has left, by its view: a log that nobody extends would keep the log's files
/// for ever. The view on the disk has a group before the group is opened, so that one that is not in it was left.
fn erase_left_groups(config: &ValidatedConfig, store: &Store, view: &SharedDirectoryView) -> Result<(), Error> {
    let is_left = |group: &GroupId| {
        view.read(|view| {
            let has_groups = view.groups().next().is_some();
            has_groups && view.group(*group).is_none_or(|group| !group.is_on(config.node.id))
        })
    };
    for group in store.log.groups().into_iter().filter(is_left) {
        info!(%group, "this node votes in the group no more: its rows and its log are erased");
        group_rows::erase(&*store.engine, group).map_err(|error| Error::Unreadable(error.into()))?;
        // A failure is the log's, which reports it.
        store.log.erase(group, Box::new(drop));
    }
    Ok(())
}

/// Returns the configuration of a group on this node: one that votes begins with the others, one that will vote is added by
/// its leader.
fn group_config(config: &ValidatedConfig, group: &Group, timing: Timing) -> GroupConfig {
    let votes = group.voters.contains(&config.node.id);
    GroupConfig {
        group: group.number,
        incarnation: group.incarnation,
        voters: if votes { group.voters.clone() } else { Vec::new() },
        timing,
    }
}

#[cfg(test)]
mod tests {
    use std::{io, ops::Range};

    use bytes::Bytes;
    use stead_state::{
        directory::DirectoryChange,
        rows::{Order, Row, Unreadable},
    };
    use stead_store::engine::{Engine, RowChange};
    use stead_types::{DirectoryVersion, Incarnation};

    use super::*;
    use crate::{config::Config, node::initial_cluster};

    /// Engine whose rows cannot be read.
    struct UnreadableEngine(fn() -> io::Error);

    impl UnreadableEngine {
        fn error(&self) -> Unreadable {
            Unreadable(Box::new(self.0()))
        }
    }

    impl Engine for UnreadableEngine {
        fn kind(&self) -> Kind {
            Kind::Fjall
        }

        fn get(&self, _key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
            Err(self.error())
        }

        fn range<'a>(&'a self, _range: Range<&[u8]>, _order: Order) -> Box<dyn Iterator<Item = Row> + 'a> {
            Box::new(std::iter::once(Err(self.error())))
        }

        fn write(&self, _batch: &mut dyn Iterator<Item = RowChange>) -> io::Result<()> {
            Err(self.0())
        }

        fn checkpoint(&self) -> io::Result<()> {
            Ok(())
        }

        fn disk_len(&self) -> u64 {
            0
        }
    }

    /// Returns the configuration of the last of these nodes, each in a region of the list.
    fn config_of(data_dir: &std::path::Path, name: &str, regions: &[&str]) -> ValidatedConfig {
        let mut text = String::from("[cluster]\nregions = [");
        for (name, jurisdiction) in [("here", "EU"), ("there", "US")] {
            if regions.contains(&name) {
                text += &format!("{{ name = \"{name}\", jurisdiction = \"{jurisdiction}\" }}, ");
            }
        }
        text += "]\ninitial = [\n";
        for (at, region) in regions.iter().enumerate() {
            text += &format!("{{ name = \"n{at}\", region = \"{region}\", ");
            let address = |kind: usize| format!("\"127.0.0.1:{}\"", 1 + 3 * at + kind);
            text += &format!(
                "peer = {}, client = {}, http = {} }},\n",
                address(0),
                address(1),
                address(2)
            );
        }
        text += &format!("]\n[node]\nname = \"{name}\"\ndata_dir = \"{}\"\n", data_dir.display());
        Config::load(&text, std::iter::empty()).unwrap().validate().unwrap()
    }

    fn config(data_dir: &std::path::Path) -> ValidatedConfig {
        config_of(data_dir, "n0", &["here"])
    }

    /// A node more at the end of the list would make other nodes the voters of a new cluster.
    #[test]
    fn directory_voters_stay_as_stored_when_the_file_is_edited() {
        let dir = tempfile::tempdir().unwrap();
        let before = config_of(dir.path(), "n2", &["here", "here", "here"]);
        let after = config_of(dir.path(), "n2", &["here", "here", "here", "there"]);
        let (one, two, three) = (NodeId::new(1), NodeId::new(2), NodeId::new(3));
        assert!(!initial_cluster(&after).directory_voters().contains(&three));
        let store = open_store(&before, None, &Health::default()).unwrap();
        let voters = |config| {
            let stored = StoredState::open(config, &store).unwrap();
            (stored.directory_voters, stored.directory.map(|(group, _)| group.voters))
        };
        let stored = vec![one, two, three];
        assert_eq!(voters(&before), (stored.clone(), Some(stored.clone())));
        let groups = initial_cluster(&before).groups().into_iter();
        let changes: Vec<DirectoryChange> = groups.map(DirectoryChange::Group).collect();
        let rows = DirectoryViewRows::new(store.engine.clone());
        let version = DirectoryVersion {
            incarnation: Incarnation::FIRST,
            index: 1,
        };
        rows.write(true, &changes, version).unwrap();
        assert_eq!(voters(&after), (stored.clone(), Some(stored)));
    }

    #[test]
    fn damaged_rows_are_set_aside_and_system_errors_returned() {
        let system_error: fn() -> io::Error = || io::Error::from_raw_os_error(24);
        let damage: fn() -> io::Error = || io::Error::other("checksum mismatch");
        for (error, is_damage) in [(system_error, false), (damage, true)] {
            let dir = tempfile::tempdir().unwrap();
            let config = config(dir.path());
            let mut store = open_store(&config, None, &Health::default()).unwrap();
            store.engine = Arc::new(UnreadableEngine(error));
            assert_eq!(read_rows(&config, store).is_ok(), is_damage);
            assert_eq!(dir.path().join("rows.damaged-1").exists(), is_damage);
            assert!(dir.path().join("rows").exists());
        }
    }
}
