//! Steps of the groups in each phase of a promotion.

use stead_types::{DirectoryVersion, Epoch, GroupId, Incarnation, Revision, TenantNumber, TenantTime};

use super::*;
use crate::{
    codec::{Entry, encode_entry},
    directory::{DirectoryChange, PromotionPhase, ReplicaSetMember, TenantPromotion},
    rows::{GroupPrefix, memory::MemoryRows},
    shard::record::OperationId,
};

const HOME: GroupId = GroupId::new(1);
const FOLLOWER: GroupId = GroupId::new(2);
const STRANGER: GroupId = GroupId::new(3);
const TENANT: TenantNumber = TenantNumber::new(7);

/// A group and its view of one tenant.
struct Group {
    shard: Shard,
    rows: MemoryRows,
    view: DirectoryView,
    tenant: Tenant,
    version: u64,
    index: u64,
}

impl Group {
    /// Returns a group whose record is what the directory says of a tenant without a promotion.
    fn settled(group: GroupId) -> Self {
        let rows = MemoryRows::default();
        let shard = Shard::open(GroupPrefix { group, install: 0 }, &rows).unwrap();
        let tenant = Tenant {
            members: [HOME, FOLLOWER].map(ReplicaSetMember::staying).into(),
            ..Tenant::new(TENANT, "acme".parse().unwrap(), HOME)
        };
        let mut this = Self {
            shard,
            rows,
            view: DirectoryView::default(),
            tenant,
            version: 0,
            index: 0,
        };
        this.show(|_| {});
        this.do_all();
        this
    }

    /// Changes the tenant, and shows the group the change.
    fn show(&mut self, change: impl FnOnce(&mut Tenant)) {
        self.version += 1;
        let version = DirectoryVersion {
            incarnation: Incarnation::FIRST,
            index: self.version,
        };
        change(&mut self.tenant);
        self.tenant.version = version;
        self.view.apply(DirectoryChange::Tenant(Box::new(self.tenant.clone())));
        self.view.reach(version);
    }

    /// Shows a promotion to the second epoch in a phase, as the given operation.
    fn show_phase(&mut self, operation: u64, phase: PromotionPhase) {
        self.show(|tenant| {
            let epoch = epoch(1 + u32::try_from(operation).unwrap());
            let reported = tenant.promoting.take().map(|before| before.reported);
            tenant.fence_epoch = epoch;
            tenant.promoting = Some(Box::new(TenantPromotion {
                operation: OperationId(operation),
                of: 100,
                epoch,
                fence: DirectoryVersion::ZERO,
                phase,
                reported: reported.unwrap_or_default(),
                replaced: Box::new([]),
                started: 0,
            }));
        });
    }

    fn show_reported(&mut self, group: GroupId) {
        self.show(|tenant| tenant.promoting.as_mut().unwrap().reported = Box::new([group]));
    }

    fn step(&self) -> Option<Step> {
        self.step_with(&LeaderFacts::NONE)
    }

    fn step_with(&self, facts: &LeaderFacts<'_>) -> Option<Step> {
        step(&self.view, &self.shard, TENANT, facts)
    }

    /// Applies the due steps until none is, or one is a report; returns it.
    fn do_all(&mut self) -> Option<Step> {
        for _ in 0..4 {
            let step = self.step()?;
            let Some(command) = step.command() else {
                return Some(step);
            };
            self.apply(&[command]);
        }
        panic!("steps do not end: {:?}", self.step());
    }

    fn apply(&mut self, commands: &[Bytes]) {
        self.index += 1;
        let entry = Entry::parse(encode_entry(0, commands)).unwrap();
        self.shard.apply(&mut self.rows, self.index, entry, true).unwrap();
    }

    fn role(&self) -> Option<Role> {
        self.shard.record(TENANT).map(|record| record.role)
    }
}

fn epoch(number: u32) -> Epoch {
    Epoch::new(number).unwrap()
}

fn is_frozen_report(step: Option<Step>, operation: u64) -> bool {
    matches!(
        step,
        Some(Step::Report(GroupReport::Frozen { report, .. })) if report.operation == OperationId(operation)
    )
}

#[test]
fn owner_freezes_at_fence_and_reports_until_view_shows_it() {
    let mut home = Group::settled(HOME);
    assert_eq!(home.role(), Some(Role::Owner));
    home.show_phase(1, PromotionPhase::Fenced);
    assert!(matches!(home.step(), Some(Step::Freeze(freeze)) if freeze.epoch == epoch(2)));
    assert!(is_frozen_report(home.do_all(), 1));
    home.show_phase(1, PromotionPhase::Freezing);
    assert!(is_frozen_report(home.do_all(), 1), "the report may have got lost");
    home.show_reported(HOME);
    assert_eq!(home.step(), None);
}

#[test]
fn follower_freezes_only_once_nobody_can_serve() {
    let mut follower = Group::settled(FOLLOWER);
    assert_eq!(follower.role(), Some(Role::Follower { home: HOME }));
    follower.show_phase(1, PromotionPhase::Fenced);
    assert_eq!(follower.step(), None, "it goes on following");
    follower.show_phase(1, PromotionPhase::Freezing);
    assert!(is_frozen_report(follower.do_all(), 1));
}

#[test]
fn member_without_record_freezes_and_stranger_does_not() {
    let mut stranger = Group::settled(STRANGER);
    stranger.show_phase(1, PromotionPhase::Freezing);
    assert_eq!(stranger.step(), None);
    stranger.show(|tenant| tenant.members = [HOME, FOLLOWER, STRANGER].map(ReplicaSetMember::staying).into());
    assert!(is_frozen_report(stranger.do_all(), 1));
    assert!(matches!(stranger.role(), Some(Role::Frozen { .. })));
}

