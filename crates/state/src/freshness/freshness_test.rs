//! One test for each † clause of PROTOCOL's "Freshness without clocks" and of its tokens.

use std::collections::BTreeMap;

use stead_types::{DirectoryVersion, Durability, ErrorKind, Incarnation, Revision, Sequence, TenantLimits};

use super::{
    gate::{FreshnessLevel, ReadDecision, ReplicaState, check_revision, decide},
    *,
};
use crate::{
    directory::{
        AuditContext, Command, Directory, DirectoryChange, Followers, InitialCluster, InitialNode, NewTenant,
        TenantState,
    },
    lineage::Lineage,
};

const SECOND: Duration = Duration::from_secs(1);
const TENANT: TenantNumber = TenantNumber::new(1);

fn version(index: u64) -> DirectoryVersion {
    DirectoryVersion {
        incarnation: Incarnation::FIRST,
        index,
    }
}

fn offset(index: u64) -> FeedOffset {
    FeedOffset {
        incarnation: Incarnation::FIRST,
        index,
    }
}

/// Tenant 1 is at home in group 1 and followed by group 2.
fn view() -> DirectoryView {
    let mut directory = Directory::default();
    let node = |name: &str| InitialNode {
        name: name.into(),
        region: name.parse().unwrap(),
        addresses: Default::default(),
        witness: false,
    };
    let initial = InitialCluster {
        cluster: "test".into(),
        regions: vec![
            ("eu".parse().unwrap(), "EU".parse().unwrap()),
            ("us".parse().unwrap(), "US".parse().unwrap()),
        ],
        nodes: vec![node("eu"), node("us")],
        groups_per_region: 1,
    };
    directory.apply(0, Command::Bootstrap(initial)).result.unwrap();
    let tenant = NewTenant {
        on_lease_loss: crate::shard::record::LeaseLossPolicy::Stop,
        name: "acme".parse().unwrap(),
        home: "eu".parse().unwrap(),
        followers: Followers::AllAdmitted,
        residency: Vec::new(),
        durability: Durability::Region,
        labels: BTreeMap::new(),
        limits: TenantLimits::default(),
    };
    directory
        .apply(0, Command::CreateTenant(AuditContext::default(), tenant))
        .result
        .unwrap();
    directory.view().clone()
}

fn changed(change: impl FnOnce(&mut Tenant)) -> DirectoryView {
    let mut view = view();
    let mut tenant = Tenant::clone(view.tenant(TENANT).unwrap());
    change(&mut tenant);
    view.apply(DirectoryChange::Tenant(Box::new(tenant)));
    view
}

fn epoch(number: u32) -> Epoch {
    Epoch::new(number).unwrap()
}

fn following() -> FollowedTenant {
    FollowedTenant {
        tenant: TENANT,
        home: GroupId::new(1),
        epoch: Epoch::FIRST,
        attached: Some(offset(5)),
        baton: None,
    }
}

/// A ping sent at one second, with a response of offset 10 and version 3.
fn pinged() -> Proofs {
    let mut proofs = Proofs::default();
    proofs.add(Proof {
        as_of: SECOND,
        offset: offset(10),
        view: version(3),
    });
    proofs
}

/// Staleness at three seconds of a copy for which the ping became valid.
fn staleness(view: &DirectoryView, following: &FollowedTenant) -> Option<u64> {
    let mut proofs = pinged();
    proofs.advance(offset(10), version(3));
    proofs
        .staleness(3 * SECOND, view, following)
        .map(|staleness| staleness.as_secs())
}

#[test]
fn staleness_counts_from_ping_send_time() {
    assert_eq!(staleness(&view(), &following()), Some(2));
}

/// Invariant 1.
#[test]
fn proof_is_valid_once_offset_and_version_are_reached() {
    let mut proofs = pinged();
    proofs.advance(offset(9), version(9));
    assert_eq!(proofs.latest(), None, "not applied");
    proofs.advance(offset(19), version(2));
    assert_eq!(proofs.latest(), None, "view too old");
    proofs.advance(offset(10), version(3));
    assert!(proofs.latest().is_some());
}

/// Invariant 2.
#[test]
fn proof_counts_for_attached_tenants_only() {
    let with = |attached| FollowedTenant {
        attached,
        ..following()
    };
    assert_eq!(staleness(&view(), &with(None)), None);
    assert_eq!(
        staleness(&view(), &with(Some(offset(11)))),
        None,
        "attached behind the ping's offset"
    );
    assert_eq!(staleness(&view(), &with(Some(offset(10)))), Some(2));
}

