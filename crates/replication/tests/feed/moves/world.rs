//! World of one cell of the table: two groups of three nodes in two regions, a directory, and one tenant.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use stead_replication::{RetentionLimits, SeedLimits};
use stead_state::directory::{MemberState, OperationResult};
use stead_state::shard::ApplyResult;
use stead_state::shard::apply_result::WriteResult;
use stead_state::shard::command::{Effect, Operation, Write};
use stead_state::shard::record::{Role, TenantRecord};
use stead_testing::MemoryNetwork;
use stead_types::{GroupId, Revision, TenantNumber};
use tokio::time::{Instant, sleep, timeout};

use super::directory::{TestDirectory, group_of};
use crate::world::{Node, NodeSetup};

/// The regions, each with one group: the first home, and the target of the move.
pub const REGIONS: [&str; 2] = ["home", "far"];
pub const NODES_PER_REGION: u64 = 3;
pub const SOURCE: GroupId = GroupId::new(1);
pub const TARGET: GroupId = GroupId::new(2);
/// Name of the tenant.
pub const NAME: &str = "acme";
/// One-way delay between the regions.
const FAR: Duration = Duration::from_millis(40);
/// Lease of a node that reaches the directory.
const LEASE: Duration = Duration::from_secs(60);
/// Longest wait for a condition: longer than the longest backoffs, and an election.
const PATIENCE: Duration = Duration::from_secs(120);
const LOOK_INTERVAL: Duration = Duration::from_millis(1);
/// Pause between two writes of the load.
const WRITE_PAUSE: Duration = Duration::from_millis(15);
/// Histories are so short that a new follower must be seeded.
const LIMITS: RetentionLimits = RetentionLimits {
    keep_age: Duration::from_secs(1),
    keep_len: 1 << 30,
    age_max: Duration::from_secs(300),
    len_max: 1 << 30,
    interval: Duration::from_secs(2),
};

/// The groups, the directory and the tenant.
pub struct World {
    pub directory: TestDirectory,
    pub tenant: TenantNumber,
    net: MemoryNetwork,
    nodes: BTreeMap<u64, Node>,
    dead: RefCell<BTreeSet<u64>>,
    /// Revisions of acknowledged writes, in their order.
    acknowledged: RefCell<Vec<Revision>>,
}

/// Returns the nodes of a group.
pub fn nodes_of(group: GroupId) -> impl Iterator<Item = u64> {
    let first = u64::from(group.get() - 1) * NODES_PER_REGION + 1;
    first..first + NODES_PER_REGION
}

impl World {
    /// Starts the groups and creates the tenant, with a follower in the other region or with a history that a new
    /// follower is seeded for.
    pub async fn start(is_followed: bool) -> Self {
        let (net, directory) = (MemoryNetwork::default(), TestDirectory::new());
        for (one, other) in nodes_of(SOURCE).flat_map(|one| nodes_of(TARGET).map(move |other| (one, other))) {
            net.delay(one, other, FAR);
        }
        let mut nodes = BTreeMap::new();
        for group in [SOURCE, TARGET] {
            for id in nodes_of(group) {
                let leases = directory.clone();
                let setup = NodeSetup {
                    group,
                    id,
                    voters: nodes_of(group).collect(),
                    limits: LIMITS,
                    seeds: SeedLimits::default(),
                    directory: directory.access(id),
                    lease_left: std::sync::Arc::new(move |_| leases.grants(id).then_some(LEASE)),
                    room: std::sync::Arc::new(|_| Ok(())),
                };
                let node = Node::start(&net, setup).await;
                directory.add_view(id, node.directory_view.clone());
                nodes.insert(id, node);
            }
        }
        let world = Self {
            tenant: directory.create(is_followed),
            directory,
            net,
            nodes,
            dead: RefCell::default(),
            acknowledged: RefCell::default(),
        };
        let mut last = Revision::ZERO;
        for number in 0..20 {
            last = world.write(number).await;
        }
        if is_followed {
            let has_all = |world: &Self| world.record(TARGET)?.live.revision.ge(&last).then_some(());
            world.eventually("the follower", has_all).await;
        } else {
            let floor = |world: &Self| Some(world.record(SOURCE)?.live.retention_floor.sequence().get());
            let has_moved = |world: &Self| floor(world).filter(|floor| *floor > 10);
            world.eventually("the past to go", has_moved).await;
        }
        world
    }

    /// Writes until it is told to stop.
    pub async fn load(&self) {
        for number in 0.. {
            self.write(number).await;
            sleep(WRITE_PAUSE).await;
        }
    }

    /// Writes at whichever group owns the tenant, until it is acknowledged.
    pub async fn write(&self, number: u64) -> Revision {
        let value = Bytes::copy_from_slice(&number.to_be_bytes());
        let operation = Operation::new(format!("key-{}", number % 20), Effect::put(value));
        let command = Write::new(self.tenant, None, operation).encode();
        let writing = async {
            loop {
                for group in [SOURCE, TARGET] {
                    let owns = self.record(group).and_then(|record| record.owned());
                    let leader = owns.and_then(|_| self.leader(group));
                    let Some(leader) = leader else { continue };
                    let proposed = self.nodes[&leader]
                        .group
                        .propose(self.tenant.get(), vec![command.clone()]);
                    // A leader that has just been killed never answers.
                    let answers = timeout(Duration::from_secs(1), proposed).await;
                    let answer = answers.ok().and_then(Result::ok).map(|mut answers| answers.remove(0));
                    if let Some(ApplyResult::Write(WriteResult { revision, .. })) = answer {
                        return revision;
                    }
                }
                sleep(LOOK_INTERVAL).await;
            }
        };
        let revision = timeout(PATIENCE, writing).await.expect("somebody takes writes");
        self.acknowledged.borrow_mut().push(revision);
        revision
    }

