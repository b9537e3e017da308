//! What can happen to a cluster, how often, and what ends it.

use std::{ops::Range, time::Duration};

use rand::{Rng, rngs::StdRng};
use stead_client::{Admin, TenantChange};
use stead_store::engine::memory::Operation;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    cluster::{NODES, NODES_PER_REGION, Order, Orders, Place, REGIONS},
    load::TENANTS,
    machine::DiskFault,
};

/// One kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A leader hears nothing of other nodes, but clients reach it.
    LeaderIsolated,
    /// What a leader and other nodes send each other waits, and comes.
    LeaderHeld,
    /// A leader loses power after its disk has synced nothing for a while.
    LeaderPower,
    /// A leader stands still, and goes on.
    LeaderFrozen,
    /// Leadership is handed on, again and again.
    LeaderMoved,
    /// Any node stands still, and goes on.
    NodeFrozen,
    /// A node loses power between any two operations of its disk.
    PowerBetweenWrites,
    /// A read, a write or a sync of a node's disk fails, once.
    DiskFails,
    /// A node's disk is full for a while.
    DiskFull,
    /// A node loses its disk.
    DiskLost,
    /// All nodes of a region lose power.
    RegionPower,
    /// A region's messages are lost.
    RegionCut,
    /// A region's messages wait, and come.
    RegionHeld,
    /// A node's wall clock leaps.
    ClockLeaps,
    /// A node's wall clock runs too fast or too slow, from then on.
    ClockDrifts,
    /// A region may not hold a tenant any more, while it is being seeded with it, and may again.
    ResidencyWithdrawn,
}

/// Each with its weight.
const WEIGHTS: [(Fault, u32); 16] = [
    (Fault::LeaderIsolated, 3),
    (Fault::LeaderHeld, 2),
    (Fault::LeaderPower, 4),
    (Fault::LeaderFrozen, 2),
    (Fault::LeaderMoved, 2),
    (Fault::NodeFrozen, 1),
    (Fault::PowerBetweenWrites, 4),
    (Fault::DiskFails, 3),
    (Fault::DiskFull, 2),
    (Fault::DiskLost, 1),
    (Fault::RegionPower, 3),
    (Fault::RegionCut, 2),
    (Fault::RegionHeld, 1),
    (Fault::ClockLeaps, 2),
    (Fault::ClockDrifts, 1),
    (Fault::ResidencyWithdrawn, 2),
];
/// Faults of one run.
const FAULTS: Range<usize> = 3..5;
/// Operations of a disk before one fails, or its power does.
const OPERATIONS_BEFORE_MAX: u64 = 80;
/// How far a clock leaps, and by how many thousandths it drifts.
const LEAP_MS_MAX: i64 = 7_200_000;
const DRIFT_MAX: i64 = 50;
/// How long the directory is asked for a change while there are faults, and when there are none.
const RESIDE_MAX: Duration = Duration::from_secs(2);
const HEALED_MAX: Duration = Duration::from_secs(20);
/// How long the operator asks who leads.
const LEADER_WAIT: Duration = Duration::from_secs(2);
/// The tenant whose residency changes: nobody watches it.
const MOVED_TENANT: usize = 3;
/// What the line begins with that says what a run had.
const TOLD: &str = "faults: ";

/// Draws the faults of a run. A disk is lost once at most: a group of three has no more to lose.
pub(crate) fn plan(random: &mut StdRng) -> Vec<Fault> {
    let mut plan = Vec::new();
    let count = random.random_range(FAULTS);
    while plan.len() < count {
        let fault = draw(random);
        let is_rare = matches!(fault, Fault::DiskLost | Fault::ResidencyWithdrawn);
        if !is_rare || !plan.contains(&fault) {
            plan.push(fault);
        }
    }
    let names: Vec<String> = plan.iter().map(|fault| format!("{fault:?}")).collect();
    println!("{TOLD}{}", names.join(" "));
    plan
}

fn draw(random: &mut StdRng) -> Fault {
    let sum = WEIGHTS.iter().map(|(_, weight)| weight).sum();
    let mut at = random.random_range(0..sum);
    for (fault, weight) in WEIGHTS {
        if at < weight {
            return fault;
        }
        at -= weight;
    }
    unreachable!("it is below the sum")
}