#[test]
fn replaced_promotion_freezes_anew() {
    let mut follower = Group::settled(FOLLOWER);
    follower.show_phase(1, PromotionPhase::Freezing);
    follower.do_all();
    follower.show_reported(FOLLOWER);
    follower.show_phase(2, PromotionPhase::Fenced);
    follower.show(|tenant| tenant.promoting.as_mut().unwrap().reported = Box::new([]));
    assert_eq!(follower.step(), None, "leases of the time between may run");
    follower.show_phase(2, PromotionPhase::Freezing);
    assert!(is_frozen_report(follower.do_all(), 2));
}

#[test]
fn owner_that_was_frozen_for_replaced_promotion_freezes_anew_at_fence() {
    let mut home = Group::settled(HOME);
    home.show_phase(1, PromotionPhase::Freezing);
    home.do_all();
    home.show_reported(HOME);
    home.show_phase(2, PromotionPhase::Fenced);
    home.show(|tenant| tenant.promoting.as_mut().unwrap().reported = Box::new([]));
    assert!(is_frozen_report(home.do_all(), 2), "nobody waits for its leases");
    let mut chosen = Group::settled(FOLLOWER);
    chosen.show_phase(1, PromotionPhase::Freezing);
    chosen.do_all();
    chosen.show_phase(2, PromotionPhase::Fenced);
    chosen.show(|tenant| {
        tenant.home = FOLLOWER;
        tenant.promoting.as_mut().unwrap().reported = Box::new([]);
    });
    assert!(
        is_frozen_report(chosen.do_all(), 2),
        "the promotion before had chosen it"
    );
}

#[test]
fn group_that_pulls_reports_again_once_it_has_all() {
    let mut follower = Group::settled(FOLLOWER);
    follower.show_phase(1, PromotionPhase::Freezing);
    follower.do_all();
    follower.show_reported(FOLLOWER);
    let (from, to) = (HOME, FOLLOWER);
    follower.show_phase(1, PromotionPhase::Pulling { from, to });
    assert_eq!(follower.step(), None);
    let has_pulled = |_, operation, of| operation == OperationId(1) && of == HOME;
    let facts = LeaderFacts {
        has_pulled: &has_pulled,
        ..LeaderFacts::NONE
    };
    assert!(is_frozen_report(follower.step_with(&facts), 1));
    let from = STRANGER;
    follower.show_phase(1, PromotionPhase::Pulling { from, to });
    assert_eq!(follower.step_with(&facts), None, "that was another pull");
}

#[test]
fn chosen_group_activates_and_reports_and_others_follow() {
    let mut groups = [Group::settled(HOME), Group::settled(FOLLOWER)];
    for group in &mut groups {
        group.show_phase(1, PromotionPhase::Freezing);
        group.do_all();
        let (kept, time) = (Revision::ZERO, TenantTime(0));
        group.show_phase(1, PromotionPhase::Activating { kept, time });
        group.show(|tenant| {
            tenant.home = FOLLOWER;
            tenant.epoch = epoch(2);
            tenant.lineage.record_promotion(epoch(2), kept.sequence());
        });
    }
    let [old, new] = &mut groups;
    let report = GroupReport::Activated {
        tenant: TENANT,
        operation: OperationId(1),
        epoch: epoch(2),
    };
    assert_eq!(new.do_all(), Some(Step::Report(report)));
    assert_eq!(new.role(), Some(Role::Owner));
    assert_eq!(old.do_all(), None);
    assert_eq!(old.role(), Some(Role::Follower { home: FOLLOWER }));
    for group in &mut groups {
        group.show(|tenant| tenant.promoting = None);
        assert_eq!(group.step(), None);
    }
}

/// A member that must erase is consulted no more.
#[test]
fn member_that_erases_does_not_freeze() {
    let mut follower = Group::settled(FOLLOWER);
    follower.show_phase(1, PromotionPhase::Freezing);
    follower.show(|tenant| tenant.members[1].state = MemberState::Erasing);
    assert!(matches!(follower.step(), Some(Step::Erase(_))));
}

#[test]
fn rewind_is_ended_before_any_other_step() {
    let mut home = Group::settled(HOME);
    let puts = (0..20_u8).map(|key| {
        let put = crate::shard::command::Effect::put("v");
        let operation = crate::shard::command::Operation::new(vec![key], put);
        crate::shard::command::Write::new(TENANT, None, operation).encode()
    });
    home.apply(&puts.collect::<Vec<_>>());
    home.show(|tenant| {
        tenant.home = FOLLOWER;
        tenant.epoch = epoch(3);
        tenant.fence_epoch = epoch(3);
        tenant
            .lineage
            .record_promotion(epoch(3), stead_types::Sequence::new(5).unwrap());
    });
    let follow = home.step().and_then(|step| step.command()).unwrap();
    home.apply(&[follow]);
    // Another promotion waits for it.
    home.show_phase(3, PromotionPhase::Freezing);
    let mut steps = 0;
    while let Some(Step::ContinueRewind(step)) = home.step() {
        assert!(home.shard.record(TENANT).unwrap().rewind.is_some());
        home.apply(&[step.encode()]);
        steps += 1;
    }
    assert!(steps > 1, "{steps}");
    assert!(is_frozen_report(home.do_all(), 3));
    assert_eq!(home.shard.record(TENANT).unwrap().live.revision.sequence().get(), 5);
}
