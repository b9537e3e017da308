//! Life of a node: open, bind, build, spawn, wait, drain.

mod error;

use std::{collections::BTreeMap, sync::Arc, task::Poll, time::Duration};

use stead_raft::Clocks;
use stead_replication::{
    Dependencies, DirectoryAccess, EpochsSeen, GroupTasks, Replication, RetentionLimits, SharedDirectoryView,
};
use stead_state::directory::{Addresses, InitialCluster, InitialNode};
use stead_store::{Disk, Store, directory_view::DirectoryViewRows, shard::ShardMachine};
use stead_types::NodeId;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    admin_peers::AdminPeers,
    auth,
    config::ValidatedConfig,
    connections::{BoundListeners, ConnectionLimits},
    directory::{DirectoryClient, LocalVoter, ViewUpdater},
    directory_maintenance,
    disk::{self, DiskRoom},
    environment::Environment,
    host::{self, Host, HostedGroup, HostedGroups, Readiness, ReadinessSubjects},
    hosted_groups, http,
    identity::{self, Claim},
    join,
    lease::NodeLeases,
    lease_tasks::{lease_left, spawn_renewal},
    lease_transfer, listener,
    metrics::Metrics,
    raft_config, sent_reports,
    services::{
        self, DataServices,
        admin::{readiness_check, region_loss_check},
    },
    storage::{self, StoredState},
    storage_threads,
    supervisor::Supervisor,
    tls::NodeTls,
    voter_changes,
};

pub use self::error::Error;

/// Longest time for forwarded operations to end when the node stops. Other nodes' streams of Raft and of the feed
/// never end by themselves: they are closed then, and opened anew when the node is back.
const PEER_GRACE_MAX: Duration = Duration::from_secs(1);

/// Most checks at a stop whether the storage is still in use, and the pause between them.
const CLOSE_CHECKS_MAX: u32 = 100;
const CLOSE_CHECK_INTERVAL: Duration = Duration::from_millis(20);

/// Reason for which a run of a node has ended in order.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RunEnd {
    /// The token has fired.
    Stopped,
    /// The node votes in other groups from here on: it is to be run again.
    GroupsChanged,
}

/// Function that is called once. Boxed, so that the code of a node is compiled here, with this crate's optimisation, and not
/// in each binary that runs nodes.
pub type ReadyCallback<'a> = Box<dyn FnOnce() + Send + 'a>;

/// Runs a node until the token fires, its groups change or something fails. `ready` is called once everything is bound and
/// started.
///
/// # Errors
///
/// The reason why it could not start, or why it stopped by itself.
pub async fn run(
    config: ValidatedConfig,
    environment: Environment,
    disk: Option<Disk>,
    stop: CancellationToken,
    ready: ReadyCallback<'_>,
) -> Result<RunEnd, Error> {
    let health = environment.health.clone();
    let tls = NodeTls::load(&config)?;
    let (store, stored) = storage::open_storage(&config, disk, &health)?;
    join::record_start(&config.data_dir).map_err(Box::new)?;
    let tls = tls.with_view(stored.directory_view.clone());
    let environment = tls.over(environment);
    let raft = stead_raft::Node::new(raft_config::of(&config, &environment, &store, &stored.directory_view));
    let mut supervisor = Supervisor::new(CancellationToken::new(), health.clone());
    let shutdown_timeout = config.shutdown_timeout;
    let resources = NodeResources {
        store: &store,
        raft: &raft,
        supervisor: &mut supervisor,
        tls,
    };
    let result = resources.run(config, &environment, stored, &stop, ready).await;
    supervisor.finish(shutdown_timeout).await;
    raft.shutdown().await;
    drop(raft);
    wait_until_unused(&store).await;
    // Rows may be found damaged at any time, also while a start applies the log to them.
    if let Err(failure) = health.check() {
        store.set_aside_failed_rows()?;
        return Err(failure.into());
    }
    let end = result?;
    close(store)?;
    Ok(end)
}

/// Resources that outlive the work of a node, however that ends.
struct NodeResources<'a> {
    store: &'a Store,
    raft: &'a stead_raft::Node,
    supervisor: &'a mut Supervisor,
    tls: NodeTls,
}