/// Reads what a run had from its output.
pub(crate) fn told(text: &str) -> Vec<&str> {
    let line = text.lines().find_map(|line| line.strip_prefix(TOLD));
    line.unwrap_or_default().split_whitespace().collect()
}

/// What ends a fault.
#[derive(Debug, Default)]
pub(crate) struct Cure {
    orders: Vec<Order>,
    /// The tenant may be everywhere again.
    residency: bool,
}

/// Who lets faults happen.
pub(crate) struct Strikes<'a> {
    pub(crate) admin: &'a Admin,
    /// The homes of the tenants.
    pub(crate) groups: &'a [u32],
    pub(crate) orders: &'a Orders,
}

impl Strikes<'_> {
    /// Lets a fault happen. Returns what ends it.
    pub(crate) async fn strike(&self, fault: Fault, random: &mut StdRng) -> Cure {
        let region = random.random_range(0..REGIONS.len());
        let any = random.random_range(0..NODES);
        let mut cure = Cure::default();
        cure.orders = match fault {
            Fault::LeaderIsolated => self.hit(self.leader(random).await, Order::Isolate, Order::Join),
            Fault::LeaderHeld => self.hit(self.leader(random).await, Order::HoldNode, Order::ReleaseNode),
            Fault::LeaderFrozen => self.hit(self.leader(random).await, Order::Freeze, Order::Thaw),
            Fault::LeaderPower => self.power(random).await,
            Fault::LeaderMoved => self.move_leader(random).await,
            Fault::NodeFrozen => self.hit(any, Order::Freeze, Order::Thaw),
            Fault::PowerBetweenWrites => {
                let node = self.leader_or(any, random).await;
                let after = random.random_range(0..OPERATIONS_BEFORE_MAX);
                self.hit(node, |node| Order::CutAfter(node, after), Order::Restart)
            }
            Fault::DiskFails => self.fail_disk(any, random).await,
            Fault::DiskFull => self.hit(self.leader_or(any, random).await, Order::Fill, Order::Free),
            Fault::DiskLost => self.hit(any, Order::LoseDisk, Order::Restart),
            Fault::ClockLeaps => {
                let node = self.leader_or(any, random).await;
                let ms = random.random_range(-LEAP_MS_MAX..=LEAP_MS_MAX);
                self.orders.give(Order::Leap(node, ms));
                Vec::new()
            }
            Fault::ClockDrifts => {
                let thousandths = random.random_range(-DRIFT_MAX..=DRIFT_MAX);
                self.orders.give(Order::Drift(any, thousandths));
                Vec::new()
            }
            Fault::RegionPower => self.region_power(region, random).await,
            Fault::RegionCut => self.hit(region, Order::Cut, Order::Heal),
            Fault::RegionHeld => self.hit(region, Order::Hold, Order::Release),
            Fault::ResidencyWithdrawn => {
                self.withdraw(random).await;
                cure.residency = true;
                Vec::new()
            }
        };
        cure
    }

    /// Gives an order about a node or a region. Returns what ends it.
    fn hit(&self, whom: usize, order: impl Fn(usize) -> Order, end: impl Fn(usize) -> Order) -> Vec<Order> {
        self.orders.give(order(whom));
        vec![end(whom)]
    }

    async fn fail_disk(&self, any: Place, random: &mut StdRng) -> Vec<Order> {
        let node = self.leader_or(any, random).await;
        let operations = [Operation::Read, Operation::Write, Operation::Sync];
        let [read, write, sync] = operations.map(DiskFault::Rows);
        let kinds = [DiskFault::LogSync, read, read, write, sync];
        let after = random.random_range(0..OPERATIONS_BEFORE_MAX);
        let kind = kinds[random.random_range(0..kinds.len())];
        self.orders.give(Order::Fail(node, kind, after));
        Vec::new()
    }

    async fn region_power(&self, region: usize, random: &mut StdRng) -> Vec<Order> {
        let nodes = || (region * NODES_PER_REGION..).take(NODES_PER_REGION);
        nodes().for_each(|node| self.orders.give(Order::Stall(node)));
        pause(random, 100..500).await;
        nodes().for_each(|node| self.orders.give(Order::PowerLoss(node)));
        nodes().map(Order::Restart).collect()
    }

    /// Ends a fault.
    pub(crate) async fn cure(&self, cure: Cure) {
        cure.orders.into_iter().for_each(|order| self.orders.give(order));
        if cure.residency {
            self.reside(&[], RESIDE_MAX).await;
        }
    }

    /// Ends what could not be ended while there were other faults.
    pub(crate) async fn admit_everywhere(&self) {
        assert!(
            self.reside(&[], HEALED_MAX).await,
            "the directory takes no change in peace"
        );
    }

    async fn power(&self, random: &mut StdRng) -> Vec<Order> {
        let leader = self.leader(random).await;
        self.orders.give(Order::Stall(leader));
        pause(random, 10..300).await;
        let silent = random.random();
        self.orders.give(if silent {
            Order::Silence(leader)
        } else {
            Order::PowerLoss(leader)
        });
        vec![Order::Restart(leader)]
    }

    async fn move_leader(&self, random: &mut StdRng) -> Vec<Order> {
        let group = self.groups[random.random_range(0..self.groups.len())];
        for _ in 0..3 {
            let moved = timeout(LEADER_WAIT, self.admin.move_leader(group, None, "a test")).await;
            tracing::info!(group, ok = matches!(moved, Ok(Ok(_))), "leadership handed on");
            pause(random, 100..400).await;
        }
        Vec::new()
    }

    /// Withdraws a tenant from a region, lets it in, and withdraws it while it may be being seeded.
    async fn withdraw(&self, random: &mut StdRng) {
        let home = TENANTS[MOVED_TENANT].1;
        let away = (home + random.random_range(1..REGIONS.len())) % REGIONS.len();
        let others = REGIONS.iter().enumerate().filter(|(region, _)| *region != away);
        let without: Vec<&str> = others.map(|(_, (_, jurisdiction))| *jurisdiction).collect();
        self.reside(&without, RESIDE_MAX).await;
        pause(random, 300..1_200).await;
        self.reside(&[], RESIDE_MAX).await;
        pause(random, 0..400).await;
        self.reside(&without, RESIDE_MAX).await;
    }

    /// Says where the tenant may be; nowhere: everywhere. Tells whether the directory has heard it.
    async fn reside(&self, jurisdictions: &[&str], within: Duration) -> bool {
        let change = TenantChange {
            name: TENANTS[MOVED_TENANT].0.to_owned(),
            residency: Some(jurisdictions.iter().map(|name| (*name).to_owned()).collect()),
            ..TenantChange::default()
        };
        let until = Instant::now() + within;
        while let Err(error) = self.admin.update_tenant(change.clone()).await {
            tracing::info!(%error, ?jurisdictions, "residency not changed yet");
            if Instant::now() > until {
                return false;
            }
            sleep(Duration::from_millis(100)).await;
        }
        true
    }

    /// Returns the leader of a home, or, half of the time, another node.
    async fn leader_or(&self, other: Place, random: &mut StdRng) -> Place {
        if random.random() {
            self.leader(random).await
        } else {
            other
        }
    }

    /// Returns the node that leads a home; any node if nobody can be asked.
    async fn leader(&self, random: &mut StdRng) -> Place {
        let group = self.groups[random.random_range(0..self.groups.len())];
        let other = random.random_range(0..NODES);
        self.leader_of(group).await.unwrap_or(other)
    }

    /// Returns the node that leads a group, if that can be found out in time.
    pub(crate) async fn leader_of(&self, group: u32) -> Option<Place> {
        let ask = async {
            loop {
                let known = self.admin.group(group).await;
                if let Some(leader) = known.ok().and_then(|group| group.status?.leader) {
                    return usize::try_from(leader).unwrap() - 1;
                }
                sleep(Duration::from_millis(100)).await;
            }
        };
        timeout(LEADER_WAIT, ask).await.ok()
    }
}

/// Waits for a time that chance decides.
pub(crate) async fn pause(random: &mut StdRng, ms: Range<u64>) {
    sleep(Duration::from_millis(random.random_range(ms))).await;
}
