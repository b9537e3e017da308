//! Faults of a run: their kinds, their weights, how they are injected and repaired.

use std::{ops::Range, time::Duration};

use rand::{Rng, SeedableRng, rngs::StdRng};
use stead_client::{Admin, TenantChange, TenantInfo};
use stead_store::engine::memory::DiskOperation;
use tokio::time::{Instant, sleep, timeout};

use crate::{
    cluster::{ActionQueue, ClusterAction, NODES, NODES_PER_REGION, NodeIndex, REGIONS},
    leases::{LEASE_TTL, LeaseChecker},
    load::TENANTS,
    machine::DiskFault,
};

/// Kind of a fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A leader is partitioned from other nodes, but clients reach it.
    LeaderIsolated,
    /// Messages between a leader and other nodes wait, and are delivered later.
    LeaderHeld,
    /// A leader loses power after its disk has synced nothing for a while.
    LeaderPower,
    /// A leader is frozen, and thawed.
    LeaderFrozen,
    /// Leadership is transferred, several times.
    LeaderMoved,
    /// Any node is frozen, and thawed.
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
    /// A region's messages wait, and are delivered later.
    RegionHeld,
    /// A node's wall clock jumps.
    ClockLeaps,
    /// A node's wall clock runs too fast or too slow, from then on.
    ClockDrifts,
    /// A tenant's residency excludes a region, while that is being seeded, and admits it again.
    ResidencyWithdrawn,
    /// The directory's leader is partitioned from other nodes, but clients reach it.
    DirectoryLeaderIsolated,
    /// The directory's leader loses power.
    DirectoryLeaderPower,
    /// Messages between two regions are lost.
    LinkCut,
    /// Messages between two regions wait, and are delivered later.
    LinkHeld,
    /// A machine sleeps: nothing passes, its clocks stand still, and then both jump.
    MachineSlept,
    /// A virtual machine is paused: as [`Fault::MachineSlept`], but only its wall clock jumps.
    MachinePaused,
    /// A region's messages are lost for longer than a lease lasts: its nodes lose their leases.
    LeasesLost,
    /// A leader's machine sleeps for longer than its lease.
    LeaderSlept,
    /// A leader's virtual machine is paused for longer than its lease.
    LeaderPaused,
}

impl Fault {
    /// Tells whether it outlasts a lease. Such faults need the short [`LEASE_TTL`].
    pub(crate) fn outlasts_leases(self) -> bool {
        matches!(self, Self::LeasesLost | Self::LeaderSlept | Self::LeaderPaused)
    }
}

/// Weight of each kind.
const WEIGHTS: [(Fault, u32); 25] = [
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
    (Fault::DirectoryLeaderIsolated, 2),
    (Fault::DirectoryLeaderPower, 3),
    (Fault::LinkCut, 3),
    (Fault::LinkHeld, 1),
    (Fault::MachineSlept, 1),
    (Fault::MachinePaused, 1),
    (Fault::LeasesLost, 3),
    (Fault::LeaderSlept, 1),
    (Fault::LeaderPaused, 1),
];
/// Faults of one run.
const FAULTS: Range<usize> = 3..5;
/// Operations of a disk before one fails, or its power does.
const OPERATIONS_BEFORE_MAX: u64 = 80;
/// Largest jump of a clock, and its largest drift in thousandths.
const LEAP_MS_MAX: i64 = 7_200_000;
const DRIFT_MAX: i64 = 50;
/// Time for which a change of the directory is retried while there are faults, and when there are none.
const RESIDE_MAX: Duration = Duration::from_secs(2);
const HEALED_MAX: Duration = Duration::from_secs(20);
/// Time for which the operator looks for a leader.
const LEADER_WAIT: Duration = Duration::from_secs(2);
/// Time by which a fault that outlasts leases is longer than one, in milliseconds: a node waits three seconds for a lease.
const BEYOND_LEASE_MS: Range<u64> = 3_500..6_000;
/// Time for which the operator looks for a tenant's home.
const HOME_WAIT: Duration = Duration::from_millis(500);
/// Group of the directory.
const DIRECTORY: u32 = 0;
/// The tenant whose residency changes: no watcher watches it.
const RESIDENCY_TENANT: usize = 3;
/// Prefix of the line that lists the faults of a run.
const FAULTS_PREFIX: &str = "faults: ";

