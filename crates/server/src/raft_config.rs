//! Configuration of a node's Raft groups.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc, time::Duration};

use stead_raft::BlockingMode;
use stead_replication::SharedDirectoryView;
use stead_store::Store;
use stead_types::NodeId;

use crate::{config::ValidatedConfig, environment::Environment};

/// Least time between two rebuilds of rows: rows that differ again so soon would differ after another rebuild too.
const REBUILD_INTERVAL_MIN: Duration = Duration::from_secs(3600);

/// Returns the configuration; addresses of nodes are those of the view, and of the configuration until it has them.
pub(crate) fn of(
    config: &ValidatedConfig,
    environment: &Environment,
    store: &Store,
    directory_view: &SharedDirectoryView,
) -> stead_raft::Config {
    let first: BTreeMap<NodeId, String> = config
        .members
        .iter()
        .map(|member| (member.id, member.peer.clone()))
        .collect();
    let directory_view = directory_view.clone();
    let resolve = move |node: NodeId| {
        let known = directory_view.read(|view| view.node(node).map(|node| node.addresses.peer.clone()));
        known
            .filter(|address| !address.is_empty())
            .or_else(|| first.get(&node).cloned())
    };
    let time_since_rebuild = store.time_since_rebuild();
    let spool: Option<PathBuf> = store.dir.as_ref().map(|_| config.data_dir.join("snapshots"));
    stead_raft::Config {
        node: config.node.id,
        log: store.log.clone(),
        connect: environment.connect.clone(),
        resolve: Arc::new(resolve),
        clocks: environment.clocks.clone(),
        blocking: if environment.threads {
            BlockingMode::Pool
        } else {
            BlockingMode::Inline
        },
        spool,
        limits: environment.retention.log,
        may_rebuild: Arc::new(move || time_since_rebuild().is_none_or(|time| time > REBUILD_INTERVAL_MIN)),
    }
}
