//! What a node finds in its storage when it starts, and what it does where rows are damaged or gone.
//!
//! ```text
//!   log, vote ── whole ──> rows open and are read? ──no──> set aside, new ones ──> from the log, or from other voters
//! ```

use std::sync::Arc;

use stead_raft::{GroupConfig, Timing};
use stead_replication::Views;
use stead_state::directory::{Group, Initial};
use stead_store::{
    Config as StoreConfig, Disk, Place, Store,
    directory::DirectoryMachine,
    engine::{Kind, is_damage},
    health::Health,
    log::raft_engine,
    machine::Machine,
    shard::ShardMachine,
    view::ViewRows,
};
use stead_types::GroupId;

use crate::{
    config::Checked,
    node::{Error, initial},
};

/// Sizes of the Raft log's files, in bytes.
const LOG: raft_engine::Options = raft_engine::Options {
    file_len: 8 << 20,
    purge_len: 32 << 20,
    prefill_len: 32 << 20,
};

/// Opens the storage and reads what stands in its rows. Rows whose files are damaged are set aside: what they held is in the
/// log, or another voter has it. What the system would not read is left as it is: it may be whole.
pub(crate) fn open_storage(config: &Checked, disk: Option<Disk>, health: &Health) -> Result<(Store, Rows), Error> {
    read_rows(config, open_store(config, disk, health)?)
}

fn read_rows(config: &Checked, store: Store) -> Result<(Store, Rows), Error> {
    let (store, rows) = match Rows::open(config, &store) {
        Err(Error::Unreadable(error)) if store.dir.is_some() && is_damage(&*error) => {
            let store = store.set_rows_aside(&*error)?;
            let rows = Rows::open(config, &store)?;
            (store, rows)
        }
        rows => (store, rows?),
    };
    store.engine.opened();
    Ok((store, rows))
}

/// What the rows of a node hold: its view of the directory, and the machines of its groups.
pub(crate) struct Rows {
    pub(crate) view: ViewRows,
    pub(crate) views: Views,
    /// The directory's, on its voters.
    pub(crate) directory: Option<(GroupConfig, Arc<DirectoryMachine>)>,
    /// Those of the data groups in which this node votes: of the view, or, on a new node, of the configuration.
    pub(crate) data: Vec<(GroupConfig, Arc<ShardMachine>)>,
}

impl Rows {
    fn open(config: &Checked, store: &Store) -> Result<Self, Error> {
        let initial = initial(config);
        let view = ViewRows::new(store.engine.clone());
        let views = Views::new(view.load().map_err(|error| Error::Unreadable(error.into()))?);
        let known: Vec<Group> = views.read(|view| view.groups().cloned().collect());
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
            view,
            views,
            directory,
            data,
        })
    }

    /// Brings back from other voters what rows that were set aside have held.
    pub(crate) async fn restore(&self, raft: &stead_raft::Node, store: &Store) -> Result<(), Error> {
        let directory = self.directory.iter();
        let directory = directory.map(|(group, machine)| (group, machine.clone() as Arc<dyn Machine>));
        let data = self.data.iter();
        let data = data.map(|(group, machine)| (group, machine.clone() as Arc<dyn Machine>));
        let reaching = store.reaching()?;
        let all = directory.chain(data).map(|(group, machine)| {
            let reaching = reaching.filter(|(of, _)| *of == group.group).map(|(_, index)| index);
            raft.restore(group, machine, reaching)
        });
        futures::future::try_join_all(all).await?;
        Ok(store.rows_are_whole()?)
    }
}

fn open_store(config: &Checked, disk: Option<Disk>, health: &Health) -> Result<Store, Error> {
    let kind: Kind = config.engine.parse().unwrap_or(Kind::Fjall);
    let place = match disk {
        Some(disk) => Place::Memory(disk),
        None => Place::Directory {
            path: config.data_dir.clone(),
            engine: kind,
            log: LOG,
        },
    };
    Ok(stead_store::open(StoreConfig {
        cluster: config.cluster.clone(),
        node: config.node.id,
        place,
        health: health.clone(),
    })?)
}

/// The directory's group, if this node votes in it.
fn directory_group(config: &Checked, initial: &Initial) -> Option<GroupConfig> {
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
    use stead_store::engine::{Change, Engine};

    use super::*;
    use crate::config::Config;

    /// An engine that opens, and whose rows cannot be read.
    struct Unread(fn() -> io::Error);

    impl Unread {
        fn error(&self) -> Unreadable {
            Unreadable(Box::new(self.0()))
        }
    }

    impl Engine for Unread {
        fn kind(&self) -> Kind {
            Kind::Fjall
        }

        fn get(&self, _key: &[u8]) -> Result<Option<Bytes>, Unreadable> {
            Err(self.error())
        }

        fn range<'a>(&'a self, _range: Range<&[u8]>, _order: Order) -> Box<dyn Iterator<Item = Row> + 'a> {
            Box::new(std::iter::once(Err(self.error())))
        }

        fn write(&self, _batch: &mut dyn Iterator<Item = Change>) -> io::Result<()> {
            Err(self.0())
        }

        fn checkpoint(&self) -> io::Result<()> {
            Ok(())
        }

        fn disk_len(&self) -> u64 {
            0
        }
    }

    fn config(data_dir: &std::path::Path) -> Checked {
        let text = format!(
            "[cluster]\nregions = [{{ name = \"here\", jurisdiction = \"EU\" }}]\n\
             initial = [{{ name = \"one\", region = \"here\", peer = \"127.0.0.1:1\", client = \"127.0.0.1:2\", \
             http = \"127.0.0.1:3\" }}]\n[node]\nname = \"one\"\ndata_dir = \"{}\"\n",
            data_dir.display()
        );
        Config::load(&text, std::iter::empty()).unwrap().check().unwrap()
    }

    #[test]
    fn rows_are_set_aside_for_damage_and_not_for_what_the_system_refuses() {
        let refusal: fn() -> io::Error = || io::Error::from_raw_os_error(24);
        let damage: fn() -> io::Error = || io::Error::other("checksum mismatch");
        for (error, is_damage) in [(refusal, false), (damage, true)] {
            let dir = tempfile::tempdir().unwrap();
            let config = config(dir.path());
            let mut store = open_store(&config, None, &Health::default()).unwrap();
            store.engine = Arc::new(Unread(error));
            assert_eq!(read_rows(&config, store).is_ok(), is_damage);
            assert_eq!(dir.path().join("rows.damaged-1").exists(), is_damage);
            assert!(dir.path().join("rows").exists());
        }
    }
}
