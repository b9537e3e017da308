//! Raft groups of one node.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use stead_api::net::Connect;
use stead_api::peer_codec::PeerAlarms;
use stead_store::background::Stagger;
use stead_store::health::Health;
use stead_store::log::LogStore;
use stead_store::machine::Machine;
use stead_types::{GroupId, Incarnation, NodeId};
use tokio::sync::watch;

use crate::blocking::{BlockingMode, BlockingWorker};
use crate::clock::{ClockConfig, Clocks, GroupClock};
use crate::command_results::{ApplyEntries, CommandResults, apply_entries};
use crate::copy_bandwidth::CopyBandwidth;
use crate::error::OpenError;
use crate::group::Group;
use crate::group_bootstrap::{GroupBootstrap, VoterState, has_voted};
use crate::leadership::Leadership;
use crate::log::{self, Log};
use crate::log_compaction::{LogCompactor, LogLimits};
use crate::log_size::LogSize;
use crate::machine::{Raft, StateMachine};
use crate::member::{LastContact, Member};
use crate::network::Network;
use crate::peer_channels::{PeerChannels, Resolver};
use crate::proposer::Proposer;
use crate::read_index::ReadIndexQueue;
use crate::registry::Registry;
use crate::restore::Restore;
use crate::senders::MaySend;
use crate::service;
use crate::snapshot_transfers::SnapshotTransfers;
use crate::spool::ReceiveProgress;
use crate::tasks::Tasks;
use crate::timing::Timing;
use crate::typed_group::TypedGroup;
use crate::types::RaftState;
use crate::wire::Sender;

/// Configuration that a node's groups share.
pub struct Config {
    /// This node.
    pub node: NodeId,
    /// The log of all groups.
    pub log: Arc<dyn LogStore>,
    /// Dials peers.
    pub connect: Connect,
    /// Resolves the addresses of peers.
    pub resolve: Resolver,
    /// Its clocks, for logged time.
    pub clocks: Clocks,
    /// Mode of running blocking work.
    pub blocking: BlockingMode,
    /// Folder for snapshots that are being received; without one they stay in memory.
    pub spool: Option<PathBuf>,
    /// Bandwidth that snapshots share, with whatever else the node copies.
    pub copies: Arc<CopyBandwidth>,
    /// Thresholds of checkpoints, and the length of the logs' tails.
    pub limits: LogLimits,
    /// Tells, once a replica has diverged, whether it is rebuilt. One that was rebuilt recently would probably diverge
    /// again.
    pub may_rebuild: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Tells whether a node of a region may send messages of a group: what a certificate says decides, not the message.
    pub may_send: MaySend,
}

/// Configuration of one group.
#[derive(Clone, Debug)]
pub struct GroupConfig {
    /// Its number.
    pub group: GroupId,
    /// How often it recovered from a lost majority. Members of different incarnations reject each other's messages.
    pub incarnation: Incarnation,
    /// Its initial voters, the same on all of them. Once it has a log, the membership there counts. Empty on a node
    /// that will be added later.
    pub voters: Vec<NodeId>,
    /// Timing for the distance of its voters.
    pub timing: Timing,
}

/// Raft groups of one node. Clones are the same node.
#[derive(Clone)]
pub struct Node {
    config: Arc<Config>,
    peers: Arc<PeerChannels>,
    registry: Arc<Registry>,
    health: Health,
}

impl Node {
    /// Creates a node without groups.
    pub fn new(config: Config) -> Self {
        Self {
            peers: Arc::new(PeerChannels::new(config.connect.clone(), config.resolve.clone())),
            health: config.log.health().clone(),
            config: Arc::new(config),
            registry: Arc::default(),
        }
    }

    /// Returns the service for peers.
    pub fn service(&self) -> service::Service {
        service::PeerService::service(
            self.registry.clone(),
            self.peers.alarms.clone(),
            self.config.may_send.clone(),
        )
    }

    /// Returns the counters of rejected messages of other nodes, shared by all that communicate with them.
    pub fn alarms(&self) -> PeerAlarms {
        self.peers.alarms.clone()
    }

    /// Returns the node's health, which is its log's: a failure of any group is recorded there.
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

