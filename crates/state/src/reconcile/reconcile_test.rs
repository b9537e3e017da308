//! Single steps of groups that follow the directory, and random histories that must converge.

use std::collections::BTreeMap;

use proptest::prelude::*;
use stead_types::{DirectoryVersion, Durability, GroupId, Incarnation, NodeId, Revision, TenantLimits};

use super::*;
use crate::{
    codec::{Entry, encode_entry},
    directory::{
        AuditContext, Command, Directory, DirectoryOutcome, Followers, InitialCluster, InitialNode, LeaseLoss,
        MoveRequest, MoveTarget, NewTenant, Rejection, SourceAfterMove, TenantUpdate,
    },
    lineage::Lineage,
    rows::{GroupPrefix, memory::MemoryRows},
    shard::record::{LeaseLossPolicy, ShadowCopy},
};

/// The groups of three regions, one each.
const GROUPS: [u32; 3] = [1, 2, 3];
const REGIONS: [&str; 3] = ["eu", "us", "ap"];

/// A directory and its groups, which read its current view.
struct World {
    directory: Directory,
    shards: BTreeMap<u32, (Shard, MemoryRows)>,
    index: u64,
}

impl World {
    fn begun() -> Self {
        let node = |name: &&str| InitialNode {
            name: name.to_string(),
            region: name.parse().unwrap(),
            addresses: Default::default(),
            witness: false,
        };
        let initial = InitialCluster {
            cluster: "test".into(),
            regions: REGIONS
                .map(|name| (name.parse().unwrap(), "EU".parse().unwrap()))
                .to_vec(),
            nodes: REGIONS.iter().map(node).collect(),
            groups_per_region: 1,
        };
        let shard = |group: u32| {
            let rows = MemoryRows::default();
            let prefix = GroupPrefix {
                group: GroupId::new(group),
                install: 0,
            };
            (group, (Shard::open(prefix, &rows).unwrap(), rows))
        };
        let mut world = Self {
            directory: Directory::default(),
            shards: GROUPS.map(shard).into(),
            index: 0,
        };
        world.ask(Command::Bootstrap(initial)).unwrap();
        world
    }

    fn ask(&mut self, command: Command) -> Result<DirectoryOutcome, Rejection> {
        self.index += 1;
        self.directory.reach(self.index);
        self.directory.apply(0, command).result
    }

    fn raise_feature_level(&mut self) {
        self.raise_feature_level_to(2);
    }

    fn raise_feature_level_to(&mut self, level: u32) {
        let all = (1..=3).map(NodeId::new).collect();
        self.ask(Command::RaiseFeatureLevel(AuditContext::default(), level, all))
            .unwrap();
    }

    fn propose(&mut self, group: u32, command: Bytes) {
        let (shard, rows) = self.shards.get_mut(&group).unwrap();
        let entry = Entry::parse(encode_entry(0, &[command])).unwrap();
        shard.apply(rows, 1, entry, true).unwrap();
    }

    fn steps(&self, group: u32) -> Vec<Step> {
        page(
            self.directory.view(),
            &self.shards[&group].0,
            TenantNumber::new(0),
            &LeaderFacts::NONE,
        )
        .steps
    }

    /// Executes the step of one group; tells whether there was one.
    fn reconcile(&mut self, group: u32) -> bool {
        let steps = self.steps(group);
        for step in &steps {
            if let Some(command) = step.command() {
                self.propose(group, command);
            }
            if let Some(report) = step.report() {
                let report = Command::Report(GroupId::new(group), Incarnation::FIRST, vec![report]);
                self.ask(report).unwrap();
            }
        }
        !steps.is_empty()
    }

    /// Invariant 1.
    fn rest(&mut self) {
        let busy = |world: &mut Self| GROUPS.map(|group| world.reconcile(group)).contains(&true);
        assert!((0..10).any(|_| !busy(self)), "steps do not end");
        let view = self.directory.view();
        for (group, (shard, _)) in &self.shards {
            for (number, record) in shard.records() {
                let member = view
                    .tenant(number)
                    .is_some_and(|tenant| tenant.has(GroupId::new(*group)));
                assert_eq!(member, record.role != Role::Erased, "{number} in group {group}");
            }
        }
        for tenant in view.tenants_from(TenantNumber::new(0)) {
            assert!(tenant.state != TenantState::Deleting && tenant.members.iter().all(|member| member.state.stays()));
            for member in &tenant.members {
                let record = self.shards[&member.group.get()].0.record(tenant.number).unwrap();
                assert_eq!(record.epoch, tenant.epoch);
                assert_eq!(record.home(), (member.group != tenant.home).then_some(tenant.home));
            }
        }
    }
}

