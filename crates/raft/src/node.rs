//! The groups of one node.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use parking_lot::Mutex;
use stead_api::net::Connect;
use stead_api::peer_codec::PeerAlarms;
use stead_store::background::Stagger;
use stead_store::health::Health;
use stead_store::log::LogStore;
use stead_store::machine::Machine;
use stead_types::{GroupId, Incarnation, NodeId};
use tokio::sync::watch;

use crate::blocking::{Blocking, Worker};
use crate::clock::{Clocks, GroupClock, Voter};
use crate::error::OpenError;
use crate::founding::{Founding, Standing, has_voted};
use crate::group::{Group, Leadership};
use crate::log::{self, Log};
use crate::machine::StateMachine;
use crate::member::{Heard, Member};
use crate::network::Network;
use crate::peers::{Peers, Resolver};
use crate::proposer::Proposer;
use crate::reads::Reads;
use crate::restore::Restore;
use crate::retained::Retained;
use crate::service;
use crate::tasks::Tasks;
use crate::timing::Timing;
use crate::transfers::Transfers;
use crate::types::{Raft, RaftState};
use crate::upkeep::{LogLimits, Upkeep};
use crate::wire::Sender;

/// What a node's groups share.
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// The log of all groups.
    pub log: Arc<dyn LogStore>,
    /// How peers are dialled.
    pub connect: Connect,
    /// Where peers are.
    pub resolve: Resolver,
    /// Its clocks, for logged time.
    pub clocks: Clocks,
    /// Where work runs that waits for a disk.
    pub blocking: Blocking,
    /// A folder for snapshots that are being received; in memory without one.
    pub spool: Option<PathBuf>,
    /// When machines are made durable, and how much of their logs stays.
    pub limits: LogLimits,
    /// Tells whether a replica that differs from a majority now is rebuilt. One that was a short time ago would only differ
    /// again.
    pub may_rebuild: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// One group of a node.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// Its number.
    pub group: GroupId,
    /// How often it recovered from a lost majority. Members of different incarnations do not talk to one another.
    pub incarnation: Incarnation,
    /// The voters it begins with, the same on all of them. What stands in its log counts once there is one. Empty on
    /// a node that will be added later.
    pub voters: Vec<NodeId>,
    /// How far apart its voters are.
    pub timing: Timing,
}

/// The groups of one node. Clones are the same node.
#[derive(Clone)]
pub struct Node {
    config: Arc<Config>,
    peers: Arc<Peers>,
    registry: Arc<Registry>,
    health: Health,
}

/// The groups by number, for the service.
#[derive(Default)]
pub(crate) struct Registry(Mutex<BTreeMap<GroupId, Slot>>);

enum Slot {
    /// Being opened.
    Opening,
    Open(Arc<Member>),
}

impl Registry {
    pub(crate) fn member(&self, group: GroupId) -> Option<Arc<Member>> {
        match self.0.lock().get(&group) {
            Some(Slot::Open(member)) => Some(member.clone()),
            Some(Slot::Opening) | None => None,
        }
    }

    fn members(&self) -> Vec<Arc<Member>> {
        let groups = self.0.lock();
        let open = groups.values().filter_map(|slot| match slot {
            Slot::Open(member) => Some(member.clone()),
            Slot::Opening => None,
        });
        open.collect()
    }

    /// Makes sure that a group is opened once. Returns whether it may be.
    fn reserve(&self, group: GroupId) -> bool {
        let mut groups = self.0.lock();
        let is_free = !groups.contains_key(&group);
        if is_free {
            groups.insert(group, Slot::Opening);
        }
        is_free
    }
}

impl Node {
    /// Returns a node without groups.
    pub fn new(config: Config) -> Self {
        Self {
            peers: Arc::new(Peers::new(config.connect.clone(), config.resolve.clone())),
            health: config.log.health().clone(),
            config: Arc::new(config),
            registry: Arc::default(),
        }
    }

    /// Returns the service that answers peers.
    pub fn service(&self) -> service::Service {
        service::Peers::service(self.registry.clone(), self.peers.alarms.clone())
    }

    /// Returns what counts messages of other nodes that could not be taken; whoever else talks with them counts there too.
    pub fn alarms(&self) -> PeerAlarms {
        self.peers.alarms.clone()
    }

