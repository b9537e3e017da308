//! Replication tasks of a node's groups: those that run on every voter, and those that run on the leader only.

use std::{convert::Infallible, sync::Arc};

use futures::future::BoxFuture;
use stead_api::{net::Connect, peer_codec::PeerAlarms};
use stead_raft::{Leadership, TypedGroup};
use stead_store::{sent_log::SentLog, shard::ShardMachine};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;

use crate::{
    acknowledgements::Acknowledgements,
    completed_pulls::Pulls,
    directory_view::SharedDirectoryView,
    epochs_seen::EpochsSeen,
    expiry,
    feed_clients::FeedClients,
    follower,
    freshness::Freshness,
    freshness_poll,
    group_context::{GroupContext, LeaseLeft, RoomCheck, WallClock},
    heirs::Heirs,
    lease_loss,
    outgoing_seeds::OutgoingSeeds,
    pull,
    reconcile::{self, DirectoryAccess},
    remote_log,
    remote_watermark::RemoteWatermark,
    retention::{self, RetentionLimits},
    seed_observer,
    seed_progress::SeedLimits,
    service::{self, FeedRegistry, Service},
    traffic::TrafficCounters,
};

/// Dependencies of a node's replication.
#[derive(Clone)]
pub struct Dependencies {
    /// The node's directory view.
    pub directory_view: SharedDirectoryView,
    /// Dials other nodes.
    pub connect: Connect,
    /// Access to the directory.
    pub directory: DirectoryAccess,
    /// Bounds of the history that homes keep.
    pub limits: RetentionLimits,
    /// Bounds of the seeds that homes send.
    pub seeds: SeedLimits,
    /// Counters of messages from other nodes that were damaged or invalid.
    pub alarms: PeerAlarms,
    /// Time that the node's lease still lasts.
    pub lease_left: LeaseLeft,
    /// Epochs that feed sessions have shown.
    pub epochs_seen: EpochsSeen,
    /// Wall clock, in milliseconds since 1970.
    pub wall: WallClock,
    /// Room on the disks of a group's voters.
    pub room: RoomCheck,
    /// Durable ledger of what the node sends, for residency evidence.
    pub sent: Arc<SentLog>,
}

/// Replication of a node: its feed service, and the tasks of each of its groups.
pub struct Replication {
    dependencies: Dependencies,
    registry: Arc<FeedRegistry>,
    feed_clients: Arc<FeedClients>,
    counters: Arc<TrafficCounters>,
}

impl Replication {
    /// Returns the replication of a node without groups.
    pub fn new(dependencies: Dependencies) -> Self {
        Self {
            feed_clients: Arc::new(FeedClients::new(
                dependencies.directory_view.clone(),
                dependencies.connect.clone(),
            )),
            registry: Arc::default(),
            counters: Arc::default(),
            dependencies,
        }
    }

    /// Returns the service to mount for other nodes.
    pub fn service(&self) -> Service {
        service::service(self.registry.clone())
    }

    /// Returns the counters of bytes that were sent to other regions.
    pub fn counters(&self) -> &Arc<TrafficCounters> {
        &self.counters
    }

    /// Returns the ledger of what the node sends.
    pub fn sent(&self) -> &Arc<SentLog> {
        &self.dependencies.sent
    }

    /// Adds a group; its tasks start with [`GroupTasks::run`].
    pub fn group(&self, group: TypedGroup<ShardMachine>, machine: Arc<ShardMachine>) -> GroupTasks {
        let directory_view = self.dependencies.directory_view.clone();
        let freshness = Freshness::new(group.id(), group.incarnation(), machine.clone(), directory_view.clone());
        let freshness = Arc::new(freshness);
        let acknowledgements = Arc::<Acknowledgements>::default();
        let handovers = watch::Sender::new(());
        let remote = Arc::new(RemoteWatermark::new(
            group.clone(),
            machine.clone(),
            directory_view.clone(),
            acknowledgements.clone(),
            handovers.clone(),
        ));
        let context = Arc::new(GroupContext {
            group,
            machine,
            directory_view,
            counters: self.counters.clone(),
            sent: self.dependencies.sent.clone(),
            acknowledgements,
            freshness,
            alarms: self.dependencies.alarms.clone(),
            lease_left: self.dependencies.lease_left.clone(),
            epochs_seen: self.dependencies.epochs_seen.clone(),
            wall: self.dependencies.wall.clone(),
            room: self.dependencies.room.clone(),
            heirs: Heirs::default(),
            seeds: Arc::new(OutgoingSeeds::new(self.dependencies.seeds)),
            pulls: Pulls::default(),
            handovers,
            taken_over: watch::Sender::new(()),
        });
        self.registry.add(&context);
        GroupTasks {
            context,
            remote,
            feed_clients: self.feed_clients.clone(),
            dependencies: self.dependencies.clone(),
        }
    }
}

/// The tasks of one group on one node.
#[derive(Clone)]
pub struct GroupTasks {
    context: Arc<GroupContext>,
    remote: Arc<RemoteWatermark>,
    feed_clients: Arc<FeedClients>,
    dependencies: Dependencies,
}

impl GroupTasks {
    /// Returns the freshness of the group's copies on this node, for readers.
    pub fn freshness(&self) -> Arc<Freshness> {
        self.context.freshness.clone()
    }

    /// Returns the acknowledgements of followers, current while this node leads.
    pub fn acknowledgements(&self) -> Arc<Acknowledgements> {
        self.context.acknowledgements.clone()
    }

    /// Returns the remote watermark of the tenants that the group owns, current while this node leads.
    pub fn remote(&self) -> Arc<RemoteWatermark> {
        self.remote.clone()
    }

    /// Returns the seeds that the group sends, current while this node leads.
    pub fn seeds(&self) -> Arc<OutgoingSeeds> {
        self.context.seeds.clone()
    }

    /// Runs the group's tasks until the token fires. While this node leads, they follow homes, reconcile, remove
    /// expired keys and move the retention floor; otherwise they poll the leader for freshness. Storage that cannot be
    /// read stops the node.
    pub async fn run(self, stop: CancellationToken) -> Result<(), Infallible> {
        let mut leadership = self.context.group.watch_leader();
        loop {
            let (is_here, term) = {
                let known = leadership.borrow_and_update();
                (known.is_here, known.term)
            };
            self.context.seeds.clear();
            let work: BoxFuture<'_, ()> = if is_here {
                self.context.acknowledgements.start_term(term);
                Box::pin(self.lead())
            } else {
                Box::pin(freshness_poll::run(&self.context, &self.feed_clients))
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
        let (context, dependencies) = (&self.context, &self.dependencies);
        tokio::join!(
            reconcile::run(context.clone(), dependencies.directory.clone()),
            follower::follow(context.clone(), self.feed_clients.clone()),
            retention::run(context.clone(), dependencies.limits),
            expiry::run(context.clone()),
            seed_observer::run(context.clone()),
            pull::run(context.clone(), self.feed_clients.clone()),
            lease_loss::run(context.clone()),
            remote_log::run(context.clone(), self.remote.clone()),
        );
    }
}
