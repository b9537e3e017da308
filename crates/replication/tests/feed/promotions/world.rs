//! World of the promotions' tests: three regions with a group of three nodes each, a directory, and one tenant, whose
//! writers get an answer only after the serving check.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use bytes::Bytes;
use stead_replication::{RemoteWait, RetentionLimits, SeedLimits};
use stead_state::directory::{MemberState, OperationResult, PromotionPhase, PromotionRequest, PromotionSelection};
use stead_state::lineage::RevisionStatus;
use stead_state::serving::{self, ServingState};
use stead_state::shard::ApplyResult;
use stead_state::shard::apply_result::WriteResult;
use stead_state::shard::command::{Effect, Operation, Write};
use stead_state::shard::record::TenantRecord;
use stead_testing::MemoryNetwork;
use stead_types::{Durability, Epoch, GroupId, Revision, TenantNumber};
use tokio::time::{Instant, sleep, timeout};

use super::directory::{TestDirectory, now};
use crate::world::{Node, NodeSetup};

/// The regions, each with one group: the home, and the followers.
pub const REGIONS: [&str; 3] = ["home", "near", "far"];
pub const NODES_PER_REGION: u64 = 3;
pub const HOME: GroupId = GroupId::new(1);
pub const NEAR: GroupId = GroupId::new(2);
pub const FAR: GroupId = GroupId::new(3);
pub const GROUPS: [GroupId; 3] = [HOME, NEAR, FAR];
/// Name of the tenant.
pub const NAME: &str = "acme";
/// One-way delays from the home to the others, and between these.
const DELAYS: [(GroupId, GroupId, u64); 3] = [(HOME, NEAR, 20), (HOME, FAR, 60), (NEAR, FAR, 50)];
/// Longest wait for a condition: longer than leases, backoffs and elections together.
const PATIENCE: Duration = Duration::from_secs(240);
const LOOK_INTERVAL: Duration = Duration::from_millis(2);
/// Pause between two writes of one writer.
const WRITE_PAUSE: Duration = Duration::from_millis(15);
/// Longest wait of a writer for one answer: a leader that has just been killed never answers.
const ANSWER_MAX: Duration = Duration::from_secs(1);
/// Longest wait for another region.
const REMOTE_MAX: Duration = Duration::from_secs(3);
const LIMITS: RetentionLimits = RetentionLimits {
    keep_age: Duration::from_secs(600),
    keep_len: 1 << 30,
    age_max: Duration::from_secs(900),
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
    acknowledged: RefCell<Vec<Acknowledged>>,
    /// Revisions that linearizable reads have shown once another region had them.
    shown: RefCell<Vec<Revision>>,
    written: Cell<u64>,
}

/// An acknowledged write.
#[derive(Clone, Copy, Debug)]
pub struct Acknowledged {
    at: Instant,
    pub revision: Revision,
    by: GroupId,
    /// Whether another region had it first.
    pub is_remote: bool,
}

/// Returns the nodes of a group.
pub fn nodes_of(group: GroupId) -> impl Iterator<Item = u64> {
    let first = u64::from(group.get() - 1) * NODES_PER_REGION + 1;
    first..first + NODES_PER_REGION
}

/// Returns the request to promote the tenants of the home's region.
pub fn request(allow_loss: bool) -> PromotionRequest {
    PromotionRequest {
        selection: PromotionSelection::Region(REGIONS[0].parse().unwrap()),
        to: None,
        allow_loss,
        replace: false,
        durability: None,
        graceful_ms: 0,
        is_down: true,
        unreachable: Vec::new(),
    }
}

