//! Nine nodes in three regions on simulated disks and links, and what is done to them between two steps.
//!
//! ```text
//! operator (story) -> Orders -> World::step -> turmoil: crash, bounce, partition, repair, hold, release
//!                                          -> Machine: disk (power, room, failures, syncs), wall clock, its end
//! ```
//!
//! # Invariants
//!
//! 1. Nothing here is drawn but from the seed.
//! 2. A node that ends by itself without a reason given by an order fails the run.
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
use stead_replication::Limits;
use stead_server::{
    config::{Checked, Cluster, Config, InitialNode, Node, RegionEntry, Storage},
    environment::Upkeep,
};
use turmoil::{Result, Sim};

use crate::{
    machine::{DiskFault, Machine},
    network,
};

/// The regions and where they lie.
pub(crate) const REGIONS: [(&str, &str); 3] = [("us", "US"), ("eu", "EU"), ("ap", "JP")];
/// Nodes of each region.
pub(crate) const NODES_PER_REGION: usize = 3;
/// All nodes.
pub(crate) const NODES: usize = REGIONS.len() * NODES_PER_REGION;
/// One-way delays between regions, by their places in [`REGIONS`].
const DELAYS_MS: [(usize, usize, u64); 3] = [(0, 1, 40), (0, 2, 75), (1, 2, 100)];
/// A disk syncs in a step with this probability, so that syncs take a few milliseconds.
const SYNC_PROBABILITY: f64 = 0.4;
/// Something that was not synced survives a power loss with this probability.
const SOME_SURVIVE_PROBABILITY: f64 = 0.3;
/// A node that ended by itself is started again after this time, as by its supervisor.
const RESTART_AFTER: Duration = Duration::from_millis(300);
/// What a node says that has lost its disk.
const DISK_LOST: &str = "its disk was lost";

/// Counts the nodes, region by region; a node's number is one more.
pub(crate) type Place = usize;

/// What is done to the cluster between two steps.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Order {
    /// The machine's disk stops syncing: what is written from now on is lost with the power.
    Stall(Place),
    /// The machine loses power: connections are closed, what was not synced is lost but for a prefix.
    PowerLoss(Place),
    /// As [`Order::PowerLoss`], and nobody is told: connections stay open on the other side.
    Silence(Place),
    /// The machine loses power once its disk has done so many more operations: between any two of them.
    CutAfter(Place, u64),
    /// The machine's disk is another one, with nothing on it, when it starts again.
    LoseDisk(Place),
    /// The machine starts again with its disk; one that runs is killed first.
    Restart(Place),
    /// One operation of the machine's disk fails, after so many that do not.
    Fail(Place, DiskFault, u64),
    /// The machine's disk is full.
    Fill(Place),
    /// Ends [`Order::Fill`].
    Free(Place),
    /// The machine stands still: what it sends and is sent waits.
    Freeze(Place),
    /// Ends [`Order::Freeze`].
    Thaw(Place),
    /// The wall clock of the machine leaps by so many milliseconds.
    Leap(Place, i64),
    /// The wall clock of the machine runs too fast by so many thousandths.
    Drift(Place, i64),
    /// Nothing passes between a node and the other nodes, but clients reach it.
    Isolate(Place),
    /// Ends [`Order::Isolate`].
    Join(Place),
    /// What passes between a node and the other nodes waits, but clients reach it.
    HoldNode(Place),
    /// Ends [`Order::HoldNode`].
    ReleaseNode(Place),
    /// Everything between a region and the others is lost.
    Cut(usize),
    /// Ends [`Order::Cut`].
    Heal(usize),
    /// Everything between a region and the others is delayed.
    Hold(usize),
    /// Ends [`Order::Hold`].
    Release(usize),
    /// Ends everything but what cannot end: links and disks are well, who is down starts.
    Peace,
}

/// Orders that wait for the end of a step, and who is gone for good. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orders {
    waiting: Rc<RefCell<VecDeque<Order>>>,
    gone: Rc<RefCell<BTreeSet<Place>>>,
}

impl Orders {
    pub(crate) fn give(&self, order: Order) {
        self.waiting.borrow_mut().push_back(order);
    }

    /// Tells whether a node has ended for good.
    pub(crate) fn is_gone(&self, place: Place) -> bool {
        self.gone.borrow().contains(&place)
    }
}

/// The simulated machines.
pub(crate) struct World {
    pub(crate) sim: Sim<'static>,
    pub(crate) orders: Orders,
    machines: Vec<Machine>,
    /// Hosts of each region: nodes and clients.
    hosts: [Vec<String>; REGIONS.len()],
    random: StdRng,
}