/// Invariant 2: the model's `ping_group_level`.
#[test]
fn proof_counts_only_while_view_agrees_with_record() {
    assert_eq!(
        staleness(&changed(|tenant| tenant.home = GroupId::new(9)), &following()),
        None
    );
    assert_eq!(
        staleness(&changed(|tenant| tenant.epoch = epoch(2)), &following()),
        None
    );
    assert_eq!(
        staleness(&changed(|tenant| tenant.fence_epoch = epoch(2)), &following()),
        None
    );
    assert_eq!(
        staleness(&changed(|tenant| tenant.state = TenantState::Disabled), &following()),
        None
    );
    let behind = FollowedTenant {
        epoch: epoch(2),
        ..following()
    };
    assert_eq!(staleness(&view(), &behind), None);
}

/// Invariant 2: the model's `ping_ignores_baton`.
#[test]
fn proof_does_not_count_past_baton() {
    let with = |baton| FollowedTenant { baton, ..following() };
    assert_eq!(staleness(&view(), &with(Some(offset(10)))), None);
    assert_eq!(
        staleness(&view(), &with(Some(offset(11)))),
        Some(2),
        "the baton came later"
    );
}

/// Invariant 3.
#[test]
fn proof_of_other_incarnation_never_counts() {
    let recovered = FeedOffset {
        incarnation: Incarnation(2),
        index: 100,
    };
    let mut proofs = pinged();
    proofs.advance(recovered, version(3));
    assert_eq!(proofs.latest(), None);
    proofs.advance(offset(10), version(3));
    assert_eq!(proofs.latest(), None, "it was dropped");
    let mut proofs = pinged();
    proofs.advance(offset(10), version(3));
    proofs.advance(recovered, version(3));
    assert_eq!(proofs.latest(), None);
}

#[test]
fn pending_proofs_are_bounded_and_oldest_are_kept() {
    let mut proofs = Proofs::default();
    for number in 1..=100 {
        if proofs.may_ping() {
            proofs.add(Proof {
                as_of: Duration::from_secs(number),
                offset: offset(number),
                view: version(1),
            });
        }
    }
    proofs.advance(offset(3), version(1));
    assert_eq!(proofs.latest().map(|proof| proof.as_of), Some(3 * SECOND));
    proofs.advance(offset(100), version(1));
    assert_eq!(
        proofs.latest().map(|proof| proof.as_of),
        Some(PENDING_MAX as u32 * SECOND)
    );
}

#[test]
fn proof_from_leader_ages_by_its_age() {
    let proof = Proof::from_leader(10 * SECOND, 2 * SECOND, offset(1), version(1));
    assert_eq!(proof.map(|proof| proof.as_of), Some(8 * SECOND));
    assert_eq!(
        Proof::from_leader(SECOND, 2 * SECOND, offset(1), version(1)),
        None,
        "from before this node's start"
    );
}

/// A tenant at epoch 5: moved at 2, promoted at 4 after sequence 10, moved at 5.
fn promoted() -> DirectoryView {
    changed(|tenant| {
        tenant.epoch = epoch(5);
        tenant.lineage.record_move(epoch(2));
        tenant.lineage.record_promotion(epoch(4), Sequence::new(10).unwrap());
        tenant.lineage.record_move(epoch(5));
    })
}

fn revision(text: &str) -> Revision {
    text.parse().unwrap()
}

fn verdict(level: FreshnessLevel, at: &str, lineage: &Lineage, staleness: Option<Duration>) -> ReadDecision {
    let view = promoted();
    let replica = ReplicaState {
        revision: revision(at),
        lineage,
        staleness,
    };
    decide(level, None, view.tenant(TENANT).unwrap(), replica)
}

/// Decision about a token at a replica at revision `at`, of the view's lineage.
fn token(token: &str, at: &str) -> ReadDecision {
    let view = promoted();
    verdict(
        FreshnessLevel::Session(revision(token)),
        at,
        &view.tenant(TENANT).unwrap().lineage,
        None,
    )
}

