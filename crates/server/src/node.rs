//! A node from start to end: open, bind, build, spawn, wait, drain.

use std::{
    collections::BTreeMap,
    convert::Infallible,
    io,
    path::PathBuf,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::Poll,
    time::Duration,
};

use stead_raft::Blocking;
use stead_replication::{GroupTasks, Limits, Replication, Shared, ToDirectory, Views};
use stead_state::directory::{Addresses, Initial, InitialNode};
use stead_store::{
    Disk, Store, background::Background, engine::Engine, group_rows::failed, health::Failure, shard::ShardMachine,
};
use stead_types::NodeId;
use tokio::time::sleep;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    bootstrap,
    config::Checked,
    directory::{Directory, Seat, ViewFollower},
    environment::{Environment, Incoming},
    health::Checks,
    host::{Host, Hosted},
    http, listener,
    metrics::Metrics,
    neighbours::Neighbours,
    rows::{self, Rows},
    services::{self, Serving},
    supervisor::Supervisor,
};

/// How long leadership may take to be handed over when the node stops.
const HAND_OVER_MAX: Duration = Duration::from_secs(2);

/// How long forwarded operations may take to end when the node stops. Other nodes' streams of Raft and of the feed never
/// end by themselves: they are cut then, and opened anew when the node is back.
const PEER_GRACE_MAX: Duration = Duration::from_secs(1);

/// How often it is looked whether the engine's own threads go on.
const THREADS_INTERVAL: Duration = Duration::from_secs(5);
const CHECKING: &str = "checking the engine's threads";

/// How often, at a stop, it is looked whether the last use of the storage has ended, and after what time each.
const CLOSE_LOOKS_MAX: u32 = 100;
const CLOSE_LOOK_EVERY: Duration = Duration::from_millis(20);

/// Rows that differ from other voters' so soon after they were rebuilt would differ again.
const REBUILD_INTERVAL_MIN: Duration = Duration::from_secs(3600);