    /// Restores the machine of a group whose rows are lost from another voter, before the group is opened: see
    /// [`crate::restore`]. Does nothing if the log continues where the machine ends, at the entry `min_index` or later.
    /// It retries until it succeeds.
    ///
    /// # Errors
    ///
    /// When the log or the machine cannot be used, or when no other voter exists.
    pub async fn restore(
        &self,
        config: &GroupConfig,
        machine: Arc<dyn Machine>,
        min_index: Option<u64>,
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
            worker: BlockingWorker {
                blocking: self.config.blocking,
                group: config.group,
                health: self.health.clone(),
            },
            spool: self.config.spool.as_deref(),
        };
        restore.run(&config.voters, min_index).await
    }

    /// Opens a group: a new one, or one whose log and machine were reopened.
    ///
    /// # Errors
    ///
    /// When it is already open, or its log or machine cannot be read.
    pub async fn create_group<M: Machine + 'static>(
        &self,
        config: GroupConfig,
        machine: Arc<M>,
    ) -> Result<TypedGroup<M>, OpenError> {
        let group = config.group;
        if !self.registry.reserve(group) {
            return Err(OpenError::AlreadyOpen(group));
        }
        match self.open(config, machine).await {
            Ok(OpenedGroup { member, proposer }) => {
                self.registry.open(member.clone());
                Ok(TypedGroup::new(Group::new(member), proposer))
            }
            Err(source) => {
                self.registry.remove(group);
                Err(OpenError::Unreadable { group, source })
            }
        }
    }

    /// Stops a group on this node and removes it here; its log and machine stay.
    pub async fn close_group(&self, group: GroupId) {
        if let Some(member) = self.registry.member(group) {
            member.stop().await;
            self.registry.remove(group);
        }
    }

    /// Stops all groups.
    pub async fn shutdown(&self) {
        for member in self.registry.members() {
            self.close_group(member.sender.group).await;
        }
    }

    async fn open<M: Machine + 'static>(
        &self,
        config: GroupConfig,
        machine: Arc<M>,
    ) -> Result<OpenedGroup<M::CommandResult>, Box<dyn std::error::Error + Send + Sync>> {
        let results = Arc::new(CommandResults::default());
        let apply = apply_entries(machine.clone(), results.clone());
        let parts = GroupParts::new(self, &config, machine, apply)?;
        let log = Log::new(
            self.config.log.group(config.group),
            parts.log_size.clone(),
            parts.clock.clone(),
        );
        let has_applied = !parts.machine.machine.applied().log_id.is_empty();
        let found = log.state()?;
        let voter_state = VoterState::of(config.group, &found, has_voted(&found, self.config.node)?, has_applied)?;
        let periods = config.timing.periods();
        let raft_config = periods.config(config.group, config.incarnation);
        let mut others: BTreeSet<NodeId> = config.voters.iter().copied().collect();
        let is_new_voter = others.remove(&self.config.node) && voter_state < VoterState::Begun;
        let is_only_voter = is_new_voter && others.is_empty();
        let bootstrap = Arc::new(if is_new_voter && !is_only_voter {
            GroupBootstrap::new(voter_state, others)
        } else {
            GroupBootstrap::completed()
        });
        let network = Network {
            peers: self.peers.clone(),
            copies: self.config.copies.clone(),
            sender: parts.sender,
            worker: parts.machine.worker.clone(),
            transfers: parts.transfers.clone(),
            bootstrap: bootstrap.clone(),
            clock: parts.clock.clone(),
            later: parts.later.clone(),
        };
        let id = self.config.node.get();
        let raft = Raft::build(id, raft_config, network.clone(), log, parts.machine.clone()).await?;
        parts.machine.is_running.store(true, Ordering::Release);
        raft.runtime_config().elect(false);
        raft.run();
        if is_only_voter && voter_state == VoterState::Nothing {
            raft.initialize(BTreeMap::from([(id, ())])).await?;
        }
        // No other node can hold a lease from the only voter.
        let count = |state: &RaftState| state.membership_state.effective().voter_ids().count();
        let is_alone = raft.with_raft_state(count).await? == 1;
        let is_bootstrapping = !bootstrap.has_joined();
        let is_held_back = is_bootstrapping || !is_alone;
        let proposer = Arc::new(Proposer::new(
            parts.clock.clone(),
            results,
            periods.heartbeat() / 2,
            periods.election_max(),
        ));
        let stopped = proposer.clone();
        let stop_proposals = Box::new(move || stopped.stop());
        let member = self.start(parts, raft.clone(), bootstrap, &config, stop_proposals);
        member.is_held_back.store(is_held_back, Ordering::Release);
        let tasks = &member.tasks;
        tasks.spawn("proposing", proposer.clone().run(raft));
        tasks.spawn("writing the time down", proposer.clone().write_time(config.group));
        tasks.spawn("comparing replicas", member.clone().compare(network.clone()));
        if is_bootstrapping {
            tasks.spawn("bootstrapping the group", member.clone().run_bootstrap(network));
        } else if is_held_back {
            tasks.spawn("holding back", member.clone().hold_back());
        } else {
            member.raft.runtime_config().elect(true);
        }
        Ok(OpenedGroup { member, proposer })
    }

    fn start(
        &self,
        parts: GroupParts,
        raft: Raft,
        bootstrap: Arc<GroupBootstrap>,
        config: &GroupConfig,
        stop_proposals: Box<dyn Fn() + Send + Sync>,
    ) -> Arc<Member> {
        let periods = config.timing.periods();
        let member = Arc::new(Member {
            sender: parts.sender,
            periods,
            raft: raft.clone(),
            log: self.config.log.group(config.group),
            clock: parts.clock,
            machine: parts.machine.machine.clone(),
            may_rebuild: self.config.may_rebuild.clone(),
            differs: AtomicBool::new(false),
            stop_proposals,
            reads: ReadIndexQueue::default(),
            applied: parts.machine.applied.clone(),
            leadership: watch::Sender::new(Leadership::default()),
            connected: watch::Sender::new(true),
            tasks: Tasks::new(config.group, self.health.clone()),
            worker: parts.machine.worker.clone(),
            spool: self.config.spool.clone(),
            copies: self.config.copies.clone(),
            receiving_snapshot: tokio::sync::Mutex::default(),
            snapshot_received: ReceiveProgress::default(),
            serving_snapshot: Arc::default(),
            last_contact: LastContact::new(),
            // The caller sets it before the member can be found.
            is_held_back: AtomicBool::new(true),
            bootstrap,
            later: parts.later,
            voters: config.voters.iter().copied().collect(),
        });
        let tasks = &member.tasks;
        tasks.spawn("watching the leader", member.clone().watch_leader());
        tasks.spawn("watching voters", member.clone().watch_voters());
        let (reader, applied) = (member.clone(), member.applied.subscribe());
        tasks.spawn("asking for read indexes", async move {
            reader.reads.run(reader.raft.clone(), applied).await;
        });
        let compactor = LogCompactor {
            raft,
            machine: parts.machine,
            store: self.config.log.clone(),
            log_size: parts.log_size,
            transfers: parts.transfers,
            stagger: Stagger::of(self.config.node),
            limits: self.config.limits,
        };
        tasks.spawn("keeping the log short", compactor.run());
        member
    }
}