fn create(name: &str, home: &str) -> Command {
    let tenant = NewTenant {
        on_lease_loss: LeaseLossPolicy::Stop,
        name: name.parse().unwrap(),
        home: home.parse().unwrap(),
        followers: Followers::AllAdmitted,
        residency: Vec::new(),
        durability: Durability::Region,
        labels: BTreeMap::new(),
        limits: TenantLimits::default(),
    };
    Command::CreateTenant(AuditContext::default(), tenant)
}

fn update(name: &str, followers: Option<Vec<&str>>, enabled: Option<bool>) -> Command {
    let named = |names: Vec<&str>| Followers::Named(names.iter().map(|name| name.parse().unwrap()).collect());
    let update = TenantUpdate {
        followers: followers.map(named),
        enabled,
        ..TenantUpdate::new(name.parse().unwrap(), None)
    };
    Command::UpdateTenant(AuditContext::default(), update)
}

fn erase_tenant(name: &str) -> Command {
    Command::EraseTenant(AuditContext::default(), name.parse().unwrap(), None)
}

#[test]
fn new_tenant_is_created_at_home_and_followed_elsewhere() {
    let mut world = World::begun();
    world.ask(create("acme", "eu")).unwrap();
    assert!(matches!(&world.steps(1)[..], [Step::Create(_)]));
    assert!(matches!(&world.steps(2)[..], [Step::Follow(follow)] if follow.home == GroupId::new(1)));
    world.rest();
    assert_eq!(world.steps(1), []);
}

#[test]
fn leaving_follower_erases_reports_and_may_return() {
    let mut world = World::begun();
    world.ask(create("acme", "eu")).unwrap();
    world.rest();
    world.ask(update("acme", Some(vec!["us"]), None)).unwrap();
    assert!(matches!(&world.steps(3)[..], [Step::Erase(erase)] if !erase.deleted));
    world.reconcile(3);
    assert!(matches!(&world.steps(3)[..], [Step::Report(_)]));
    world.rest();
    world.ask(update("acme", Some(vec!["us", "ap"]), None)).unwrap();
    assert!(matches!(&world.steps(3)[..], [Step::Follow(_)]));
    world.rest();
}

#[test]
fn leaving_member_keeps_tenant_until_home_has_uncounted_it() {
    let mut world = World::begun();
    world.raise_feature_level();
    world.ask(create("acme", "eu")).unwrap();
    assert!(matches!(&world.steps(3)[..], [Step::Follow(_)]));
    world.ask(update("acme", Some(vec!["us"]), None)).unwrap();
    assert_eq!(world.steps(3), [], "it does not begin to follow");
    world.ask(update("acme", Some(vec!["us", "ap"]), None)).unwrap();
    world.rest();
    world.ask(update("acme", Some(vec!["us"]), None)).unwrap();
    assert_eq!(world.steps(3), [], "it is still consulted");
    let tenant = TenantNumber::new(1);
    let uncounted = GroupReport::Uncounted {
        tenant,
        epoch: Epoch::FIRST,
        group: GroupId::new(3),
        version: world.directory.view().version(),
        revision: Revision::ZERO,
    };
    let report = Command::Report(GroupId::new(1), Incarnation::FIRST, vec![uncounted]);
    world.ask(report).unwrap();
    assert!(matches!(&world.steps(3)[..], [Step::Erase(erase)] if !erase.deleted));
    world.rest();
}