    /// Returns the node's health, which is its log's: any of its groups can end it.
    pub fn health(&self) -> &Health {
        &self.health
    }

    /// Returns a group, if it is open.
    pub fn group(&self, group: GroupId) -> Option<Group> {
        self.registry.member(group).map(Group::new)
    }

    /// Returns the groups that are open.
    pub fn groups(&self) -> Vec<Group> {
        self.registry.members().into_iter().map(Group::new).collect()
    }

    /// Brings back the machine of a group whose rows are gone, from another voter, before the group is opened: see
    /// [`crate::restore`]. Nothing happens to one whose log goes on where its machine stands, if that is at the entry
    /// `reaching` or behind it. It never gives up.
    ///
    /// # Errors
    ///
    /// When the log or the machine cannot be used, or when nobody else could have the rows.
    pub async fn restore(
        &self,
        config: &GroupConfig,
        machine: Arc<dyn Machine>,
        reaching: Option<u64>,
    ) -> Result<(), OpenError> {
        let restore = Restore {
            sender: Sender {
                group: config.group,
                incarnation: config.incarnation,
                node: self.config.node,
            },
            peers: &self.peers,
            log: self.config.log.group(config.group),
            machine,
            worker: Worker {
                blocking: self.config.blocking,
                group: config.group,
                health: self.health.clone(),
            },
            spool: self.config.spool.as_deref(),
        };
        restore.run(&config.voters, reaching).await
    }

    /// Opens a group: a new one, or one whose log and machine were opened again.
    ///
    /// # Errors
    ///
    /// When it is open already, or its log or machine cannot be read.
    pub async fn create_group(&self, config: GroupConfig, machine: Arc<dyn Machine>) -> Result<Group, OpenError> {
        let group = config.group;
        if !self.registry.reserve(group) {
            return Err(OpenError::AlreadyOpen(group));
        }
        let opened = self.open(config, machine).await;
        let mut groups = self.registry.0.lock();
        match opened {
            Ok(member) => {
                groups.insert(group, Slot::Open(member.clone()));
                Ok(Group::new(member))
            }
            Err(source) => {
                groups.remove(&group);
                Err(OpenError::Unreadable { group, source })
            }
        }
    }

    /// Ends a group on this node and forgets it here; its log and machine stay.
    pub async fn close_group(&self, group: GroupId) {
        if let Some(member) = self.registry.member(group) {
            member.stop().await;
            self.registry.0.lock().remove(&group);
        }
    }

    /// Ends all groups.
    pub async fn shutdown(&self) {
        for member in self.registry.members() {
            self.close_group(member.sender.group).await;
        }
    }

    async fn open(
        &self,
        config: GroupConfig,
        machine: Arc<dyn Machine>,
    ) -> Result<Arc<Member>, Box<dyn std::error::Error + Send + Sync>> {
        let parts = Parts::new(self, &config, machine)?;
        let log = Log::new(
            self.config.log.group(config.group),
            parts.retained.clone(),
            parts.clock.clone(),
        );
        let has_applied = !parts.machine.machine.applied().log_id.is_empty();
        let found = log.state()?;
        let standing = Standing::of(config.group, &found, has_voted(&found, self.config.node)?, has_applied)?;
        let periods = config.timing.periods();
        let raft_config = periods.config(config.group, config.incarnation);
        let mut others: BTreeSet<NodeId> = config.voters.iter().copied().collect();
        let is_new_voter = others.remove(&self.config.node) && standing < Standing::Begun;
        let is_only_voter = is_new_voter && others.is_empty();
        let founding = Arc::new(if is_new_voter && !is_only_voter {
            Founding::new(standing, others)
        } else {
            Founding::over()
        });
        let network = Network {
            peers: self.peers.clone(),
            sender: parts.sender,
            worker: parts.machine.worker.clone(),
            transfers: parts.transfers.clone(),
            founding: founding.clone(),
            clock: parts.clock.clone(),
        };
        let id = self.config.node.get();
        let raft = Raft::build(id, raft_config, network.clone(), log, parts.machine.clone()).await?;
        parts.machine.is_running.store(true, Ordering::Release);
        raft.runtime_config().elect(false);
        raft.run();
        if is_only_voter && standing == Standing::Nothing {
            raft.initialize(BTreeMap::from([(id, ())])).await?;
        }
        // Nobody else can hold a lease from the only voter.
        let count = |state: &RaftState| state.membership_state.effective().voter_ids().count();
        let is_alone = raft.with_raft_state(count).await? == 1;
        let is_founding = !founding.has_joined();
        let is_held_back = is_founding || !is_alone;
        let member = self.start(parts, raft, founding, &config);
        member.is_held_back.store(is_held_back, Ordering::Release);
        let tasks = &member.tasks;
        tasks.spawn("comparing replicas", member.clone().compare(network.clone()));
        if is_founding {
            tasks.spawn("founding the group", member.clone().found(network));
        } else if is_held_back {
            tasks.spawn("holding back", member.clone().hold_back());
        } else {
            member.raft.runtime_config().elect(true);
        }
        Ok(member)
    }

