//! Storage of a node at start: opening it, and replacing rows that are damaged or missing.
//!
//! ```text
//!   log, vote ── whole ──> rows open, readable? ──no──> set aside, new rows ──> from the log, or from other voters
//! ```

use std::sync::Arc;

use stead_raft::{GroupConfig, Timing};
use stead_replication::SharedDirectoryView;
use stead_state::directory::{Group, InitialCluster};
use stead_store::{
    Config as StoreConfig, Disk, StorageLocation, Store,
    directory::DirectoryMachine,
    directory_view::DirectoryViewRows,
    engine::{Kind, is_damage},
    health::Health,
    log::raft_engine,
    machine::Machine,
    shard::ShardMachine,
};
use stead_types::GroupId;

use crate::{
    config::ValidatedConfig,
    node::{Error, initial_cluster},
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
    read_rows(config, open_store(config, disk, health)?)
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
    /// The directory's group and state machine, on its voters.
    pub(crate) directory: Option<(GroupConfig, Arc<DirectoryMachine>)>,
    /// Groups and state machines of the data groups in which this node votes: from the view, or, on a new node, from
    /// the configuration.
    pub(crate) data: Vec<(GroupConfig, Arc<ShardMachine>)>,
}

impl StoredState {
    fn open(config: &ValidatedConfig, store: &Store) -> Result<Self, Error> {
        let initial = initial_cluster(config);
        let directory_view_rows = DirectoryViewRows::new(store.engine.clone());
        let directory_view = SharedDirectoryView::new(
            directory_view_rows
                .load()
                .map_err(|error| Error::Unreadable(error.into()))?,
        );
        let known: Vec<Group> = directory_view.read(|view| view.groups().cloned().collect());
        let known = if known.is_empty() { initial.groups() } else { known };
        let mine = known
            .into_iter()
            .filter(|group| group.region.is_some() && group.voters.contains(&config.node.id));
        let mut data = Vec::new();
        for group in mine {
            let machine = ShardMachine::open(store.engine.clone(), store.background.clone(), group.number);
            let machine = Arc::new(machine.map_err(|error| Error::Unreadable(error.into()))?);
            let group = GroupConfig {
                group: group.number,
                incarnation: group.incarnation,
                voters: group.voters,
                timing: Timing::Region,
            };
            data.push((group, machine));
        }
        let directory = match directory_group(config, &initial) {
            None => None,
            Some(group) => {
                let machine = DirectoryMachine::open(store.engine.clone(), store.background.clone());
                let machine = machine.map_err(|error| Error::Unreadable(error.into()))?;
                Some((group, Arc::new(machine)))
            }
        };
        Ok(Self {
            directory_view_rows,
            directory_view,
            directory,
            data,
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
            raft.restore(group, machine, min_index)
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

/// Returns the directory's group, if this node votes in it.
fn directory_group(config: &ValidatedConfig, initial: &InitialCluster) -> Option<GroupConfig> {
    let voters = initial.directory_voters();
    if !voters.contains(&config.node.id) {
        return None;
    }
    let regions: std::collections::BTreeSet<_> = config
        .members
        .iter()
        .filter(|member| voters.contains(&member.id))
        .map(|member| &member.region)
        .collect();
    let rtt_ms_max = u32::try_from(config.directory_rtt_max.as_millis()).unwrap_or(u32::MAX);
    let timing = if regions.len() > 1 {
        Timing::Wide { rtt_ms_max }
    } else {
        Timing::Region
    };
    Some(GroupConfig {
        group: GroupId::DIRECTORY,
        incarnation: stead_types::Incarnation::FIRST,
        voters,
        timing,
    })
}

#[cfg(test)]
mod tests {
    use std::{io, ops::Range};

    use bytes::Bytes;
    use stead_state::rows::{Order, Row, Unreadable};
    use stead_store::engine::{Engine, RowChange};

    use super::*;
    use crate::config::Config;

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

    fn config(data_dir: &std::path::Path) -> ValidatedConfig {
        let text = format!(
            "[cluster]\nregions = [{{ name = \"here\", jurisdiction = \"EU\" }}]\n\
             initial = [{{ name = \"one\", region = \"here\", peer = \"127.0.0.1:1\", client = \"127.0.0.1:2\", \
             http = \"127.0.0.1:3\" }}]\n[node]\nname = \"one\"\ndata_dir = \"{}\"\n",
            data_dir.display()
        );
        Config::load(&text, std::iter::empty()).unwrap().validate().unwrap()
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