/// Why a node ended, or did not start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The storage cannot be used.
    #[error(transparent)]
    Store(#[from] stead_store::Error),
    /// A row could not be read at start.
    #[error("the storage could not be read")]
    Unreadable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// An address could not be bound.
    #[error("cannot listen on {address}, the node's {what} address: is another process using it?")]
    Bind {
        /// Which listener.
        what: &'static str,
        /// Its address.
        address: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// An address in the configuration is none.
    #[error("an address of cluster.initial cannot be dialled")]
    Address(#[source] io::Error),
    /// A group could not be opened.
    #[error(transparent)]
    Group(#[from] stead_raft::OpenError),
    /// Storage, a group or a task failed while the node ran.
    #[error("the node stopped itself")]
    Failed(#[from] Failure),
}

/// Runs a node until the token fires or something fails. `ready` is called once everything is bound and started.
///
/// # Errors
///
/// Why it could not start, or why it stopped by itself.
pub async fn run(
    config: Checked,
    environment: Environment,
    disk: Option<Disk>,
    stop: CancellationToken,
    ready: impl FnOnce() + Send,
) -> Result<(), Error> {
    let health = environment.health.clone();
    let (store, rows) = rows::open_storage(&config, disk, &health)?;
    let raft = stead_raft::Node::new(raft_config(&config, &environment, &store, &rows.views));
    let mut supervisor = Supervisor::new(CancellationToken::new(), health.clone());
    let patience = config.shutdown_timeout;
    let parts = Parts {
        store: &store,
        raft: &raft,
        supervisor: &mut supervisor,
    };
    let ended = parts.run(config, &environment, rows, &stop, ready).await;
    supervisor.finish(patience).await;
    raft.shutdown().await;
    drop(raft);
    until_unused(&store).await;
    // Rows may be found damaged at any time: also while a start applies to them what the log has.
    if let Err(failure) = health.check() {
        store.give_up_rows()?;
        return Err(failure.into());
    }
    ended?;
    close(store)
}

/// What outlives a node's work, however that ends.
struct Parts<'a> {
    store: &'a Store,
    raft: &'a stead_raft::Node,
    supervisor: &'a mut Supervisor,
}

impl Parts<'_> {
    /// Starts the node and works until the token fires or something fails.
    async fn run(
        self,
        config: Checked,
        environment: &Environment,
        rows: Rows,
        stop: &CancellationToken,
        ready: impl FnOnce() + Send,
    ) -> Result<(), Error> {
        let Self {
            store,
            raft,
            supervisor,
        } = self;
        let health = &environment.health;
        let bound = Bound::bind(&config, environment).await?;
        let bound = {
            let mut restoring = Box::pin(rows.restore(raft, store));
            if let Poll::Ready(restored) = futures::poll!(&mut restoring) {
                restored?;
                bound
            } else {
                // Rows that are gone may take long to come. Whoever calls meanwhile is refused, and goes elsewhere.
                drop(bound);
                tokio::select! {
                    restored = restoring => restored?,
                    failure = health.failed() => return Err(failure.into()),
                    () = stop.cancelled() => return Ok(()),
                }
                Bound::bind(&config, environment).await?
            }
        };
        let built = Built::build(config, environment, store, raft.clone(), rows, supervisor).await?;
        built.serve(bound, supervisor);
        if environment.threads {
            let (engine, background) = (store.engine.clone(), store.background.clone());
            supervisor.spawn("storage threads", |stop| check_threads(engine, background, stop));
        }
        info!(node = %built.host.config.node.id, region = %built.host.config.node.region, "started");
        ready();
        tokio::select! {
            _failure = health.failed() => {}
            () = supervisor.watch() => {}
            () = stop.cancelled() => tokio::select! {
                () = built.host.drain(&built.raft) => {}
                // What arrives meanwhile is handed on, over links that may have to be started first.
                () = supervisor.watch() => {}
                _failure = health.failed() => {}
            },
        }
        Ok(())
    }
}

/// Waits until nobody else uses a node's storage any more, for a short time at most.
async fn until_unused(store: &Store) {
    for _ in 0..CLOSE_LOOKS_MAX {
        if store.dir.is_none() || !store.is_in_use() {
            return;
        }
        sleep(CLOSE_LOOK_EVERY).await;
    }
}

/// Says on the disk that the node ended in order.
fn close(store: Store) -> Result<(), Error> {
    if store.dir.is_some() && !store.close()? {
        warn!("the storage is in use or has failed: the next start does not count this as an orderly stop");
    }
    Ok(())
}

/// Listeners, bound before any work begins.
struct Bound {
    client: Incoming,
    peer: Incoming,
    http: Incoming,
}

impl Bound {
    async fn bind(config: &Checked, environment: &Environment) -> Result<Self, Error> {
        let bind = async |what, address: &str| {
            let bound = (environment.bind)(address.to_owned()).await;
            bound.map_err(|source| Error::Bind {
                what,
                address: address.to_owned(),
                source,
            })
        };
        Ok(Self {
            client: bind("client", &config.client.listen).await?,
            peer: bind("peer", &config.peer.listen).await?,
            http: bind("HTTP", &config.http.listen).await?,
        })
    }
}

/// A node whose parts are there.
struct Built {
    host: Arc<Host>,
    raft: stead_raft::Node,
    serving: Serving,
    feed: Vec<GroupTasks>,
    feed_service: stead_replication::Service,
}

impl Built {
    async fn build(
        config: Checked,
        environment: &Environment,
        store: &Store,
        raft: stead_raft::Node,
        rows: Rows,
        supervisor: &mut Supervisor,
    ) -> Result<Self, Error> {
        let initial = initial(&config);
        let views = rows.views.clone();
        let view_rows = rows.view.clone();
        let (seat, groups) = open_groups(&raft, rows).await?;
        let directory = Arc::new(directory(&config, &initial, seat, environment)?);
        let replication = Replication::new(Shared {
            views: views.clone(),
            connect: environment.connect.clone(),
            directory: to_directory(&directory),
            limits: Limits {
                len_max: config.history_bytes_max,
                age_max: config.history_age_max,
                ..environment.upkeep.history
            },
            alarms: raft.alarms(),
        });
        let mut hosted = BTreeMap::new();
        let mut feed = Vec::new();
        for (group, machine) in groups {
            let tasks = replication.group(group.clone(), machine.clone());
            let freshness = tasks.freshness();
            hosted.insert(
                group.id(),
                Hosted {
                    raft: group,
                    machine,
                    freshness,
                },
            );
            feed.push(tasks);
        }
        let engine = store.engine.clone();
        let disk_len = Box::new(move || engine.disk_len());
        let host = Arc::new(Host {
            counts: Metrics::of(&config.node),
            borders: replication.counters().clone(),
            peer_alarms: raft.alarms(),
            views: views.clone(),
            directory: directory.clone(),
            groups: hosted,
            neighbours: Neighbours::new(environment.connect.clone()),
            ready: Checks::default(),
            region_ready: Checks::default(),
            started: (environment.clocks.wall)(),
            health: environment.health.clone(),
            draining: AtomicBool::new(false),
            disk_len,
            config,
        });
        host.add_checks();
        let follower = ViewFollower::new(directory.clone(), views, view_rows, raft.alarms());
        supervisor.spawn("directory view", |stop| follower.run(stop));
        if directory.seat().is_some() {
            let task = bootstrap::Bootstrap::new(directory, initial);
            supervisor.spawn("directory upkeep", |stop| task.run(stop));
        }
        let serving = Serving::new(&host, environment.connect.clone(), &supervisor.spawner());
        Ok(Self {
            host,
            raft,
            serving,
            feed,
            feed_service: replication.service(),
        })
    }

    /// Spawns the listeners and the groups' tasks.
    fn serve(&self, bound: Bound, supervisor: &mut Supervisor) {
        for tasks in &self.feed {
            let tasks = tasks.clone();
            supervisor.spawn("group", |stop| tasks.run(stop));
        }
        let router = self.serving.router.clone();
        supervisor.spawn("links", |stop| router.keep_warm(stop));
        let grace = self.host.config.shutdown_timeout / 2;
        let stop = supervisor.stop_token();
        let client = services::client_router(&self.host, &self.serving, &stop);
        supervisor.spawn("client listener", |stop| {
            listener::serve(bound.client, client, stop, grace)
        });
        let peers = services::Peers {
            raft: self.raft.service(),
            feed: self.feed_service.clone(),
        };
        let peer = services::peer_router(&self.host, &self.serving, peers, &stop);
        let peer_grace = grace.min(PEER_GRACE_MAX);
        supervisor.spawn("peer listener", |stop| {
            listener::serve(bound.peer, peer, stop, peer_grace)
        });
        let http = http::router(self.host.clone());
        supervisor.spawn("HTTP listener", |stop| listener::serve(bound.http, http, stop, grace));
    }
}

impl Host {
    /// Takes no more work and hands leadership over, so that a planned stop is no failure to anybody.
    pub(crate) async fn drain(&self, raft: &stead_raft::Node) {
        self.draining.store(true, Ordering::Relaxed);
        let me = self.config.node.id;
        let hand_over = async |group: stead_raft::Group| {
            let numbers = group.numbers();
            let best = numbers
                .replicated
                .iter()
                .filter(|(node, _)| *node != me && numbers.voters.contains(node));
            if let Some((to, _)) = best.max_by_key(|(_, index)| *index).filter(|_| group.is_leader()) {
                match group.transfer_leader(*to).await {
                    Ok(()) => info!(group = %group.id(), %to, "handed leadership over"),
                    Err(error) => warn!(group = %group.id(), %error, "leadership was not handed over"),
                }
            }
        };
        let all = futures::future::join_all(raft.groups().into_iter().map(hand_over));
        if tokio::time::timeout(HAND_OVER_MAX, all).await.is_err() {
            warn!("leadership could not be handed over in time");
        }
    }
}

/// Looks now and then whether threads of the engine's own have ended: nothing else may tell while nothing is written. A
/// look that a checkpoint delays is not followed by another one before it is done.
async fn check_threads(
    engine: Arc<dyn Engine>,
    background: Arc<Background>,
    stop: CancellationToken,
) -> Result<(), Infallible> {
    let is_due = Arc::new(AtomicBool::new(true));
    while stop.run_until_cancelled(sleep(THREADS_INTERVAL)).await.is_some() {
        if is_due.swap(false, Ordering::AcqRel) {
            let (engine, is_due) = (engine.clone(), is_due.clone());
            background.submit(None, CHECKING, move || {
                let checked = engine.check_workers();
                is_due.store(true, Ordering::Release);
                checked.map_err(failed(CHECKING))
            });
        }
    }
    Ok(())
}

/// How the groups' reconcilers reach the directory.
fn to_directory(directory: &Arc<Directory>) -> ToDirectory {
    let (asked, told) = (directory.clone(), directory.clone());
    ToDirectory {
        read_version: Arc::new(move || {
            let directory = asked.clone();
            Box::pin(async move { directory.version().await.ok() })
        }),
        tell: Arc::new(move |command| {
            let directory = told.clone();
            Box::pin(async move { directory.propose(&command).await.is_ok() })
        }),
    }
}

/// The cluster as its first nodes were told.
pub(crate) fn initial(config: &Checked) -> Initial {
    let node = |member: &crate::config::Member| InitialNode {
        name: member.name.clone(),
        region: member.region.clone(),
        addresses: Addresses {
            client: member.client.clone(),
            peer: member.peer.clone(),
            http: member.http.clone(),
        },
        witness: member.witness,
    };
    Initial {
        cluster: config.cluster.clone(),
        regions: config.regions.clone(),
        nodes: config.members.iter().map(node).collect(),
        groups_per_region: config.groups_per_region,
    }
}

fn raft_config(config: &Checked, environment: &Environment, store: &Store, views: &Views) -> stead_raft::Config {
    let first: BTreeMap<NodeId, String> = config
        .members
        .iter()
        .map(|member| (member.id, member.peer.clone()))
        .collect();
    let views = views.clone();
    let resolve = move |node: NodeId| {
        let known = views.read(|view| view.node(node).map(|node| node.addresses.peer.clone()));
        known
            .filter(|address| !address.is_empty())
            .or_else(|| first.get(&node).cloned())
    };
    let last_rebuild = store.last_rebuild();
    let spool: Option<PathBuf> = store.dir.as_ref().map(|_| config.data_dir.join("snapshots"));
    stead_raft::Config {
        node: config.node.id,
        log: store.log.clone(),
        connect: environment.connect.clone(),
        resolve: Arc::new(resolve),
        clocks: environment.clocks.clone(),
        blocking: if environment.threads {
            Blocking::Pool
        } else {
            Blocking::Inline
        },
        spool,
        limits: environment.upkeep.log,
        may_rebuild: Arc::new(move || last_rebuild().is_none_or(|ago| ago > REBUILD_INTERVAL_MIN)),
    }
}

/// A data group and its machine.
type DataGroup = (stead_raft::Group, Arc<ShardMachine>);

/// Opens the groups in which this node votes.
async fn open_groups(raft: &stead_raft::Node, rows: Rows) -> Result<(Option<Seat>, Vec<DataGroup>), Error> {
    let seat = match rows.directory {
        None => None,
        Some((group, machine)) => {
            let group = raft.create_group(group, machine.clone()).await?;
            Some(Seat { group, machine })
        }
    };
    let mut groups = Vec::new();
    for (group, machine) in rows.data {
        groups.push((raft.create_group(group, machine.clone()).await?, machine));
    }
    Ok((seat, groups))
}

fn directory(
    config: &Checked,
    initial: &Initial,
    seat: Option<Seat>,
    environment: &Environment,
) -> Result<Directory, Error> {
    let voters = initial.directory_voters();
    let others = config
        .members
        .iter()
        .filter(|member| voters.contains(&member.id) && member.id != config.node.id);
    let others: Vec<(NodeId, String)> = others.map(|member| (member.id, member.peer.clone())).collect();
    Directory::new(seat, &others, &environment.connect).map_err(Error::Address)
}