    /// Kills the leader of a group: nothing passes from or to it any more.
    pub fn kill_leader(&self, group: GroupId) {
        let leader = self.leader(group).unwrap_or_else(|| nodes_of(group).next().unwrap());
        self.dead.borrow_mut().insert(leader);
        self.directory.set_cut(std::iter::once(leader), true);
        self.net.kill(leader);
        let others = self.nodes.keys().filter(|other| **other != leader);
        others.for_each(|other| self.net.cut(leader, *other));
    }

    /// Cuts the link between the groups, or heals it.
    pub fn set_link_cut(&self, is_cut: bool) {
        for (one, other) in nodes_of(SOURCE).flat_map(|one| nodes_of(TARGET).map(move |other| (one, other))) {
            if is_cut {
                self.net.cut(one, other);
            } else {
                self.net.heal(one, other);
            }
        }
    }

    /// Breaks all connections between the groups.
    pub fn break_streams(&self) {
        for (one, other) in nodes_of(SOURCE).flat_map(|one| nodes_of(TARGET).map(move |other| (one, other))) {
            self.net.break_all(one, other);
        }
    }

    fn leader(&self, group: GroupId) -> Option<u64> {
        let dead = self.dead.borrow();
        let mut living = nodes_of(group).filter(|node| !dead.contains(node));
        living.find(|node| self.nodes[node].group.is_leader())
    }

    /// Returns the record of the tenant at a group's leader.
    pub fn record(&self, group: GroupId) -> Option<TenantRecord> {
        self.nodes[&self.leader(group)?].record(self.tenant)
    }

    /// Waits for a condition.
    pub async fn eventually<T>(&self, what: &str, condition: impl Fn(&Self) -> Option<T>) -> T {
        let until = Instant::now() + PATIENCE;
        loop {
            if let Some(found) = condition(self) {
                return found;
            }
            if Instant::now() > until {
                let tenant = self.directory.tenant();
                let records = [self.record(SOURCE), self.record(TARGET)];
                panic!("timed out waiting for {what}: {tenant:#?} {records:#?}");
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    /// Waits until an operation has ended and nothing of it is left: the recorded home serves, every other member follows
    /// it, and who is no member has erased the tenant.
    pub async fn wait_until_settled(&self, operation: u64) -> OperationResult {
        let result = self
            .eventually("the end of the operation", |world| world.directory.result(operation))
            .await;
        let stay = |world: &Self| {
            let tenant = world.directory.tenant();
            let stays = |member: &stead_state::directory::ReplicaSetMember| member.state == MemberState::Staying;
            (tenant.moving.is_none() && tenant.members.iter().all(stays)).then_some(())
        };
        self.eventually("members that stay", stay).await;
        let tenant = self.directory.tenant();
        let served = self.write(u64::MAX).await;
        assert_eq!(
            served.epoch(),
            tenant.epoch,
            "served in another epoch than the recorded one"
        );
        self.eventually("equal replicas", |world| world.is_equal().then_some(()))
            .await;
        self.check_acknowledged();
        result
    }

    /// Tells whether every living node has what the directory says.
    fn is_equal(&self) -> bool {
        let tenant = self.directory.tenant();
        let Some(home) = self.record(tenant.home) else {
            return false;
        };
        let dead = self.dead.borrow();
        let mut living = self.nodes.iter().filter(|(id, _)| !dead.contains(id));
        living.all(|(_, node)| {
            let group = node.group.id();
            let record = node.record(self.tenant);
            if group == tenant.home {
                let has_all = |record: TenantRecord| record.live.revision == home.live.revision;
                return home.owned() == Some(tenant.epoch) && record.is_some_and(has_all);
            }
            if !tenant.has(group) {
                return record.is_none_or(|record| record.role == Role::Erased);
            }
            record.is_some_and(|record| {
                let is_same = (record.live.revision, record.live.digests) == (home.live.revision, home.live.digests);
                record.home() == Some(tenant.home) && record.epoch == tenant.epoch && is_same
            })
        })
    }

    /// Checks that no acknowledged write is lost or doubled: revisions grow, by sequences of their own, on a lineage from
    /// which nothing was cut.
    fn check_acknowledged(&self) {
        let tenant = self.directory.tenant();
        let record = self.record(tenant.home).unwrap();
        assert_eq!(record.lineage.runs().len(), 1, "something was cut: {record:?}");
        assert!(record.forks.is_empty(), "something was cut: {record:?}");
        let acknowledged = self.acknowledged.borrow();
        let grows = |pair: &[Revision]| pair[0] < pair[1] && pair[0].sequence() < pair[1].sequence();
        assert!(acknowledged.windows(2).all(grows), "{acknowledged:?}");
        assert!(acknowledged.last().copied() <= Some(record.live.revision));
    }

    /// Begins a move to the region in which the tenant does not live.
    pub fn begin_move(&self) -> u64 {
        let home = self.directory.tenant().home;
        let region = REGIONS.into_iter().find(|region| group_of(region) != home).unwrap();
        self.directory.begin_move(region)
    }
}