/// Opened group, and its proposer, which alone knows the type of the machine's results.
struct OpenedGroup<R> {
    member: Arc<Member>,
    proposer: Arc<Proposer<R>>,
}

/// Parts of a group that is being opened.
struct GroupParts {
    sender: Sender,
    machine: StateMachine,
    log_size: Arc<LogSize>,
    transfers: Arc<SnapshotTransfers>,
    clock: Arc<GroupClock>,
    later: watch::Sender<Option<Incarnation>>,
}

impl GroupParts {
    fn new(node: &Node, config: &GroupConfig, machine: Arc<dyn Machine>, apply: ApplyEntries) -> std::io::Result<Self> {
        let found_ms = log::last_time(&*node.config.log.group(config.group))?.max(machine.applied().time);
        let clock_config = ClockConfig {
            group: config.group,
            node: node.config.node,
            voters: config.voters.iter().copied().collect(),
            limits: config.timing.periods().clock_limits(),
        };
        let clock = Arc::new(GroupClock::new(node.config.clocks.clone(), clock_config, found_ms));
        Ok(Self {
            clock: clock.clone(),
            later: watch::Sender::new(None),
            sender: Sender {
                group: config.group,
                incarnation: config.incarnation,
                node: node.config.node,
            },
            machine: StateMachine {
                group: config.group,
                applied: watch::Sender::new(machine.applied().index),
                machine,
                apply,
                worker: BlockingWorker {
                    blocking: node.config.blocking,
                    group: config.group,
                    health: node.health.clone(),
                },
                clock,
                is_running: Arc::default(),
            },
            log_size: Arc::new(LogSize::with_tail(node.config.limits.tail_bytes)),
            transfers: Arc::default(),
        })
    }
}