/// Draws the faults of a run. A disk is lost once at most: a group of three survives only one loss. One fault outlasts
/// leases at most: that takes long.
pub(crate) fn plan(random: &mut StdRng) -> Vec<Fault> {
    let plan = draw_plan(random);
    let names: Vec<String> = plan.iter().map(|fault| format!("{fault:?}")).collect();
    println!("{FAULTS_PREFIX}{}", names.join(" "));
    plan
}

/// Tells whether a fault of the run with a seed outlasts leases.
pub(crate) fn outlast_leases(seed: u64) -> bool {
    let plan = draw_plan(&mut StdRng::seed_from_u64(seed));
    plan.into_iter().any(Fault::outlasts_leases)
}

fn draw_plan(random: &mut StdRng) -> Vec<Fault> {
    let mut plan = Vec::new();
    let count = random.random_range(FAULTS);
    while plan.len() < count {
        let fault = draw(random);
        let is_rare = matches!(fault, Fault::DiskLost | Fault::ResidencyWithdrawn);
        let is_repeated = is_rare && plan.contains(&fault);
        let is_long = fault.outlasts_leases() && plan.iter().any(|fault: &Fault| fault.outlasts_leases());
        if !is_repeated && !is_long {
            plan.push(fault);
        }
    }
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

/// Returns the faults of a run from its output.
pub(crate) fn parse(text: &str) -> Vec<&str> {
    let line = text.lines().find_map(|line| line.strip_prefix(FAULTS_PREFIX));
    line.unwrap_or_default().split_whitespace().collect()
}

/// Repair of a fault.
#[derive(Debug, Default)]
pub(crate) struct FaultRepair {
    actions: Vec<ClusterAction>,
    /// Whether the tenant's residency is cleared.
    residency: bool,
}

/// Injector of faults.
pub(crate) struct FaultInjector<'a> {
    pub(crate) admin: &'a Admin,
    /// First home groups of the tenants.
    pub(crate) groups: &'a [u32],
    pub(crate) actions: &'a ActionQueue,
    pub(crate) leases: &'a LeaseChecker,
}

