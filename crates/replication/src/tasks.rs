//! What runs for each group of a node, and what of it only on the group's leader.

use std::{convert::Infallible, sync::Arc};

use futures::future::BoxFuture;
use stead_api::{net::Connect, peer_codec::PeerAlarms};
use stead_raft::{Group, Leadership};
use stead_store::shard::ShardMachine;
use tokio_util::sync::CancellationToken;

use crate::{
    Views,
    counters::Counters,
    expiry,
    floor::{self, Limits},
    follower,
    freshness::Freshness,
    local::Local,
    peers::Peers,
    reconcile::{self, ToDirectory},
    relay,
    service::{self, Registry, Service},
    source::acknowledged::Acknowledged,
};

/// What a node's groups share.
#[derive(Clone)]
pub struct Shared {
    /// The node's view of the directory.
    pub views: Views,
    /// How peers are dialled.
    pub connect: Connect,
    /// How the directory is asked and told.
    pub directory: ToDirectory,
    /// How much of the past homes keep.
    pub limits: Limits,
    /// What counts messages of other nodes that could not be taken.
    pub alarms: PeerAlarms,
}

/// Replication of a node: its service, and the tasks of each of its groups.
pub struct Replication {
    shared: Shared,
    registry: Arc<Registry>,
    peers: Arc<Peers>,
    counters: Arc<Counters>,
}

impl Replication {
    /// Returns a node's replication, without groups.
    pub fn new(shared: Shared) -> Self {
        Self {
            peers: Arc::new(Peers::new(shared.views.clone(), shared.connect.clone())),
            registry: Arc::default(),
            counters: Arc::default(),
            shared,
        }
    }

    /// Returns the service to mount for other nodes.
    pub fn service(&self) -> Service {
        service::service(self.registry.clone())
    }

    /// Returns the bytes that have been sent over borders.
    pub fn counters(&self) -> &Arc<Counters> {
        &self.counters
    }

    /// Adds a group; its tasks do their work once they are run.
    pub fn group(&self, group: Group, machine: Arc<ShardMachine>) -> GroupTasks {
        let views = self.shared.views.clone();
        let name = (group.id(), group.incarnation());
        let freshness = Arc::new(Freshness::new(name, machine.clone(), views.clone()));
        let local = Arc::new(Local {
            group,
            machine,
            views,
            counters: self.counters.clone(),
            acknowledged: Arc::default(),
            freshness,
            alarms: self.shared.alarms.clone(),
        });
        self.registry.add(&local);
        GroupTasks {
            local,
            peers: self.peers.clone(),
            shared: self.shared.clone(),
        }
    }
}

/// The tasks of one group on one node.
#[derive(Clone)]
pub struct GroupTasks {
    local: Arc<Local>,
    peers: Arc<Peers>,
    shared: Shared,
}

impl GroupTasks {
    /// Returns how fresh the group's copies are here, for readers.
    pub fn freshness(&self) -> Arc<Freshness> {
        self.local.freshness.clone()
    }

    /// Returns what followers have acknowledged, while this node leads.
    pub fn acknowledged(&self) -> Arc<Acknowledged> {
        self.local.acknowledged.clone()
    }

    /// Runs until the token fires. While this node leads it follows, reconciles, removes expired keys and moves the
    /// floor; while it does not it asks the leader how fresh the copies are.
    /// Storage that cannot be read stops the node.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut leadership = self.local.group.watch_leader();
        loop {
            let (is_here, term) = {
                let known = leadership.borrow_and_update();
                (known.is_here, known.term)
            };
            let work: BoxFuture<'_, ()> = if is_here {
                self.local.acknowledged.leads(term);
                Box::pin(self.lead())
            } else {
                Box::pin(relay::relay(&self.local, &self.peers))
            };
            let other = |now: &Leadership| now.is_here != is_here || (is_here && now.term != term);
            let is_over = async { leadership.wait_for(other).await.is_err() };
            tokio::select! {
                () = stop.cancelled() => return Ok(()),
                () = work => {}
                is_over = is_over => {
                    if is_over {
                        stop.cancelled().await;
                        return Ok(());
                    }
                }
            }
        }
    }

    async fn lead(&self) {
        let (local, shared) = (&self.local, &self.shared);
        tokio::join!(
            reconcile::keep(local.clone(), shared.directory.clone()),
            follower::follow(local.clone(), self.peers.clone()),
            floor::keep(local.clone(), shared.limits),
            expiry::keep(local.clone()),
        );
    }
}
