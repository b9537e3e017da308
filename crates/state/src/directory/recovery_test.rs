//! Recovery of the directory from the state of one voter, which may have forgotten the newest changes.

use stead_types::{Epoch, GroupId, Incarnation, NodeId, TenantNumber};

use super::{
    directory_test::{World, by, create, new},
    promotions_test::{
        ACME, activated, begin, cluster_with_tenant, end, freeze_report, frozen, item, move_to, named, phase, region,
        report, silent, wait_over,
    },
    *,
};
use crate::{
    lineage::{Lineage, RevisionStatus},
    shard::record::PreviousRole,
};

fn request() -> RecoveryRequest {
    RecoveryRequest {
        founder: NodeId::new(1),
        lease_ttl_ms: 0,
        by: by(),
    }
}

/// A cluster whose tenant acme has its home in eu-west, group 3, after a recovery, with the number of the promotion.
fn recovered() -> (World, u64) {
    let mut world = cluster_with_tenant();
    let recovered = world.recover(&request()).unwrap();
    (world, recovered.operation.unwrap())
}

/// A group reports that it owned an epoch that the directory has forgotten, after a promotion that cut at a sequence.
fn frozen_in(world: &mut World, group: u32, epoch: u32, last: &str, previous: PreviousRole) {
    let mut frozen = freeze_report(world, group, last);
    frozen.previous = previous;
    frozen.followed = Epoch::new(epoch).unwrap();
    frozen.lineage = Lineage::starting(Epoch::FIRST);
    let cut = stead_types::Sequence::new(5).unwrap();
    frozen.lineage.record_promotion(frozen.followed, cut);
    let frozen = GroupReport::Frozen {
        tenant: ACME,
        report: frozen,
        fresh_as_of: None,
        reported: None,
    };
    report(world, group, frozen);
}

#[test]
fn recovery_begins_incarnation_with_founder_and_hands_no_number_out_twice() {
    let mut world = cluster_with_tenant();
    let before = world.directory.clone();
    let recovered = world.recover(&request()).unwrap();
    let view = world.directory.view();
    assert_eq!(view.version().incarnation, Incarnation(2));
    assert!(
        view.version() > before.view().version(),
        "it passes every version seen before"
    );
    let group = view.group(GroupId::DIRECTORY).unwrap();
    assert_eq!(
        (&group.voters[..], group.incarnation),
        (&[NodeId::new(1)][..], Incarnation(2))
    );
    let (old, tenant) = (before.view().tenant(ACME).unwrap(), view.tenant(ACME).unwrap());
    assert!(tenant.fence().get() > old.last_epoch.get() + NUMBERS_SKIPPED);
    assert!(tenant.op > old.op + u64::from(NUMBERS_SKIPPED));
    assert!(recovered.operation.unwrap() > u64::from(NUMBERS_SKIPPED));
    assert_eq!(recovered.tenants, 1);
    let record = world.directory.audit().newest_first().next().unwrap();
    assert_eq!(record.action, "recover directory");

    let created = world.apply(create(new("other", "us-east")));
    let Ok(DirectoryOutcome::Tenant(number)) = created else {
        panic!("{created:?}")
    };
    assert!(number > TenantNumber::new(TENANTS_SKIPPED));
    assert!(
        world.tenant("other").promoting.is_none(),
        "nobody can have forgotten it"
    );
}

#[test]
fn recovery_is_refused_without_state_voter_or_possible_ttl() {
    let mut world = cluster_with_tenant();
    let stranger = RecoveryRequest {
        founder: NodeId::new(4),
        ..request()
    };
    assert_eq!(
        world.recover(&stranger),
        Err(RecoveryRejection::NotVoter(NodeId::new(4)))
    );
    let endless = RecoveryRequest {
        lease_ttl_ms: LEASE_TTL_MS_MAX + 1,
        ..request()
    };
    assert!(matches!(world.recover(&endless), Err(RecoveryRejection::LeaseTtl(_))));
    assert_eq!(
        Directory::default().recover(1, &request()),
        Err(RecoveryRejection::Empty)
    );
    let mut old = World::begun();
    assert_eq!(old.recover(&request()), Err(RecoveryRejection::FeatureLevel));
}

/// Invariant 2.
#[test]
fn tenant_stays_at_home_once_every_member_has_frozen() {
    let (mut world, id) = recovered();
    frozen(&mut world, 3, "1.9");
    assert_eq!(
        phase(&world),
        Some(PromotionPhase::Fenced),
        "another group may serve under a lease"
    );
    wait_over(&mut world, id);
    frozen(&mut world, 1, "1.9");
    assert_eq!(phase(&world), Some(PromotionPhase::Freezing));
    frozen(&mut world, 5, "1.7");
    assert_eq!(
        world.tenant("acme").home,
        GroupId::new(3),
        "of equal histories the home's"
    );
    assert_eq!(item(&world, id).decision.unwrap().loss, None);
    activated(&mut world);
    assert_eq!(
        (phase(&world), end(&world, id)),
        (None, Some(OperationResult::Succeeded))
    );
}