    fn start(&self, parts: Parts, raft: Raft, founding: Arc<Founding>, config: &GroupConfig) -> Arc<Member> {
        let periods = config.timing.periods();
        let clock = parts.clock;
        let member = Arc::new(Member {
            sender: parts.sender,
            periods,
            raft: raft.clone(),
            log: self.config.log.group(config.group),
            clock: clock.clone(),
            machine: parts.machine.machine.clone(),
            may_rebuild: self.config.may_rebuild.clone(),
            differs: AtomicBool::new(false),
            proposer: Arc::new(Proposer::new(clock, periods.heartbeat() / 2, periods.election_max())),
            reads: Reads::default(),
            applied: parts.machine.applied.clone(),
            leadership: watch::Sender::new(Leadership::default()),
            tasks: Tasks::new(config.group, self.health.clone()),
            worker: parts.machine.worker.clone(),
            spool: self.config.spool.clone(),
            receiving: tokio::sync::Mutex::default(),
            giving: Arc::default(),
            heard: Heard::new(),
            // The caller knows, and says so before the member can be found.
            is_held_back: AtomicBool::new(true),
            founding,
            voters: config.voters.iter().copied().collect(),
        });
        let tasks = &member.tasks;
        tasks.spawn("watching the leader", member.clone().watch_leader());
        tasks.spawn("watching clocks", member.clone().watch_clocks());
        tasks.spawn("writing the time down", member.clone().write_time());
        tasks.spawn("proposing", member.proposer.clone().run(raft.clone()));
        let (reader, applied) = (member.clone(), member.applied.subscribe());
        tasks.spawn("asking for read indexes", async move {
            reader.reads.run(reader.raft.clone(), applied).await;
        });
        let upkeep = Upkeep {
            raft,
            machine: parts.machine,
            store: self.config.log.clone(),
            retained: parts.retained,
            transfers: parts.transfers,
            stagger: Stagger::of(self.config.node),
            limits: self.config.limits,
        };
        tasks.spawn("keeping the log short", upkeep.run());
        member
    }
}

/// What a group is put together from.
struct Parts {
    sender: Sender,
    machine: StateMachine,
    retained: Arc<Retained>,
    transfers: Arc<Transfers>,
    clock: Arc<GroupClock>,
}

impl Parts {
    fn new(node: &Node, config: &GroupConfig, machine: Arc<dyn Machine>) -> std::io::Result<Self> {
        let found_ms = log::last_time(&*node.config.log.group(config.group))?.max(machine.applied().time);
        let voter = Voter {
            group: config.group,
            node: node.config.node,
            voters: config.voters.iter().copied().collect(),
            limits: config.timing.periods().clock_limits(),
        };
        let clock = Arc::new(GroupClock::new(node.config.clocks.clone(), voter, found_ms));
        Ok(Self {
            clock: clock.clone(),
            sender: Sender {
                group: config.group,
                incarnation: config.incarnation,
                node: node.config.node,
            },
            machine: StateMachine {
                group: config.group,
                applied: watch::Sender::new(machine.applied().index),
                machine,
                worker: Worker {
                    blocking: node.config.blocking,
                    group: config.group,
                    health: node.health.clone(),
                },
                clock,
                is_running: Arc::default(),
            },
            retained: Arc::new(Retained::keeping(node.config.limits.tail_bytes)),
            transfers: Arc::default(),
        })
    }
}
