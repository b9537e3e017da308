//! Nine nodes in three regions on simulated disks and links, and what is done to them between two steps.
//!
//! ```text
//! operator (story) -> Orders -> World::step -> turmoil: crash, bounce, partition, repair
//!                                          -> disks: power loss, syncs
//! ```
//!
//! # Invariants
//!
//! 1. Nothing here is drawn but from the seed.
//! 2. A node that ends by itself fails the run.
//! 3. What a node wrote is durable only when its disk has synced, some steps later.

use std::{
    cell::RefCell,
    collections::{BTreeSet, VecDeque},
    rc::Rc,
    time::Duration,
};

use rand::{Rng, SeedableRng, rngs::StdRng};
use stead_server::{
    config::{Checked, Cluster, Config, InitialNode, Node, RegionEntry, Storage},
    node,
};
use stead_store::Disk;
use tokio_util::sync::CancellationToken;
use turmoil::{Result, Sim};

use crate::network;

/// The regions and where they lie.
pub(crate) const REGIONS: [(&str, &str); 3] = [("us", "US"), ("eu", "EU"), ("ap", "JP")];
/// Nodes of each region.
pub(crate) const NODES_PER_REGION: usize = 3;
/// One-way delays between regions, by their places in [`REGIONS`].
const DELAYS_MS: [(usize, usize, u64); 3] = [(0, 1, 40), (0, 2, 75), (1, 2, 100)];
/// A disk syncs in a step with this probability, so that syncs take a few milliseconds.
const SYNC_PROBABILITY: f64 = 0.4;
/// Something that was not synced survives a power loss with this probability.
const SOME_SURVIVE_PROBABILITY: f64 = 0.3;

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
    /// The machine starts again with its disk.
    Restart(Place),
    /// Nothing passes between a node and the other nodes, but clients reach it.
    Isolate(Place),
    /// Ends [`Order::Isolate`].
    Join(Place),
    /// Everything between a region and the others is lost.
    Cut(usize),
    /// Ends [`Order::Cut`].
    Heal(usize),
    /// Everything between a region and the others is delayed.
    Hold(usize),
    /// Ends [`Order::Hold`].
    Release(usize),
}

/// Orders that wait for the end of a step. Clones share them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Orders(Rc<RefCell<VecDeque<Order>>>);

impl Orders {
    pub(crate) fn give(&self, order: Order) {
        self.0.borrow_mut().push_back(order);
    }
}

/// The simulated machines.
pub(crate) struct World {
    pub(crate) sim: Sim<'static>,
    pub(crate) orders: Orders,
    disks: Vec<Disk>,
    stalled: BTreeSet<Place>,
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

impl World {
    /// Starts nine nodes with empty disks.
    pub(crate) fn new(seed: u64, length: Duration) -> Self {
        let mut this = Self {
            sim: network::simulation(seed, length),
            orders: Orders::default(),
            disks: Vec::new(),
            stalled: BTreeSet::new(),
            hosts: Default::default(),
            random: StdRng::seed_from_u64(seed),
        };
        for place in 0..REGIONS.len() * NODES_PER_REGION {
            let disk = Disk::default();
            disk.log.hold_syncs(true);
            this.disks.push(disk.clone());
            this.sim.host(host(place), move || run(config(place), disk.clone()));
            this.hosts[place / NODES_PER_REGION].push(host(place));
        }
        this
    }

    /// Adds a client in a region.
    pub(crate) fn client(&mut self, region: usize, name: &str, software: impl Future<Output = Result> + 'static) {
        self.sim.client(name, software);
        self.hosts[region].push(name.to_owned());
    }

    /// Runs until every client is done.
    pub(crate) fn run(&mut self) {
        self.stretch_links();
        while !network::step(&mut self.sim) {
            self.sync_disks();
            loop {
                let order = self.orders.0.borrow_mut().pop_front();
                let Some(order) = order else { break };
                self.obey(order);
            }
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

    fn sync_disks(&mut self) {
        for (place, disk) in self.disks.iter().enumerate() {
            let busy = disk.log.pending() > 0 && !self.stalled.contains(&place);
            if busy && self.random.random_bool(SYNC_PROBABILITY) {
                disk.log.sync();
            }
        }
    }

    fn obey(&mut self, order: Order) {
        tracing::info!(?order, at = ?self.sim.elapsed(), "order");
        println!("{:?} {order:?}", self.sim.elapsed());
        match order {
            Order::Stall(place) => {
                self.stalled.insert(place);
            }
            Order::PowerLoss(place) => self.power_loss(place),
            Order::Silence(place) => {
                self.between(place, self.hosts.iter().flatten(), Link::Partition);
                self.power_loss(place);
                self.between(place, self.hosts.iter().flatten(), Link::Repair);
            }
            Order::Restart(place) => self.sim.bounce(host(place)),
            Order::Isolate(place) => self.between(place, nodes().iter(), Link::Partition),
            Order::Join(place) => self.between(place, nodes().iter(), Link::Repair),
            Order::Cut(region) => self.around(region, Link::Partition),
            Order::Heal(region) => self.around(region, Link::Repair),
            Order::Hold(region) => self.around(region, Link::Hold),
            Order::Release(region) => self.around(region, Link::Release),
        }
    }

    fn power_loss(&mut self, place: Place) {
        self.stalled.remove(&place);
        let disk = self.disks[place].clone();
        let (log, rows) = (disk.log.pending(), disk.rows.pending());
        let survivors = (self.survivors(log), self.survivors(rows));
        tracing::info!(log, rows, ?survivors, "unsynced at the power loss");
        disk.log.power_loss(survivors.0);
        disk.rows.power_loss(survivors.1);
        self.sim.crash(host(place));
    }

    /// Returns how much of what is not synced survives: mostly nothing, or else any prefix.
    fn survivors(&mut self, pending: usize) -> usize {
        if self.random.random_bool(SOME_SURVIVE_PROBABILITY) {
            self.random.random_range(0..=pending)
        } else {
            0
        }
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
    (0..REGIONS.len() * NODES_PER_REGION).map(host).collect()
}

async fn run(config: Checked, disk: Disk) -> Result {
    node::run(
        config,
        network::environment(),
        Some(disk),
        CancellationToken::new(),
        || {},
    )
    .await?;
    Err("a node that was not stopped ended".into())
}

fn config(place: Place) -> Checked {
    let initial = |place: Place| InitialNode {
        name: host(place),
        region: REGIONS[place / NODES_PER_REGION].0.to_owned(),
        client: client_address(place),
        peer: format!("{}:7002", host(place)),
        http: format!("{}:7003", host(place)),
        witness: false,
    };
    let region = |(name, jurisdiction): (&str, &str)| RegionEntry {
        name: name.to_owned(),
        jurisdiction: jurisdiction.to_owned(),
    };
    let mut config = Config {
        cluster: Cluster {
            initial: (0..REGIONS.len() * NODES_PER_REGION).map(initial).collect(),
            regions: REGIONS.into_iter().map(region).collect(),
            groups_per_region: 1,
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