#[test]
fn silent_member_blocks_until_it_returns_or_losses_are_accepted() {
    for returns in [true, false] {
        let (mut world, id) = recovered();
        wait_over(&mut world, id);
        frozen(&mut world, 3, "1.9");
        frozen(&mut world, 1, "1.9");
        silent(&mut world, id, &[5]);
        let PromotionState::Blocked { reason } = item(&world, id).state else {
            panic!()
        };
        assert!(reason.contains("group 5 did not answer"), "{reason}");
        if returns {
            frozen(&mut world, 5, "1.7");
            assert_eq!(world.tenant("acme").home, GroupId::new(3));
            continue;
        }
        let again = PromotionRequest {
            replace: true,
            allow_loss: true,
            ..region("ap-south")
        };
        let again = begin(&mut world, again);
        wait_over(&mut world, again);
        silent(&mut world, again, &[5]);
        frozen(&mut world, 3, "1.9");
        frozen(&mut world, 1, "1.9");
        assert_eq!(
            world.tenant("acme").home,
            GroupId::new(3),
            "it is not lost, and may be the home again"
        );
        assert!(item(&world, again).decision.unwrap().loss.is_some());
    }
}

/// The home's region is not excused: nobody has said that it is lost.
#[test]
fn silent_home_blocks_until_operator_promotes() {
    let (mut world, id) = recovered();
    wait_over(&mut world, id);
    silent(&mut world, id, &[3]);
    frozen(&mut world, 1, "1.9");
    frozen(&mut world, 5, "1.7");
    assert!(matches!(item(&world, id).state, PromotionState::Blocked { .. }));
    let again = PromotionRequest {
        replace: true,
        ..named("acme")
    };
    let again = begin(&mut world, again);
    wait_over(&mut world, again);
    silent(&mut world, again, &[3]);
    frozen(&mut world, 1, "1.9");
    frozen(&mut world, 5, "1.7");
    assert_eq!(
        world.tenant("acme").home,
        GroupId::new(1),
        "every member but the home's region has reported"
    );
}

#[test]
fn home_is_taken_from_group_that_owned_forgotten_epoch() {
    let (mut world, id) = recovered();
    wait_over(&mut world, id);
    frozen(&mut world, 3, "1.9");
    frozen_in(&mut world, 1, 4, "4.12", PreviousRole::Follower);
    frozen_in(&mut world, 5, 4, "4.12", PreviousRole::Owner);
    assert_eq!(end(&world, id), None);
    let tenant = world.tenant("acme");
    assert_eq!(tenant.home, GroupId::new(5), "of equal histories the last owner's");
    assert!(tenant.epoch > Epoch::new(4).unwrap());
    let status = |revision: &str| tenant.lineage.status_of(revision.parse().unwrap());
    assert_ne!(
        status("1.9"),
        RevisionStatus::OnLineage,
        "the forgotten promotion had cut it"
    );
    assert_eq!(status("4.12"), RevisionStatus::OnLineage);
}

#[test]
fn followers_of_forgotten_owner_that_is_silent_block() {
    let (mut world, id) = recovered();
    wait_over(&mut world, id);
    for group in [1, 3, 5] {
        frozen_in(&mut world, group, 4, "4.12", PreviousRole::Follower);
    }
    let PromotionState::Blocked { reason } = item(&world, id).state else {
        panic!()
    };
    assert!(reason.contains("has followed epoch 4"), "{reason}");
}

#[test]
fn recovery_replaces_moves_and_promotions_in_flight() {
    let mut world = cluster_with_tenant();
    let moving = move_to(&mut world, 1);
    let moved = world.recover(&request()).unwrap().operation.unwrap();
    assert!(matches!(end(&world, moving), Some(OperationResult::Failed { .. })));
    assert!(world.tenant("acme").moving.is_none());
    assert_eq!(end(&world, moved), None);

    let mut world = cluster_with_tenant();
    let before = begin(&mut world, region("eu-west"));
    wait_over(&mut world, before);
    let of = world.recover(&request()).unwrap().operation.unwrap();
    assert_eq!(item(&world, before).state, PromotionState::Replaced { by: of });
    assert!(end(&world, before).is_some());
    assert_eq!(phase(&world), Some(PromotionPhase::Fenced), "the wait begins anew");
}

#[test]
fn wait_is_for_longest_lease_that_was_named() {
    let mut world = cluster_with_tenant();
    let named = RecoveryRequest {
        lease_ttl_ms: 300_000,
        ..request()
    };
    let operation = world.recover(&named).unwrap().operation.unwrap();
    let promotion = world.directory.operations().promotion(operation).unwrap();
    assert_eq!(promotion.lease_ttl_ms, 300_000);
    assert_eq!(world.directory.view().settings().lease_ttl_ms, 60_000);
}