impl FaultInjector<'_> {
    /// Injects a fault. Returns its repair.
    pub(crate) async fn inject(&self, fault: Fault, random: &mut StdRng) -> FaultRepair {
        let region = random.random_range(0..REGIONS.len());
        let any = random.random_range(0..NODES);
        let mut repair = FaultRepair::default();
        repair.actions = match fault {
            Fault::LeaderIsolated => self.push_with_undo(
                self.leader(random).await,
                ClusterAction::PartitionNode,
                ClusterAction::HealNode,
            ),
            Fault::LeaderHeld => self.push_with_undo(
                self.leader(random).await,
                ClusterAction::HoldNode,
                ClusterAction::ReleaseNode,
            ),
            Fault::LeaderFrozen => {
                self.push_with_undo(self.leader(random).await, ClusterAction::Freeze, ClusterAction::Thaw)
            }
            Fault::LeaderPower => self.power_off_leader(random).await,
            Fault::LeaderMoved => self.move_leader(random).await,
            Fault::NodeFrozen => self.push_with_undo(any, ClusterAction::Freeze, ClusterAction::Thaw),
            Fault::PowerBetweenWrites => {
                let node = self.leader_or(any, random).await;
                let after = random.random_range(0..OPERATIONS_BEFORE_MAX);
                self.push_with_undo(
                    node,
                    |node| ClusterAction::PowerLossAfter(node, after),
                    ClusterAction::Restart,
                )
            }
            Fault::DiskFails => self.fail_disk(any, random).await,
            Fault::DiskFull => self.push_with_undo(
                self.leader_or(any, random).await,
                ClusterAction::FillDisk,
                ClusterAction::FreeDisk,
            ),
            Fault::DiskLost => self.push_with_undo(any, ClusterAction::LoseDisk, ClusterAction::Restart),
            Fault::ClockLeaps => {
                let node = self.leader_or(any, random).await;
                let ms = random.random_range(-LEAP_MS_MAX..=LEAP_MS_MAX);
                self.actions.push(ClusterAction::JumpClock(node, ms));
                Vec::new()
            }
            Fault::ClockDrifts => {
                let thousandths = random.random_range(-DRIFT_MAX..=DRIFT_MAX);
                self.actions.push(ClusterAction::DriftClock(any, thousandths));
                Vec::new()
            }
            Fault::RegionPower => self.region_power(region, random).await,
            Fault::RegionCut => self.push_with_undo(region, ClusterAction::PartitionRegion, ClusterAction::HealRegion),
            Fault::RegionHeld => self.push_with_undo(region, ClusterAction::HoldRegion, ClusterAction::ReleaseRegion),
            Fault::ResidencyWithdrawn => {
                self.toggle_residency(random).await;
                repair.residency = true;
                Vec::new()
            }
            Fault::DirectoryLeaderIsolated | Fault::DirectoryLeaderPower => {
                let leader = self.leader_of(DIRECTORY).await.unwrap_or(any);
                self.lose_directory_leader(fault, leader, random).await
            }
            Fault::LinkCut | Fault::LinkHeld => self.link_down(fault, region, random),
            Fault::MachineSlept => self.push_with_undo(any, ClusterAction::Suspend, ClusterAction::WakeUp),
            Fault::MachinePaused => self.push_with_undo(any, ClusterAction::Suspend, ClusterAction::Unpause),
            Fault::LeasesLost => self.lose_leases(region, random).await,
            Fault::LeaderSlept => self.suspend_leader(ClusterAction::WakeUp, random).await,
            Fault::LeaderPaused => self.suspend_leader(ClusterAction::Unpause, random).await,
        };
        repair
    }

    async fn lose_directory_leader(&self, fault: Fault, leader: NodeIndex, random: &mut StdRng) -> Vec<ClusterAction> {
        if fault == Fault::DirectoryLeaderPower {
            return self.power_off(leader, random).await;
        }
        self.push_with_undo(leader, ClusterAction::PartitionNode, ClusterAction::HealNode)
    }

    fn link_down(&self, fault: Fault, region: usize, random: &mut StdRng) -> Vec<ClusterAction> {
        let other = (region + random.random_range(1..REGIONS.len())) % REGIONS.len();
        let (down, up) = if fault == Fault::LinkHeld {
            (
                ClusterAction::HoldLink(region, other),
                ClusterAction::ReleaseLink(region, other),
            )
        } else {
            (
                ClusterAction::CutLink(region, other),
                ClusterAction::HealLink(region, other),
            )
        };
        self.actions.push(down);
        vec![up]
    }

    /// Cuts a region off until its nodes have lost their leases and for some time more, in which they must serve nothing
    /// as homes.
    async fn lose_leases(&self, region: usize, random: &mut StdRng) -> Vec<ClusterAction> {
        self.actions.push(ClusterAction::PartitionRegion(region));
        self.leases.begin(region);
        sleep(LEASE_TTL).await;
        pause(random, BEYOND_LEASE_MS).await;
        self.leases.end();
        self.actions.push(ClusterAction::HealRegion(region));
        Vec::new()
    }

    /// Suspends the machine of a leader for longer than its lease.
    async fn suspend_leader(
        &self,
        end: impl Fn(NodeIndex) -> ClusterAction,
        random: &mut StdRng,
    ) -> Vec<ClusterAction> {
        let leader = self.leader(random).await;
        self.actions.push(ClusterAction::Suspend(leader));
        sleep(LEASE_TTL).await;
        pause(random, BEYOND_LEASE_MS).await;
        self.actions.push(end(leader));
        Vec::new()
    }

    /// Pushes an action on a node or a region. Returns the action that ends it.
    fn push_with_undo(
        &self,
        target: usize,
        action: impl Fn(usize) -> ClusterAction,
        undo: impl Fn(usize) -> ClusterAction,
    ) -> Vec<ClusterAction> {
        self.actions.push(action(target));
        vec![undo(target)]
    }

    async fn fail_disk(&self, any: NodeIndex, random: &mut StdRng) -> Vec<ClusterAction> {
        let node = self.leader_or(any, random).await;
        let operations = [DiskOperation::Read, DiskOperation::Write, DiskOperation::Sync];
        let [read, write, sync] = operations.map(DiskFault::Rows);
        let kinds = [DiskFault::LogSync, read, read, write, sync];
        let after = random.random_range(0..OPERATIONS_BEFORE_MAX);
        let kind = kinds[random.random_range(0..kinds.len())];
        self.actions.push(ClusterAction::FailDisk(node, kind, after));
        Vec::new()
    }

    async fn region_power(&self, region: usize, random: &mut StdRng) -> Vec<ClusterAction> {
        let nodes = || (region * NODES_PER_REGION..).take(NODES_PER_REGION);
        nodes().for_each(|node| self.actions.push(ClusterAction::StallSyncs(node)));
        pause(random, 100..500).await;
        nodes().for_each(|node| self.actions.push(ClusterAction::PowerLoss(node)));
        nodes().map(ClusterAction::Restart).collect()
    }

    /// Repairs a fault.
    pub(crate) async fn repair(&self, repair: FaultRepair) {
        repair.actions.into_iter().for_each(|action| self.actions.push(action));
        if repair.residency {
            self.set_residency(&[], RESIDE_MAX).await;
        }
    }

    /// Clears the tenant's residency, which may have failed while there were other faults.
    pub(crate) async fn clear_residency(&self) {
        assert!(
            self.set_residency(&[], HEALED_MAX).await,
            "the directory takes no change though all faults have ended"
        );
    }

    async fn power_off_leader(&self, random: &mut StdRng) -> Vec<ClusterAction> {
        let leader = self.leader(random).await;
        self.power_off(leader, random).await
    }

    async fn power_off(&self, leader: NodeIndex, random: &mut StdRng) -> Vec<ClusterAction> {
        self.actions.push(ClusterAction::StallSyncs(leader));
        pause(random, 10..300).await;
        let silent = random.random();
        self.actions.push(if silent {
            ClusterAction::SilentPowerLoss(leader)
        } else {
            ClusterAction::PowerLoss(leader)
        });
        vec![ClusterAction::Restart(leader)]
    }

    async fn move_leader(&self, random: &mut StdRng) -> Vec<ClusterAction> {
        let group = self.group(random).await;
        for _ in 0..3 {
            let moved = timeout(LEADER_WAIT, self.admin.move_leader(group, None, "a test")).await;
            tracing::info!(group, ok = matches!(moved, Ok(Ok(_))), "leadership handed on");
            pause(random, 100..400).await;
        }
        Vec::new()
    }

    /// Excludes a region from the tenant's residency, admits it, and excludes it while it may be being seeded.
    async fn toggle_residency(&self, random: &mut StdRng) {
        let home = self.home_region(RESIDENCY_TENANT).await;
        let away = (home + random.random_range(1..REGIONS.len())) % REGIONS.len();
        let others = REGIONS.iter().enumerate().filter(|(region, _)| *region != away);
        let without: Vec<&str> = others.map(|(_, (_, jurisdiction))| *jurisdiction).collect();
        self.set_residency(&without, RESIDE_MAX).await;
        pause(random, 300..1_200).await;
        self.set_residency(&[], RESIDE_MAX).await;
        pause(random, 0..400).await;
        self.set_residency(&without, RESIDE_MAX).await;
    }

    /// Sets the tenant's residency; an empty list admits every region. Returns whether the directory took the change.
    async fn set_residency(&self, jurisdictions: &[&str], within: Duration) -> bool {
        let change = TenantChange {
            name: TENANTS[RESIDENCY_TENANT].0.to_owned(),
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

    /// Returns the leader of a home group or, half of the time, another node.
    async fn leader_or(&self, other: NodeIndex, random: &mut StdRng) -> NodeIndex {
        if random.random() {
            self.leader(random).await
        } else {
            other
        }
    }

    /// Returns the home group of a random tenant or, half of the time while one is being moved, the target.
    async fn group(&self, random: &mut StdRng) -> u32 {
        let index = random.random_range(0..self.groups.len());
        let prefers_target = random.random();
        let Some(tenant) = self.tenant(index).await else {
            return self.groups[index];
        };
        let target = tenant.moving.filter(|_| prefers_target);
        target.map_or(tenant.home_group, |moving| moving.to_group)
    }

    /// Returns the home region of a tenant; its first one if no node answers.
    async fn home_region(&self, tenant: usize) -> usize {
        let known = self.tenant(tenant).await;
        let region = known.and_then(|tenant| REGIONS.iter().position(|(name, _)| *name == tenant.home_region));
        region.unwrap_or(TENANTS[tenant].1)
    }

    async fn tenant(&self, index: usize) -> Option<TenantInfo> {
        let asked = timeout(HOME_WAIT, self.admin.tenant(TENANTS[index].0)).await;
        asked.ok()?.ok()
    }

    /// Returns the leader of a home group; a random node if no node answers.
    async fn leader(&self, random: &mut StdRng) -> NodeIndex {
        let group = self.group(random).await;
        let other = random.random_range(0..NODES);
        self.leader_of(group).await.unwrap_or(other)
    }

    /// Returns the leader of a group, if a node names it in time.
    pub(crate) async fn leader_of(&self, group: u32) -> Option<NodeIndex> {
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

/// Sleeps for a random time.
pub(crate) async fn pause(random: &mut StdRng, ms: Range<u64>) {
    sleep(Duration::from_millis(random.random_range(ms))).await;
}
