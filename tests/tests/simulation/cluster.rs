//! Simulated cluster of nine nodes in three regions, and the actions on it between two steps.
//!
//! ```text
//! operator (operator.rs) -> ActionQueue -> World::run -> turmoil: crash, bounce, partition, repair, hold, release
//!                                          -> Machine: disk (power, room, failures, syncs), wall clock, node exit
//! ```
//!
//! # Invariants
//!
//! 1. All random choices come from the seed.
//! 2. A node that ends by itself without a reason given by an action fails the run.
//! 3. What a node wrote is durable only when its disk has synced, some steps later.
//! 4. A node that has lost its disk ends by itself, and says so, before the run is over.

use std::{
    cell::RefCell,
    collections::{BTreeSet, VecDeque},
    rc::Rc,
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use stead_raft::LogLimits;
use stead_replication::RetentionLimits;
use stead_server::{
    config::{Cluster, Config, InitialNode, Node, RegionEntry, Storage, ValidatedConfig},
    environment::RetentionConfig,
};
use turmoil::{Result, Sim};

use crate::{
    machine::{DiskFault, Machine},
    network,
};

/// The regions with their jurisdictions.
pub(crate) const REGIONS: [(&str, &str); 3] = [("us", "US"), ("eu", "EU"), ("ap", "JP")];
/// Nodes of each region.
pub(crate) const NODES_PER_REGION: usize = 3;
/// All nodes.
pub(crate) const NODES: usize = REGIONS.len() * NODES_PER_REGION;
/// One-way delays between regions, by their positions in [`REGIONS`].
const DELAYS_MS: [(usize, usize, u64); 3] = [(0, 1, 40), (0, 2, 75), (1, 2, 100)];
/// A disk syncs in a step with this probability, so that syncs take a few milliseconds.
const SYNC_PROBABILITY: f64 = 0.4;
/// Some unsynced data survives a power loss with this probability.
const SOME_SURVIVE_PROBABILITY: f64 = 0.3;
/// A node that ended by itself is restarted after this time, as by a service manager.
const RESTART_AFTER: Duration = Duration::from_millis(300);
/// Text in the error of a node that has lost its disk.
const DISK_LOST: &str = "its disk was lost";

/// Index of a node, counted region by region from 0; its node id is one more.
pub(crate) type NodeIndex = usize;

/// Action on the cluster between two steps.
#[derive(Clone, Copy, Debug)]
pub(crate) enum ClusterAction {
    /// The machine's disk stops syncing: data written from now on is lost at a power loss.
    StallSyncs(NodeIndex),
    /// The machine loses power: connections are closed, unsynced data is lost but for a prefix.
    PowerLoss(NodeIndex),
    /// As [`ClusterAction::PowerLoss`], but peers get no signal: connections stay open on the other side.
    SilentPowerLoss(NodeIndex),
    /// The machine loses power once its disk has done so many more operations, between any two of them.
    PowerLossAfter(NodeIndex, u64),
    /// The machine's disk is replaced by an empty one before it starts again.
    LoseDisk(NodeIndex),
    /// The machine starts again with its disk; one that runs is killed first.
    Restart(NodeIndex),
    /// One operation of the machine's disk fails, after so many that do not.
    FailDisk(NodeIndex, DiskFault, u64),
    /// The machine's disk is full.
    FillDisk(NodeIndex),
    /// Ends [`ClusterAction::FillDisk`].
    FreeDisk(NodeIndex),
    /// The machine is frozen: messages from and to it wait.
    Freeze(NodeIndex),
    /// Ends [`ClusterAction::Freeze`].
    Thaw(NodeIndex),
    /// The machine sleeps, or its virtual machine is paused: as [`ClusterAction::Freeze`], and its clocks stand still.
    Suspend(NodeIndex),
    /// Ends [`ClusterAction::Suspend`]: both clocks jump to the present.
    WakeUp(NodeIndex),
    /// Ends [`ClusterAction::Suspend`] of a virtual machine: the wall clock jumps, the boot clock knows of no pause.
    Unpause(NodeIndex),
    /// The wall clock of the machine jumps by so many milliseconds.
    JumpClock(NodeIndex, i64),
    /// The wall clock of the machine runs too fast by so many thousandths.
    DriftClock(NodeIndex, i64),
    /// Messages between a node and the other nodes are lost, but clients reach it.
    PartitionNode(NodeIndex),
    /// Ends [`ClusterAction::PartitionNode`].
    HealNode(NodeIndex),
    /// Messages between a node and the other nodes wait, but clients reach it.
    HoldNode(NodeIndex),
    /// Ends [`ClusterAction::HoldNode`].
    ReleaseNode(NodeIndex),
    /// Messages between a region and the others are lost.
    PartitionRegion(usize),
    /// Ends [`ClusterAction::PartitionRegion`].
    HealRegion(usize),
    /// Messages between a region and the others wait.
    HoldRegion(usize),
    /// Ends [`ClusterAction::HoldRegion`].
    ReleaseRegion(usize),
    /// Messages between two regions are lost.
    CutLink(usize, usize),
    /// Ends [`ClusterAction::CutLink`].
    HealLink(usize, usize),
    /// Messages between two regions wait.
    HoldLink(usize, usize),
    /// Ends [`ClusterAction::HoldLink`].
    ReleaseLink(usize, usize),
    /// Ends all faults but lost disks: links and disks work, nodes that are down start.
    HealAll,
}

/// Queue of actions that wait for the end of a step, and the nodes that are lost for good. Clones share their state.
#[derive(Clone, Debug, Default)]
pub(crate) struct ActionQueue {
    waiting: Rc<RefCell<VecDeque<ClusterAction>>>,
    lost: Rc<RefCell<BTreeSet<NodeIndex>>>,
}

impl ActionQueue {
    pub(crate) fn push(&self, action: ClusterAction) {
        self.waiting.borrow_mut().push_back(action);
    }

    /// Returns whether a node has ended for good.
    pub(crate) fn is_lost(&self, node: NodeIndex) -> bool {
        self.lost.borrow().contains(&node)
    }
}

/// The simulated machines.
pub(crate) struct World {
    pub(crate) sim: Sim<'static>,
    pub(crate) actions: ActionQueue,
    machines: Vec<Machine>,
    /// Hosts of each region: nodes and clients.
    hosts: [Vec<String>; REGIONS.len()],
    random: StdRng,
    /// Groups of each region.
    pub(crate) groups_per_region: u32,
}

/// Returns the host name of a node.
pub(crate) fn host(node: NodeIndex) -> String {
    let (region, _) = REGIONS[node / NODES_PER_REGION];
    format!("{region}-{}", node % NODES_PER_REGION + 1)
}

/// Returns the client address of a node.
pub(crate) fn client_address(node: NodeIndex) -> String {
    format!("{}:7001", host(node))
}

/// Returns the peer address of a node.
pub(crate) fn peer_address(node: NodeIndex) -> String {
    format!("{}:7002", host(node))
}

/// Configuration of a cluster, drawn from the seed.
#[derive(Clone, Copy, Debug)]
pub(crate) struct ClusterShape {
    groups_per_region: u32,
    retention: RetentionConfig,
}

impl ClusterShape {
    /// Draws a configuration: in half of the runs logs and histories are short, so that a replica that was away needs
    /// snapshots and seeds; in half of them regions have several groups.
    pub(crate) fn draw(random: &mut StdRng) -> Self {
        let short = RetentionConfig {
            log: LogLimits {
                checkpoint_interval: Duration::from_millis(random.random_range(300..2_000)),
                tail_bytes: random.random_range(4..32) << 10,
                ..LogLimits::default()
            },
            history: RetentionLimits {
                keep_age: Duration::from_millis(500),
                interval: Duration::from_millis(700),
                ..RetentionLimits::default()
            },
        };
        Self {
            groups_per_region: random.random_range(1..=2),
            retention: if random.random() {
                short
            } else {
                RetentionConfig::default()
            },
        }
    }
}

impl World {
    /// Starts nine nodes with empty disks.
    pub(crate) fn new(seed: u64, length: Duration) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let shape = ClusterShape::draw(&mut random);
        println!("{shape:?}");
        let mut this = Self {
            sim: network::simulation(seed, length),
            actions: ActionQueue::default(),
            machines: Vec::new(),
            hosts: Default::default(),
            random,
            groups_per_region: shape.groups_per_region,
        };
        for node in 0..NODES {
            let machine = Machine::new();
            let software = machine.software(config(node, shape.groups_per_region), shape.retention);
            this.sim.host(host(node), software);
            this.machines.push(machine);
            this.hosts[node / NODES_PER_REGION].push(host(node));
        }
        this
    }

    /// Adds a client in a region.
    pub(crate) fn client(&mut self, region: usize, name: &str, software: impl Future<Output = Result> + 'static) {
        self.sim.client(name, software);
        self.hosts[region].push(name.to_owned());
    }

    /// Runs until every client is done. Returns the nodes that had a reason to log errors.
    pub(crate) fn run(&mut self) -> Vec<String> {
        self.set_link_latencies();
        while !network::step(&mut self.sim) {
            for node in 0..NODES {
                self.maintain_node(node);
            }
            loop {
                let action = self.actions.waiting.borrow_mut().pop_front();
                let Some(action) = action else { break };
                self.apply(action);
            }
        }
        let lost = (0..NODES).filter(|node| self.machines[*node].has_lost_disk());
        for node in lost {
            assert!(self.actions.is_lost(node), "{} went on without its disk", host(node));
        }
        let excused = (0..NODES).filter(|node| self.machines[*node].may_log_errors());
        excused.map(host).collect()
    }

    /// Syncs a machine's disk now and then, crashes the machine once its power is off, restarts a node that has ended.
    fn maintain_node(&mut self, node: NodeIndex) {
        let now = self.sim.elapsed();
        let machine = &mut self.machines[node];
        if machine.disk().is_cut() {
            return self.power_loss(node);
        }
        if machine.has_pending_syncs() && self.random.random_bool(SYNC_PROBABILITY) {
            // Waiters are woken at once, and log as this node.
            let span = tracing::info_span!("node", name = host(node).as_str());
            span.in_scope(|| machine.disk().log.sync());
        }
        if let Some(reason) = machine.take_exit_reason() {
            tracing::info!(node, reason, "ended by itself");
            println!("{now:?} {} ended by itself: {reason}", host(node));
            if machine.has_lost_disk() {
                assert!(
                    reason.contains(DISK_LOST),
                    "{} does not say that its disk is lost: {reason}",
                    host(node)
                );
                self.actions.lost.borrow_mut().insert(node);
                return;
            }
            machine.restart_at = Some(now + RESTART_AFTER);
        }
        if machine.restart_at.is_some_and(|at| at <= now) {
            machine.note_start();
            self.sim.bounce(host(node));
        }
    }

    fn set_link_latencies(&self) {
        for (one, other, delay) in DELAYS_MS {
            let (one, other) = (&self.hosts[one], &self.hosts[other]);
            for (one, other) in one.iter().flat_map(|one| other.iter().map(move |other| (one, other))) {
                let (one, other) = (one.as_str(), other.as_str());
                self.sim.set_link_latency(one, other, Duration::from_millis(delay));
                let latest = Duration::from_millis(delay + delay / 5);
                self.sim.set_link_max_message_latency(one, other, latest);
            }
        }
    }

    fn apply(&mut self, action: ClusterAction) {
        tracing::info!(?action, at = ?self.sim.elapsed(), "action");
        println!("{:?} {action:?}", self.sim.elapsed());
        match action {
            ClusterAction::StallSyncs(node) => self.machines[node].syncs_stalled = true,
            ClusterAction::PowerLoss(node) => self.power_loss(node),
            ClusterAction::SilentPowerLoss(node) => {
                self.set_node_links(node, self.hosts.iter().flatten(), LinkChange::Partition);
                self.power_loss(node);
                self.set_node_links(node, self.hosts.iter().flatten(), LinkChange::Repair);
            }
            ClusterAction::PowerLossAfter(node, operations) => self.machines[node].power_loss_after(operations),
            ClusterAction::LoseDisk(node) => {
                self.power_loss(node);
                self.machines[node].lose_disk();
            }
            ClusterAction::Restart(node) => self.restart(node),
            ClusterAction::FailDisk(node, fault, after) => self.machines[node].fail_disk(fault, after),
            ClusterAction::FillDisk(node) => self.machines[node].fill_disk(true),
            ClusterAction::FreeDisk(node) => self.machines[node].fill_disk(false),
            ClusterAction::Freeze(node) => self.freeze(node),
            ClusterAction::Thaw(node) => self.thaw(node),
            ClusterAction::Suspend(node) => {
                self.machines[node].clock.stop(self.sim.elapsed());
                self.freeze(node);
            }
            ClusterAction::WakeUp(node) => {
                self.machines[node].clock.resume(self.sim.elapsed(), true);
                self.thaw(node);
            }
            ClusterAction::Unpause(node) => {
                self.machines[node].clock.resume(self.sim.elapsed(), false);
                self.thaw(node);
            }
            ClusterAction::JumpClock(node, ms) => self.machines[node].clock.jump(ms),
            ClusterAction::DriftClock(node, thousandths) => {
                let now = u64::try_from(self.sim.since_epoch().as_millis()).expect("simulations are short");
                self.machines[node].clock.drift(now, thousandths);
            }
            ClusterAction::PartitionNode(node) => self.set_node_links(node, nodes().iter(), LinkChange::Partition),
            ClusterAction::HealNode(node) => self.set_node_links(node, nodes().iter(), LinkChange::Repair),
            ClusterAction::HoldNode(node) => self.set_node_links(node, nodes().iter(), LinkChange::Hold),
            ClusterAction::ReleaseNode(node) => self.set_node_links(node, nodes().iter(), LinkChange::Release),
            ClusterAction::PartitionRegion(region) => self.set_region_links(region, LinkChange::Partition),
            ClusterAction::HealRegion(region) => self.set_region_links(region, LinkChange::Repair),
            ClusterAction::HoldRegion(region) => self.set_region_links(region, LinkChange::Hold),
            ClusterAction::ReleaseRegion(region) => self.set_region_links(region, LinkChange::Release),
            ClusterAction::CutLink(one, other) => self.set_links_between(one, other, LinkChange::Partition),
            ClusterAction::HealLink(one, other) => self.set_links_between(one, other, LinkChange::Repair),
            ClusterAction::HoldLink(one, other) => self.set_links_between(one, other, LinkChange::Hold),
            ClusterAction::ReleaseLink(one, other) => self.set_links_between(one, other, LinkChange::Release),
            ClusterAction::HealAll => self.heal_all(),
        }
    }

    fn freeze(&mut self, node: NodeIndex) {
        self.machines[node].syncs_stalled = true;
        self.set_node_links(node, self.hosts.iter().flatten(), LinkChange::Hold);
    }

    fn thaw(&mut self, node: NodeIndex) {
        self.machines[node].syncs_stalled = false;
        self.set_node_links(node, self.hosts.iter().flatten(), LinkChange::Release);
    }

    fn restart(&mut self, node: NodeIndex) {
        if self.actions.is_lost(node) {
            return;
        }
        if self.machines[node].has_pending_fault() {
            self.power_loss(node);
        }
        self.machines[node].note_start();
        self.sim.bounce(host(node));
    }

    fn heal_all(&mut self) {
        for region in 0..REGIONS.len() {
            self.set_region_links(region, LinkChange::Release);
            self.set_region_links(region, LinkChange::Repair);
        }
        for node in 0..NODES {
            self.set_node_links(node, self.hosts.iter().flatten(), LinkChange::Release);
            self.set_node_links(node, self.hosts.iter().flatten(), LinkChange::Repair);
            let machine = &mut self.machines[node];
            machine.clock.resume(self.sim.elapsed(), true);
            machine.fill_disk(false);
            machine.syncs_stalled = false;
            // One that ended by itself is about to be started.
            let is_down = !self.sim.is_host_running(host(node)) && machine.restart_at.is_none();
            if machine.has_pending_fault() || is_down {
                self.restart(node);
            }
        }
    }

    fn power_loss(&mut self, node: NodeIndex) {
        let machine = &mut self.machines[node];
        let disk = machine.disk();
        let (log, rows) = (disk.log.pending(), disk.rows.pending());
        let survivors = (survivors(&mut self.random, log), survivors(&mut self.random, rows));
        tracing::info!(log, rows, ?survivors, "unsynced at the power loss");
        disk.power_loss(survivors.0, survivors.1);
        machine.note_power_loss();
        self.sim.crash(host(node));
    }

    /// Changes the links between a node and others.
    fn set_node_links<'a>(&self, node: NodeIndex, others: impl Iterator<Item = &'a String>, link: LinkChange) {
        let name = host(node);
        for other in others.filter(|other| **other != name) {
            link.apply(&self.sim, &name, other);
        }
    }

    /// Changes the links between a region and the others.
    fn set_region_links(&self, region: usize, link: LinkChange) {
        let others = (0..REGIONS.len()).filter(|other| *other != region);
        others.for_each(|other| self.set_links_between(region, other, link));
    }

    /// Changes the links between two regions.
    fn set_links_between(&self, one: usize, other: usize, link: LinkChange) {
        for one in &self.hosts[one] {
            self.hosts[other]
                .iter()
                .for_each(|other| link.apply(&self.sim, one, other));
        }
    }
}