impl World {
    /// Starts the groups and creates the tenant, which every group has the first writes of.
    pub async fn start() -> Self {
        let (net, directory) = (MemoryNetwork::default(), TestDirectory::new());
        for (one, other, ms) in DELAYS {
            for (one, other) in pairs(one, other) {
                net.delay(one, other, Duration::from_millis(ms));
            }
        }
        let mut nodes = BTreeMap::new();
        for (group, id) in GROUPS
            .into_iter()
            .flat_map(|group| nodes_of(group).map(move |id| (group, id)))
        {
            let leases = directory.clone();
            let setup = NodeSetup {
                group,
                id,
                voters: nodes_of(group).collect(),
                limits: LIMITS,
                seeds: SeedLimits::default(),
                directory: directory.access(id),
                lease_left: std::sync::Arc::new(move |_| leases.lease_left(id)),
                room: std::sync::Arc::new(|_| Ok(())),
            };
            let node = Node::start(&net, setup).await;
            directory.add_view(id, node.directory_view.clone());
            nodes.insert(id, node);
        }
        let world = Self {
            tenant: directory.create(Durability::Region),
            directory,
            net,
            nodes,
            dead: RefCell::default(),
            acknowledged: RefCell::default(),
            shown: RefCell::default(),
            written: Cell::new(0),
        };
        for _ in 0..20 {
            world.write_somewhere().await;
        }
        world.wait_until_replicated(&[NEAR, FAR]).await;
        world
    }

    /// Waits until groups have everything that is acknowledged.
    pub async fn wait_until_replicated(&self, groups: &[GroupId]) {
        let last = self.last_acknowledged();
        let has_all = |world: &Self| {
            let has = |group: &GroupId| world.record(*group).is_some_and(|record| record.live.revision >= last);
            groups.iter().all(has).then_some(())
        };
        self.eventually("followers", has_all).await;
    }

    pub fn last_acknowledged(&self) -> Revision {
        self.acknowledged
            .borrow()
            .last()
            .map_or(Revision::ZERO, |last| last.revision)
    }

    /// Writes at every group at the same time until it is told to stop: clients are in all regions, and some are cut off
    /// with the home.
    pub async fn load(&self) {
        let writer = |group| async move {
            loop {
                self.try_write(group).await;
                sleep(WRITE_PAUSE).await;
            }
        };
        tokio::join!(writer(HOME), writer(NEAR), writer(FAR));
    }

    /// Writes as [`load`](Self::load) does, and beside it writes and reads that wait for another region.
    pub async fn remote_load(&self) {
        let writer = |group| async move {
            loop {
                self.try_write_remote(group, REMOTE_MAX).await;
                sleep(WRITE_PAUSE).await;
            }
        };
        let reader = |group| async move {
            loop {
                self.try_read_remote(group, REMOTE_MAX).await;
                sleep(WRITE_PAUSE).await;
            }
        };
        tokio::join!(
            self.load(),
            writer(HOME),
            writer(NEAR),
            writer(FAR),
            reader(HOME),
            reader(NEAR),
            reader(FAR),
        );
    }

    /// Writes at whichever group acknowledges.
    pub async fn write_somewhere(&self) -> Revision {
        let writing = async {
            loop {
                for group in GROUPS {
                    if let Some(revision) = self.try_write(group).await {
                        return revision;
                    }
                }
                sleep(LOOK_INTERVAL).await;
            }
        };
        timeout(PATIENCE, writing).await.expect("somebody takes writes")
    }

    /// Writes at a group, if that acknowledges.
    pub async fn try_write(&self, group: GroupId) -> Option<Revision> {
        let (id, written) = self.commit(group).await?;
        self.acknowledge(group, id, written.revision, false)
    }

    /// Writes at a group, and waits so long until another region has it; returns how the wait has ended.
    pub async fn try_write_remote(&self, group: GroupId, within: Duration) -> Option<RemoteWait> {
        let (id, written) = self.commit(group).await?;
        let remote = self.nodes[&id].tasks.remote();
        let wait = remote
            .wait(self.tenant, written.evaluation_point(), Instant::now() + within)
            .await;
        if wait == RemoteWait::Confirmed {
            self.acknowledge(group, id, written.revision, true)?;
        }
        Some(wait)
    }