/// P2: what a promotion has cut is in a fork before the group erases.
#[test]
fn group_that_leaves_follows_recorded_home_before_it_erases() {
    let mut world = World::begun();
    world.raise_feature_level();
    world.ask(create("acme", "eu")).unwrap();
    world.rest();
    let number = TenantNumber::new(1);
    let second = Epoch::FIRST.next().unwrap();
    let mut view = world.directory.view().clone();
    let mut tenant = Tenant::clone(view.tenant(number).unwrap());
    tenant.home = GroupId::new(2);
    tenant.epoch = second;
    tenant.lineage = Lineage::starting(Epoch::FIRST);
    tenant.lineage.record_promotion(second, stead_types::Sequence::ZERO);
    for member in tenant
        .members
        .iter_mut()
        .filter(|member| member.group == GroupId::new(3))
    {
        member.state = MemberState::Erasing;
    }
    view.apply(crate::directory::DirectoryChange::Tenant(Box::new(tenant)));
    let first = step(&view, &world.shards[&3].0, number, &LeaderFacts::NONE).unwrap();
    assert!(
        matches!(&first, Step::Follow(follow) if follow.epoch == second),
        "{first:?}"
    );
    world.propose(3, first.command().unwrap());
    let then = step(&view, &world.shards[&3].0, number, &LeaderFacts::NONE).unwrap();
    assert!(
        matches!(&then, Step::Erase(erase) if erase.recorded == Some(second)),
        "{then:?}"
    );
    world.propose(3, then.command().unwrap());
    assert_eq!(world.shards[&3].0.record(number).unwrap().role, Role::Erased);
}

#[test]
fn home_logs_lease_loss_policy_and_reports_stop() {
    let mut world = World::begun();
    world.raise_feature_level();
    world.ask(create("acme", "eu")).unwrap();
    world.rest();
    let number = TenantNumber::new(1);
    let ask = |world: &mut World, policy| {
        let update = TenantUpdate {
            on_lease_loss: Some(policy),
            ..TenantUpdate::new("acme".parse().unwrap(), None)
        };
        world
            .ask(Command::UpdateTenant(AuditContext::default(), update))
            .unwrap();
    };
    let logged = |world: &World| world.shards[&1].0.record(number).unwrap().policy;
    let shown = |world: &World| world.directory.view().tenant(number).unwrap().on_lease_loss;
    ask(&mut world, LeaseLossPolicy::Continue);
    assert_eq!(world.steps(2), [], "only the home has it in its log");
    world.rest();
    assert_eq!(
        (logged(&world), shown(&world)),
        (LeaseLossPolicy::Continue, LeaseLoss::Continue)
    );
    ask(&mut world, LeaseLossPolicy::Stop);
    assert_eq!(shown(&world), LeaseLoss::Stopping);
    world.reconcile(1);
    assert_eq!(
        (logged(&world), shown(&world)),
        (LeaseLossPolicy::Stop, LeaseLoss::Stopping)
    );
    // Changed twice before the home looks again: its log has the policy already, as of an older view.
    ask(&mut world, LeaseLossPolicy::Continue);
    ask(&mut world, LeaseLossPolicy::Stop);
    assert!(matches!(&world.steps(1)[..], [Step::SetLeaseLossPolicy(_)]));
    world.rest();
    assert_eq!(
        (logged(&world), shown(&world)),
        (LeaseLossPolicy::Stop, LeaseLoss::Stop)
    );
}

#[test]
fn target_that_was_rewound_seeds_windows_before_it_is_heir() {
    let mut world = World::begun();
    world.raise_feature_level_to(3);
    world.ask(create("acme", "eu")).unwrap();
    world.rest();
    let to_us = MoveRequest {
        name: "acme".parse().unwrap(),
        etag: None,
        to: MoveTarget::Region("us".parse().unwrap()),
        source: SourceAfterMove::Policy,
        unreachable: Vec::new(),
    };
    world.ask(Command::MoveTenant(AuditContext::default(), to_us)).unwrap();
    let (number, group) = (TenantNumber::new(1), GroupId::new(2));
    let mut record = world.shards[&2].0.record(number).unwrap().clone();
    let facts = LeaderFacts {
        has_lease: true,
        staleness: &|_| Some(std::time::Duration::ZERO),
        ..LeaderFacts::NONE
    };
    let next = |world: &World, record: &TenantRecord| {
        let view = world.directory.view();
        moves::follower(view, view.tenant(number).unwrap(), group, record, &facts)
    };
    assert!(matches!(next(&world, &record), Some(Step::Heir(_))));
    record.live.rewound = true;
    assert_eq!(
        next(&world, &record),
        None,
        "nodes of an earlier version cannot read it"
    );
    world.raise_feature_level_to(4);
    let seed = next(&world, &record);
    assert!(
        matches!(&seed, Some(Step::SeedWindows(seed)) if seed.home == GroupId::new(1) && seed.number == record.seeds.next()),
        "{seed:?}"
    );
    record.shadow = Some(ShadowCopy::of_windows(&record.live, 2, record.seeds.next()));
    assert_eq!(next(&world, &record), None, "it is under way");
}