/// Draws how much of the unsynced data survives: mostly nothing, or else any prefix.
fn survivors(random: &mut StdRng, pending: usize) -> usize {
    if random.random_bool(SOME_SURVIVE_PROBABILITY) {
        random.random_range(0..=pending)
    } else {
        0
    }
}

/// Change of a link.
#[derive(Clone, Copy)]
enum LinkChange {
    Partition,
    Repair,
    Hold,
    Release,
}

impl LinkChange {
    fn apply(self, sim: &Sim<'_>, one: &str, other: &str) {
        match self {
            Self::Partition => sim.partition(one, other),
            Self::Repair => sim.repair(one, other),
            Self::Hold => sim.hold(one, other),
            Self::Release => sim.release(one, other),
        }
    }
}

fn nodes() -> Vec<String> {
    (0..NODES).map(host).collect()
}

fn config(node: NodeIndex, groups_per_region: u32) -> ValidatedConfig {
    let initial = |node: NodeIndex| InitialNode {
        name: host(node),
        region: REGIONS[node / NODES_PER_REGION].0.to_owned(),
        client: client_address(node),
        peer: peer_address(node),
        http: format!("{}:7003", host(node)),
        witness: false,
        engine: String::new(),
    };
    let region = |(name, jurisdiction): (&str, &str)| RegionEntry {
        name: name.to_owned(),
        jurisdiction: jurisdiction.to_owned(),
    };
    let mut config = Config {
        cluster: Cluster {
            initial: (0..NODES).map(initial).collect(),
            regions: REGIONS.into_iter().map(region).collect(),
            groups_per_region,
            directory_rtt_max: "250ms".to_owned(),
            ..Cluster::default()
        },
        node: Node {
            name: host(node),
            ..Node::default()
        },
        storage: Storage {
            engine: "memory".to_owned(),
            ..Storage::default()
        },
        ..Config::default()
    };
    config.tls.plaintext = "allow".to_owned();
    config.client.listen = "0.0.0.0:7001".to_owned();
    config.peer.listen = "0.0.0.0:7002".to_owned();
    config.http.listen = "0.0.0.0:7003".to_owned();
    config.validate().unwrap()
}