    /// Reads at a group that owns the tenant, and waits so long until another region has what it read.
    pub async fn try_read_remote(&self, group: GroupId, within: Duration) -> Option<RemoteWait> {
        self.record(group)?.owned()?;
        let id = self.leader(group)?;
        let node = &self.nodes[&id];
        timeout(ANSWER_MAX, node.group.read_index()).await.ok()?.ok()?;
        let at = node.record(self.tenant)?.live.evaluation_point();
        let wait = node.tasks.remote().wait(self.tenant, at, Instant::now() + within).await;
        if wait == RemoteWait::Confirmed && self.may_acknowledge(id, at.revision) {
            self.shown.borrow_mut().push(at.revision);
        }
        Some(wait)
    }

    fn acknowledge(&self, group: GroupId, id: u64, revision: Revision, is_remote: bool) -> Option<Revision> {
        self.may_acknowledge(id, revision).then(|| {
            let (at, by) = (Instant::now(), group);
            self.acknowledged.borrow_mut().push(Acknowledged {
                at,
                revision,
                by,
                is_remote,
            });
            revision
        })
    }

    /// Commits a write at a group that owns the tenant.
    async fn commit(&self, group: GroupId) -> Option<(u64, WriteResult)> {
        self.record(group)?.owned()?;
        let id = self.leader(group)?;
        let number = self.written.replace(self.written.get() + 1);
        let value = Bytes::copy_from_slice(&number.to_be_bytes());
        let operation = Operation::new(format!("key-{}", number % 20), Effect::put(value));
        let command = Write::new(self.tenant, None, operation).encode();
        let proposed = self.nodes[&id].group.propose(self.tenant.get(), vec![command]);
        let answers = timeout(ANSWER_MAX, proposed).await.ok()?.ok()?;
        let ApplyResult::Write(written) = answers.into_iter().next()? else {
            return None;
        };
        Some((id, written))
    }