/// Gate invariant 1: the model's `token_by_rev`.
#[test]
fn token_is_served_iff_replica_has_its_revision() {
    assert_eq!(token("4.11", "4.11"), ReadDecision::Serve);
    assert_eq!(token("4.11", "5.20"), ReadDecision::Serve);
    assert_eq!(token("1.10", "4.11"), ReadDecision::Serve);
    assert_eq!(token("4.11", "1.9"), ReadDecision::WaitFor(revision("4.11")));
    assert_eq!(token("1.9", "1.8"), ReadDecision::WaitFor(revision("1.9")));
    assert_eq!(token("1.0", "1.0"), ReadDecision::Serve, "nothing was seen");
}

#[test]
fn named_revision_is_checked_against_lineage_of_view() {
    let view = promoted();
    let tenant = view.tenant(TENANT).unwrap();
    // The copy's own lineage is from before the promotion: it would show what was cut.
    let older = Lineage::starting(Epoch::FIRST);
    let replica = ReplicaState {
        revision: revision("1.10"),
        lineage: &older,
        staleness: None,
    };
    let at = |at| decide(FreshnessLevel::Local, Some(revision(at)), tenant, replica);
    assert_eq!(at("1.9"), ReadDecision::Serve);
    assert!(matches!(at("2.12"), ReadDecision::Refuse(error) if matches!(error.kind, ErrorKind::Forked { .. })));
    assert_eq!(
        at("6.12"),
        ReadDecision::Serve,
        "may be an unrecorded move: the copy says whether it is there"
    );
}

#[test]
fn cut_token_is_forked_with_cut_range() {
    let ReadDecision::Refuse(error) = token("2.12", "4.30") else {
        panic!("served");
    };
    let expected = ErrorKind::Forked {
        epoch: epoch(2),
        first: revision("2.11"),
        last: revision("2.12"),
        kept: revision("2.10"),
    };
    assert_eq!(error.kind, expected);
}

/// Gate invariant 2: the model's `token_server_epoch`.
#[test]
fn token_of_unknown_epoch_waits() {
    assert_eq!(token("6.1", "5.20"), ReadDecision::WaitFor(revision("6.1")));
    assert_eq!(token("6.21", "5.20"), ReadDecision::WaitFor(revision("6.21")));
}

/// Gate invariant 3, F2.
#[test]
fn cut_replica_serves_nothing_until_rewind() {
    let mut own = Lineage::starting(Epoch::FIRST);
    own.record_move(epoch(2));
    let at = |level| verdict(level, "2.12", &own, Some(Duration::ZERO));
    assert_eq!(at(FreshnessLevel::Local), ReadDecision::Forward);
    assert_eq!(at(FreshnessLevel::Session(revision("1.1"))), ReadDecision::Forward);
    assert_eq!(at(FreshnessLevel::Bounded(SECOND)), ReadDecision::Forward);
}

#[test]
fn replica_behind_promotion_serves_its_history() {
    let mut own = Lineage::starting(Epoch::FIRST);
    own.record_move(epoch(2));
    let at = |level| verdict(level, "2.9", &own, None);
    assert_eq!(at(FreshnessLevel::Session(revision("2.9"))), ReadDecision::Serve);
    assert_eq!(
        at(FreshnessLevel::Session(revision("4.11"))),
        ReadDecision::WaitFor(revision("4.11"))
    );
    assert_eq!(at(FreshnessLevel::Local), ReadDecision::Serve);
}

/// Gate invariant 4.
#[test]
fn staleness_bound_is_compared_with_measurement() {
    let view = promoted();
    let own = &view.tenant(TENANT).unwrap().lineage;
    let at = |staleness| verdict(FreshnessLevel::Bounded(SECOND), "5.20", own, staleness);
    assert_eq!(at(Some(SECOND)), ReadDecision::Serve);
    assert_eq!(at(Some(2 * SECOND)), ReadDecision::Forward);
    assert_eq!(at(None), ReadDecision::Forward, "nothing was measured");
}

#[test]
fn revision_in_closed_run_is_compacted() {
    let view = changed(|tenant| {
        for number in 0..80 {
            tenant
                .lineage
                .record_promotion(epoch(2 + number), Sequence::new(u64::from(number + 1) * 10).unwrap());
        }
        tenant.epoch = epoch(81);
    });
    let error = check_revision(revision("1.5"), view.tenant(TENANT).unwrap()).unwrap_err();
    assert!(
        matches!(error.kind, ErrorKind::Compacted { oldest } if oldest > revision("1.5")),
        "{error:?}"
    );
}