/// Returns the host name of a node.
pub(crate) fn host(place: Place) -> String {
    let (region, _) = REGIONS[place / NODES_PER_REGION];
    format!("{region}-{}", place % NODES_PER_REGION + 1)
}

/// Returns where a node takes clients.
pub(crate) fn client_address(place: Place) -> String {
    format!("{}:7001", host(place))
}

/// How a cluster is set up; a seed decides.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Shape {
    groups_per_region: u32,
    upkeep: Upkeep,
}

impl Shape {
    /// In half of the runs logs and histories are short, so that who was away needs snapshots and seeds; in half of them
    /// regions have several groups.
    pub(crate) fn draw(random: &mut StdRng) -> Self {
        let short = Upkeep {
            log: LogLimits {
                checkpoint_interval: Duration::from_millis(random.random_range(300..2_000)),
                tail_bytes: random.random_range(4..32) << 10,
                ..LogLimits::default()
            },
            history: Limits {
                keep_age: Duration::from_millis(500),
                interval: Duration::from_millis(700),
                ..Limits::default()
            },
        };
        Self {
            groups_per_region: random.random_range(1..=2),
            upkeep: if random.random() { short } else { Upkeep::default() },
        }
    }
}

impl World {
    /// Starts nine nodes with empty disks.
    pub(crate) fn new(seed: u64, length: Duration) -> Self {
        let mut random = StdRng::seed_from_u64(seed);
        let shape = Shape::draw(&mut random);
        println!("{shape:?}");
        let mut this = Self {
            sim: network::simulation(seed, length),
            orders: Orders::default(),
            machines: Vec::new(),
            hosts: Default::default(),
            random,
        };
        for place in 0..NODES {
            let machine = Machine::new();
            let software = machine.software(config(place, shape.groups_per_region), shape.upkeep);
            this.sim.host(host(place), software);
            this.machines.push(machine);
            this.hosts[place / NODES_PER_REGION].push(host(place));
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
        self.stretch_links();
        while !network::step(&mut self.sim) {
            for place in 0..NODES {
                self.look_after(place);
            }
            loop {
                let order = self.orders.waiting.borrow_mut().pop_front();
                let Some(order) = order else { break };
                self.obey(order);
            }
        }
        let lost = (0..NODES).filter(|place| self.machines[*place].has_lost_disk());
        for place in lost {
            assert!(self.orders.is_gone(place), "{} went on without its disk", host(place));
        }
        let excused = (0..NODES).filter(|place| self.machines[*place].is_excused());
        excused.map(host).collect()
    }

    /// Syncs a machine's disk, now and then; crashes it once its power is off, starts it again once it has ended.
    fn look_after(&mut self, place: Place) {
        let now = self.sim.elapsed();
        let machine = &mut self.machines[place];
        if machine.disk().is_cut() {
            return self.power_loss(place);
        }
        if machine.is_busy() && self.random.random_bool(SYNC_PROBABILITY) {
            // Whoever waits for it is told at once, and logs as its node.
            let span = tracing::info_span!("node", name = host(place).as_str());
            span.in_scope(|| machine.disk().log.sync());
        }
        if let Some(why) = machine.take_end() {
            tracing::info!(place, why, "ended by itself");
            println!("{now:?} {} ended by itself: {why}", host(place));
            if machine.has_lost_disk() {
                assert!(
                    why.contains(DISK_LOST),
                    "{} does not say that its disk is lost: {why}",
                    host(place)
                );
                self.orders.gone.borrow_mut().insert(place);
                return;
            }
            machine.restart_at = Some(now + RESTART_AFTER);
        }
        if machine.restart_at.is_some_and(|at| at <= now) {
            machine.starts();
            self.sim.bounce(host(place));
        }
    }

    fn stretch_links(&self) {
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

    fn obey(&mut self, order: Order) {
        tracing::info!(?order, at = ?self.sim.elapsed(), "order");
        println!("{:?} {order:?}", self.sim.elapsed());
        match order {
            Order::Stall(place) => self.machines[place].is_stalled = true,
            Order::PowerLoss(place) => self.power_loss(place),
            Order::Silence(place) => {
                self.between(place, self.hosts.iter().flatten(), Link::Partition);
                self.power_loss(place);
                self.between(place, self.hosts.iter().flatten(), Link::Repair);
            }
            Order::CutAfter(place, operations) => self.machines[place].cut_after(operations),
            Order::LoseDisk(place) => {
                self.power_loss(place);
                self.machines[place].lose_disk();
            }
            Order::Restart(place) => self.restart(place),
            Order::Fail(place, fault, after) => self.machines[place].fail(fault, after),
            Order::Fill(place) => self.machines[place].fill(true),
            Order::Free(place) => self.machines[place].fill(false),
            Order::Freeze(place) => {
                self.machines[place].is_stalled = true;
                self.between(place, self.hosts.iter().flatten(), Link::Hold);
            }
            Order::Thaw(place) => {
                self.machines[place].is_stalled = false;
                self.between(place, self.hosts.iter().flatten(), Link::Release);
            }
            Order::Leap(place, ms) => self.machines[place].clock.leap(ms),
            Order::Drift(place, thousandths) => {
                let now = u64::try_from(self.sim.since_epoch().as_millis()).expect("simulations are short");
                self.machines[place].clock.drift(now, thousandths);
            }
            Order::Isolate(place) => self.between(place, nodes().iter(), Link::Partition),
            Order::Join(place) => self.between(place, nodes().iter(), Link::Repair),
            Order::HoldNode(place) => self.between(place, nodes().iter(), Link::Hold),
            Order::ReleaseNode(place) => self.between(place, nodes().iter(), Link::Release),
            Order::Cut(region) => self.around(region, Link::Partition),
            Order::Heal(region) => self.around(region, Link::Repair),
            Order::Hold(region) => self.around(region, Link::Hold),
            Order::Release(region) => self.around(region, Link::Release),
            Order::Peace => self.peace(),
        }
    }

    fn restart(&mut self, place: Place) {
        if self.orders.is_gone(place) {
            return;
        }
        if self.machines[place].is_armed() {
            self.power_loss(place);
        }
        self.machines[place].starts();
        self.sim.bounce(host(place));
    }

    fn peace(&mut self) {
        for region in 0..REGIONS.len() {
            self.around(region, Link::Release);
            self.around(region, Link::Repair);
        }
        for place in 0..NODES {
            self.between(place, self.hosts.iter().flatten(), Link::Release);
            self.between(place, self.hosts.iter().flatten(), Link::Repair);
            let machine = &mut self.machines[place];
            machine.fill(false);
            machine.is_stalled = false;
            // One that ended by itself is about to be started.
            let is_down = !self.sim.is_host_running(host(place)) && machine.restart_at.is_none();
            if machine.is_armed() || is_down {
                self.restart(place);
            }
        }
    }

    fn power_loss(&mut self, place: Place) {
        let machine = &mut self.machines[place];
        let disk = machine.disk();
        let (log, rows) = (disk.log.pending(), disk.rows.pending());
        let survivors = (survivors(&mut self.random, log), survivors(&mut self.random, rows));
        tracing::info!(log, rows, ?survivors, "unsynced at the power loss");
        disk.power_loss(survivors.0, survivors.1);
        machine.lost_power();
        self.sim.crash(host(place));
    }

    /// Changes the links between a node and others.
    fn between<'a>(&self, place: Place, others: impl Iterator<Item = &'a String>, link: Link) {
        let name = host(place);
        for other in others.filter(|other| **other != name) {
            link.apply(&self.sim, &name, other);
        }
    }

    /// Changes the links between a region and the others.
    fn around(&self, region: usize, link: Link) {
        for one in &self.hosts[region] {
            let others = self.hosts.iter().enumerate().filter(|(other, _)| *other != region);
            for other in others.flat_map(|(_, hosts)| hosts) {
                link.apply(&self.sim, one, other);
            }
        }
    }
}

/// Returns how much of what is not synced survives: mostly nothing, or else any prefix.
fn survivors(random: &mut StdRng, pending: usize) -> usize {
    if random.random_bool(SOME_SURVIVE_PROBABILITY) {
        random.random_range(0..=pending)
    } else {
        0
    }
}

/// What becomes of a link.
#[derive(Clone, Copy)]
enum Link {
    Partition,
    Repair,
    Hold,
    Release,
}

impl Link {
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

fn config(place: Place, groups_per_region: u32) -> Checked {
    let initial = |place: Place| InitialNode {
        name: host(place),
        region: REGIONS[place / NODES_PER_REGION].0.to_owned(),
        client: client_address(place),
        peer: format!("{}:7002", host(place)),
        http: format!("{}:7003", host(place)),
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
            name: host(place),
            ..Node::default()
        },
        storage: Storage {
            engine: "memory".to_owned(),
            ..Storage::default()
        },
        ..Config::default()
    };
    config.client.listen = "0.0.0.0:7001".to_owned();
    config.peer.listen = "0.0.0.0:7002".to_owned();
    config.http.listen = "0.0.0.0:7003".to_owned();
    config.check().unwrap()
}