impl NodeResources<'_> {
    /// Starts the node and works until the token fires or something fails.
    async fn run(
        self,
        config: ValidatedConfig,
        environment: &Environment,
        stored: StoredState,
        stop: &CancellationToken,
        ready: ReadyCallback<'_>,
    ) -> Result<RunEnd, Error> {
        let Self {
            store,
            raft,
            supervisor,
            tls,
        } = self;
        let health = &environment.health;
        let limits = ConnectionLimits::of(environment.resources.descriptors_max)?;
        let bound = BoundListeners::bind(&config, environment).await?;
        let claim = Claim {
            node: config.node.id,
            process: identity::process_number(environment),
            version: stored.directory_view.version(),
        };
        let former = identity::former_address(&config, &stored.directory_view);
        identity::check(&claim, &former, &environment.connect).await?;
        let hosted = stored.hosted.clone();
        let bound = {
            let mut restoring = Box::pin(stored.restore(raft, store));
            if let Poll::Ready(restored) = futures::poll!(&mut restoring) {
                restored?;
                bound
            } else {
                // Restoring rows may take long. The listeners are closed meanwhile, so that callers are refused and go
                // to another node.
                drop(bound);
                tokio::select! {
                    restored = restoring => restored?,
                    failure = health.wait_for_failure() => return Err(failure.into()),
                    () = stop.cancelled() => return Ok(RunEnd::Stopped),
                }
                BoundListeners::bind(&config, environment).await?
            }
        };
        let parts = NodeParts::build(config, environment, store, raft.clone(), stored, tls, supervisor).await?;
        parts.serve(bound, limits, supervisor);
        if environment.threads {
            let (engine, background) = (store.engine.clone(), store.background.clone());
            supervisor.spawn("storage threads", |stop| {
                storage_threads::check_threads(engine, background, stop)
            });
        }
        info!(node = %parts.host.config.node.id, region = %parts.host.config.node.region, "started");
        ready();
        let end = tokio::select! {
            _failure = health.wait_for_failure() => return Ok(RunEnd::Stopped),
            () = supervisor.run() => return Ok(RunEnd::Stopped),
            changed = hosted_groups::wait_for_change(&parts.host, &hosted) => {
                changed?;
                info!("this node votes in other groups from here on: it starts again with them");
                RunEnd::GroupsChanged
            }
            () = stop.cancelled() => RunEnd::Stopped,
        };
        tokio::select! {
            () = host::drain(&parts.host, &parts.raft) => {}
            // Operations that arrive meanwhile are forwarded, over links whose tasks may have to be started first.
            () = supervisor.run() => {}
            _failure = health.wait_for_failure() => {}
        }
        Ok(end)
    }
}

/// Waits until nothing else uses the node's storage any more, for a bounded time.
async fn wait_until_unused(store: &Store) {
    for _ in 0..CLOSE_CHECKS_MAX {
        if store.dir.is_none() || !store.is_in_use() {
            return;
        }
        sleep(CLOSE_CHECK_INTERVAL).await;
    }
}

/// Records on disk that the node stopped in order.
fn close(store: Store) -> Result<(), Error> {
    if store.dir.is_some() && !store.close()? {
        warn!("storage not closed, it is in use or has failed: the next start treats this stop as unclean");
    }
    Ok(())
}

/// The parts of a node, built and not yet serving.
struct NodeParts {
    host: Arc<Host>,
    raft: stead_raft::Node,
    data_services: DataServices,
    feed: Vec<GroupTasks>,
    feed_service: stead_replication::Service,
}

/// Spawns the tasks of every node, and those of a voter of the directory.
fn spawn_tasks(host: &Arc<Host>, initial: InitialCluster, view_rows: DirectoryViewRows, supervisor: &mut Supervisor) {
    spawn_renewal(host, supervisor);
    lease_transfer::spawn(host, supervisor);
    disk::spawn(host, supervisor);
    auth::spawn(host, supervisor);
    voter_changes::spawn(host, supervisor);
    hosted_groups::spawn_address_update(host, supervisor);
    let updater = ViewUpdater::new(
        host.directory.clone(),
        host.directory_view.clone(),
        view_rows,
        host.peer_alarms.clone(),
        host.config.node.id,
    );
    supervisor.spawn("directory view", |stop| updater.run(stop));
    if host.directory.local_voter().is_some() {
        spawn_directory_tasks(host, initial, supervisor);
    }
}