    /// Makes the serving check of a write that a node has committed.
    fn may_acknowledge(&self, id: u64, revision: Revision) -> bool {
        let node = &self.nodes[&id];
        let Some(record) = node.record(self.tenant) else {
            return false;
        };
        let (view_version, fence_epoch) = node.directory_view.read(|view| {
            let fence = view.tenant(self.tenant).map_or(Epoch::MAX, |tenant| tenant.fence());
            (view.version(), fence)
        });
        let state = ServingState {
            leader_confirmed: true,
            lease: self.directory.lease(id),
            view_version,
            now: now(),
            fence_epoch,
        };
        serving::check_committed(&record, revision, &state).is_ok()
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

    /// Cuts a region off from the others and the directory, or connects it again. Inside it goes on.
    pub fn set_region_cut(&self, group: GroupId, is_cut: bool) {
        for other in GROUPS.into_iter().filter(|other| *other != group) {
            self.set_link_cut(group, other, is_cut);
        }
        self.directory.set_cut(nodes_of(group), is_cut);
    }

    /// Cuts the link between two regions, or heals it.
    pub fn set_link_cut(&self, one: GroupId, other: GroupId, is_cut: bool) {
        for (one, other) in pairs(one, other) {
            if is_cut {
                self.net.cut(one, other);
            } else {
                self.net.heal(one, other);
            }
        }
    }

    fn leader(&self, group: GroupId) -> Option<u64> {
        let dead = self.dead.borrow();
        let mut living = nodes_of(group).filter(|node| !dead.contains(node));
        living.find(|node| self.nodes[node].group.is_leader())
    }

    /// Returns the node that leads a group.
    pub fn leader_node(&self, group: GroupId) -> Option<&Node> {
        Some(&self.nodes[&self.leader(group)?])
    }

    /// Returns the record of the tenant at a group's leader.
    pub fn record(&self, group: GroupId) -> Option<TenantRecord> {
        self.nodes[&self.leader(group)?].record(self.tenant)
    }

    /// Returns the phase of the promotion in flight.
    pub fn phase(&self) -> Option<PromotionPhase> {
        self.directory.tenant().promoting.map(|promotion| promotion.phase)
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
                let records = GROUPS.map(|group| self.record(group));
                panic!("timed out waiting for {what}: {tenant:#?} {records:#?}");
            }
            sleep(LOOK_INTERVAL).await;
        }
    }

    pub async fn wait_until_over(&self, operation: u64) -> OperationResult {
        self.eventually("the end of the promotion", |world| world.directory.result(operation))
            .await
    }

    /// Waits until nothing of a promotion is left: the recorded home serves, and every member follows it.
    pub async fn wait_until_settled(&self) {
        let stay = |world: &Self| {
            let tenant = world.directory.tenant();
            let stays = |member: &stead_state::directory::ReplicaSetMember| member.state == MemberState::Staying;
            (tenant.promoting.is_none() && tenant.members.iter().all(stays)).then_some(())
        };
        self.eventually("members that stay", stay).await;
        let tenant = self.directory.tenant();
        let served = self.write_somewhere().await;
        assert_eq!(
            served.epoch(),
            tenant.epoch,
            "served in another epoch than the recorded one"
        );
        self.eventually("equal replicas", |world| world.is_equal().then_some(()))
            .await;
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
            let record = node.record(self.tenant);
            record.is_some_and(|record| {
                let of_home = node.group.id() == tenant.home;
                let is_role = if of_home {
                    record.owned() == Some(tenant.epoch)
                } else {
                    record.home() == Some(tenant.home) && record.epoch == tenant.epoch
                };
                let is_same = (record.live.revision, record.live.digests) == (home.live.revision, home.live.digests);
                is_role && is_same && record.lineage == tenant.lineage
            })
        })
    }

    /// Checks what was acknowledged: by one group at a time, in the order of epochs; and what is not on the lineage lies
    /// above what promotions have kept. Returns the writes that were cut.
    pub fn check_acknowledged(&self) -> Vec<Acknowledged> {
        let lineage = self.directory.tenant().lineage;
        let acknowledged = self.acknowledged.borrow();
        for pair in acknowledged.windows(2) {
            let [one, next] = pair else { unreachable!() };
            assert!(
                one.revision.epoch() <= next.revision.epoch(),
                "two groups served at the same time: {one:?} {next:?}"
            );
            let by_one = one.by == next.by;
            assert!(
                by_one || one.revision.epoch() < next.revision.epoch(),
                "two groups served one epoch: {one:?} {next:?}"
            );
        }
        let is_cut = |write: &&Acknowledged| lineage.status_of(write.revision) != RevisionStatus::OnLineage;
        acknowledged.iter().filter(is_cut).copied().collect()
    }

    /// Checks that nothing was cut that was acknowledged, or shown, once another region had it; returns how much that is.
    pub fn check_remote(&self) -> usize {
        let lineage = self.directory.tenant().lineage;
        let acknowledged = self.acknowledged.borrow();
        let remote = acknowledged.iter().filter(|write| write.is_remote);
        let remote = remote.map(|write| write.revision);
        let all: Vec<Revision> = remote.chain(self.shown.borrow().iter().copied()).collect();
        for revision in &all {
            let status = lineage.status_of(*revision);
            assert_eq!(status, RevisionStatus::OnLineage, "{revision} was in another region");
        }
        all.len()
    }

    /// Checks that every write that was cut was acknowledged inside the window that a promotion reports.
    pub fn check_window(&self, operation: u64, cut: &[Acknowledged]) {
        let decision = self.directory.item(operation).decision.unwrap();
        if cut.is_empty() {
            return;
        }
        let loss = decision.loss.expect("writes were lost, and none is reported");
        for write in cut {
            let at = self.directory.wall_at(write.at);
            assert!(
                write.revision.sequence() > decision.kept.sequence(),
                "{write:?} {decision:?}"
            );
            assert!(
                loss.from.is_none_or(|from| from <= at) && loss.to.is_none_or(|to| at <= to),
                "{write:?} at {at} is not in {loss:?}"
            );
        }
    }
}

fn pairs(one: GroupId, other: GroupId) -> impl Iterator<Item = (u64, u64)> {
    nodes_of(one).flat_map(move |one| nodes_of(other).map(move |other| (one, other)))
}