#[test]
fn deleted_tenant_is_erased_everywhere() {
    let mut world = World::begun();
    world.ask(create("acme", "eu")).unwrap();
    world.rest();
    world.ask(update("acme", None, Some(false))).unwrap();
    assert_eq!(world.steps(1), [], "disabled is not erased");
    world.ask(erase_tenant("acme")).unwrap();
    assert!(matches!(&world.steps(1)[..], [Step::Erase(erase)] if erase.deleted));
    world.rest();
    assert_eq!(world.directory.view().tenant_count(), 0);
}

#[test]
fn late_follow_is_erased_again() {
    let mut world = World::begun();
    world.ask(create("acme", "eu")).unwrap();
    let [late] = &world.steps(2)[..] else { panic!() };
    let late = late.command().unwrap();
    world.reconcile(1);
    world.ask(update("acme", None, Some(false))).unwrap();
    world.ask(erase_tenant("acme")).unwrap();
    world.rest();
    world.propose(2, late);
    assert!(
        matches!(&world.steps(2)[..], [Step::Erase(_)]),
        "the view does not know it any more"
    );
    world.rest();
}

/// Invariants 2 and 3.
#[test]
fn older_or_recovered_view_erases_nothing() {
    let mut world = World::begun();
    let before = world.directory.view().clone();
    world.ask(create("acme", "eu")).unwrap();
    world.rest();
    let shard = &world.shards[&1].0;
    let number = TenantNumber::new(1);
    assert_eq!(step(&before, shard, number, &LeaderFacts::NONE), None);
    assert_eq!(step(&DirectoryView::default(), shard, number, &LeaderFacts::NONE), None);
    let mut recovered = before;
    recovered.reach(DirectoryVersion {
        incarnation: Incarnation(2),
        index: 99,
    });
    assert_eq!(step(&recovered, shard, number, &LeaderFacts::NONE), None);
}

#[test]
fn full_pass_is_paged() {
    let mut world = World::begun();
    for number in 0..STEPS_MAX + 5 {
        world.ask(create(&format!("t{number}"), "eu")).unwrap();
    }
    let (view, shard) = (world.directory.view(), &world.shards[&1].0);
    let first = page(view, shard, TenantNumber::new(0), &LeaderFacts::NONE);
    assert_eq!(
        (first.steps.len(), first.next),
        (STEPS_MAX, Some(TenantNumber::new(STEPS_MAX as u64 + 1)))
    );
    let second = page(view, shard, first.next.unwrap(), &LeaderFacts::NONE);
    assert_eq!((second.steps.len(), second.next), (5, None));
}

fn history() -> impl Strategy<Value = Vec<(Option<Command>, u32)>> {
    let name = || prop::sample::select(vec!["a", "b", "c"]);
    let regions = || prop::sample::subsequence(REGIONS.to_vec(), 0..=2);
    let command = prop_oneof![
        3 => (name(), prop::sample::select(REGIONS.to_vec())).prop_map(|(name, home)| create(name, home)),
        3 => (name(), regions()).prop_map(|(name, regions)| update(name, Some(regions), None)),
        2 => (name(), any::<bool>()).prop_map(|(name, enabled)| update(name, None, Some(enabled))),
        2 => name().prop_map(erase_tenant),
    ];
    prop::collection::vec(
        (prop::option::of(command), prop::sample::select(GROUPS.to_vec())),
        0..40,
    )
}

proptest! {
    /// Invariant 1: groups converge whatever happened, and however little of it a group saw in between.
    #[test]
    fn groups_converge_to_directory(history in history()) {
        let mut world = World::begun();
        for (command, group) in history {
            match command {
                Some(command) => drop(world.ask(command)),
                None => drop(world.reconcile(group)),
            }
        }
        world.rest();
    }
}