/// Spawns the tasks of a voter of the directory.
fn spawn_directory_tasks(host: &Arc<Host>, initial: InitialCluster, supervisor: &mut Supervisor) {
    let (wall, metrics) = (host.wall.clone(), host.metrics.clone());
    let upkeep = directory_maintenance::DirectoryMaintenance::new(host.directory.clone(), initial, wall, metrics);
    supervisor.spawn("directory upkeep", |stop| upkeep.run(stop));
    let checked = host.clone();
    supervisor.spawn("readiness", |stop| readiness_check::run(checked, stop));
    let watched = host.clone();
    supervisor.spawn("silent regions", |stop| region_loss_check::run(watched, stop));
}

/// Returns the limits of history that is kept for followers, watches and reads at a revision.
fn retention_limits(config: &ValidatedConfig, environment: &Environment) -> RetentionLimits {
    RetentionLimits {
        len_max: config.history_bytes_max,
        age_max: config.history_age_max,
        ..environment.retention.history
    }
}

impl NodeParts {
    async fn build(
        config: ValidatedConfig,
        environment: &Environment,
        store: &Store,
        raft: stead_raft::Node,
        stored: StoredState,
        tls: NodeTls,
        supervisor: &mut Supervisor,
    ) -> Result<Self, Error> {
        let (directory_view, view_rows) = (stored.directory_view.clone(), stored.directory_view_rows.clone());
        let voters = stored.directory_voters.clone();
        let (local_voter, groups) = open_groups(&raft, stored, environment.clocks.clone()).await?;
        let directory = Arc::new(directory(&config, &voters, &directory_view, local_voter, environment)?);
        let leases = NodeLeases::new(environment.clocks.clone());
        let epochs_seen = EpochsSeen::default();
        let disk_room = Arc::new(DiskRoom::new(config.node.id, config.disk_reserve));
        let replication = Replication::new(Dependencies {
            directory_view: directory_view.clone(),
            connect: environment.connect.clone(),
            directory: to_directory(&directory),
            limits: retention_limits(&config, environment),
            seeds: config.seeds,
            alarms: raft.alarms(),
            lease_left: lease_left(&leases, &directory_view),
            epochs_seen: epochs_seen.clone(),
            wall: environment.clocks.wall.clone(),
            room: disk_room.as_check(),
            sent: sent_reports::open_log(store, &config, environment).map_err(Error::SentLog)?,
        });
        let (hosted, feed) = host_groups(&replication, groups);
        let (engine, log) = (store.engine.clone(), store.log.clone());
        let readiness = Readiness::new(ReadinessSubjects {
            config: &config,
            resources: environment.resources,
            health: &environment.health,
            directory_view: &directory_view,
            directory: &directory,
            groups: &hosted,
            leases: &leases,
        });
        tls.start(&readiness.node, environment.clocks.wall.clone(), supervisor);
        let metrics = Arc::new(Metrics::of(&config.node, tls.metrics.clone()));
        let host = Arc::new(Host {
            auth: auth::authenticator(&config, &directory_view, &environment.clocks.wall, &metrics)?,
            metrics,
            tls,
            traffic: replication.counters().clone(),
            peer_alarms: raft.alarms(),
            answers: Arc::default(),
            directory_view: directory_view.clone(),
            directory,
            groups: Arc::new(hosted),
            leases,
            epochs_seen,
            admin_peers: AdminPeers::new(environment.connect.clone()),
            readiness,
            wall: environment.clocks.wall.clone(),
            started_ms: (environment.clocks.wall)(),
            health: environment.health.clone(),
            disk_len: Box::new(move || engine.disk_len()),
            log_sync_latency: Box::new(move || log.sync_latency()),
            disk_room,
            resources: environment.resources,
            voter_changes: voter_changes::VoterChangeWaits::default(),
            process: identity::process_number(environment),
            config,
        });
        spawn_tasks(&host, initial_cluster(&host.config), view_rows, supervisor);
        sent_reports::spawn(&host, replication.sent().clone(), supervisor);
        let data_services = DataServices::new(&host, environment.connect.clone(), &supervisor.spawner());
        Ok(Self {
            host,
            raft,
            data_services,
            feed,
            feed_service: replication.service(),
        })
    }

    /// Spawns the listeners and the groups' tasks.
    fn serve(&self, bound: BoundListeners, limits: ConnectionLimits, supervisor: &mut Supervisor) {
        for tasks in &self.feed {
            let tasks = tasks.clone();
            supervisor.spawn("group", |stop| tasks.run(stop));
        }
        let (links, groups) = (self.data_services.links.clone(), self.host.groups.clone());
        supervisor.spawn("links", |stop| links.keep_open(groups, stop));
        let grace = self.host.config.shutdown_timeout / 2;
        let stop = supervisor.stop_token();
        let client = services::client_router(&self.host, &self.data_services, &stop);
        let peers = services::PeerServices {
            raft: self.raft.service(),
            feed: self.feed_service.clone(),
        };
        let peer = services::peer_router(&self.host, &self.data_services, peers, &stop);
        let peer_grace = grace.min(PEER_GRACE_MAX);
        let http = http::router(self.host.clone());
        let [client, peer, http] = bound.listeners(&self.host.tls, limits, [client, peer, http]);
        supervisor.spawn("client listener", |stop| listener::serve(client, stop, grace));
        supervisor.spawn("peer listener", |stop| listener::serve(peer, stop, peer_grace));
        supervisor.spawn("HTTP listener", |stop| listener::serve(http, stop, grace));
    }
}

/// Returns the groups of a node as its services see them, and their replication tasks.
fn host_groups(replication: &Replication, groups: Vec<DataGroup>) -> (HostedGroups, Vec<GroupTasks>) {
    let mut hosted = BTreeMap::new();
    let mut feed = Vec::new();
    for (group, machine) in groups {
        let tasks = replication.group(group.clone(), machine.clone());
        let (freshness, seeds, remote) = (tasks.freshness(), tasks.seeds(), tasks.remote());
        hosted.insert(
            group.id(),
            HostedGroup {
                raft: group,
                machine,
                freshness,
                seeds,
                remote,
            },
        );
        feed.push(tasks);
    }
    (hosted, feed)
}

/// Returns the access of the groups' reconcilers to the directory.
fn to_directory(directory: &Arc<DirectoryClient>) -> DirectoryAccess {
    let (reader, proposer) = (directory.clone(), directory.clone());
    DirectoryAccess {
        read_version: Arc::new(move || {
            let directory = reader.clone();
            Box::pin(async move { directory.version().await.ok() })
        }),
        submit: Arc::new(move |command| {
            let directory = proposer.clone();
            Box::pin(async move { directory.propose(&command).await.is_ok() })
        }),
    }
}

/// Returns the initial cluster that the configuration describes.
pub(crate) fn initial_cluster(config: &ValidatedConfig) -> InitialCluster {
    let node = |member: &crate::config::NodeConfig| InitialNode {
        name: member.name.clone(),
        region: member.region.clone(),
        addresses: Addresses {
            client: member.client.clone(),
            peer: member.peer.clone(),
            http: member.http.clone(),
        },
        witness: member.witness,
    };
    InitialCluster {
        cluster: config.cluster.clone(),
        regions: config.regions.clone(),
        nodes: config.members.iter().map(node).collect(),
        groups_per_region: config.groups_per_region,
    }
}

/// A data group and its state machine.
type DataGroup = (stead_raft::TypedGroup<ShardMachine>, Arc<ShardMachine>);

/// Opens the groups in which this node votes.
async fn open_groups(
    raft: &stead_raft::Node,
    stored: StoredState,
    clocks: Clocks,
) -> Result<(Option<LocalVoter>, Vec<DataGroup>), Error> {
    let local_voter = match stored.directory {
        None => None,
        Some((group, machine)) => {
            let group = raft.create_group(group, machine.clone()).await?;
            Some(LocalVoter::new(group, machine, clocks))
        }
    };
    let mut groups = Vec::new();
    for (group, machine) in stored.data {
        groups.push((raft.create_group(group, machine.clone()).await?, machine));
    }
    Ok((local_voter, groups))
}

fn directory(
    config: &ValidatedConfig,
    voters: &[NodeId],
    directory_view: &SharedDirectoryView,
    local_voter: Option<LocalVoter>,
    environment: &Environment,
) -> Result<DirectoryClient, Error> {
    let address = |voter: NodeId| {
        let configured = config.members.iter().find(|member| member.id == voter);
        let stored = || directory_view.read(|view| view.node(voter).map(|node| node.addresses.peer.clone()));
        configured.map(|member| member.peer.clone()).or_else(stored)
    };
    let others = voters.iter().filter(|voter| **voter != config.node.id);
    let others: Vec<(NodeId, String)> = others.filter_map(|voter| Some((*voter, address(*voter)?))).collect();
    DirectoryClient::new(local_voter, &others, &environment.connect).map_err(Error::Address)
}
