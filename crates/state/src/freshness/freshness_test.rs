//! One test for each † clause of PROTOCOL's "Freshness without clocks" and of its tokens.

use std::collections::BTreeMap;

use stead_types::{DirectoryVersion, Durability, ErrorKind, Incarnation, Revision, Sequence, TenantLimits};

use super::{
    gate::{Level, Replica, Verdict, check, read},
    *,
};
use crate::{
    directory::{By, Change, Command, Directory, Followers, Initial, InitialNode, NewTenant, State},
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
fn view() -> View {
    let mut directory = Directory::default();
    let node = |name: &str| InitialNode {
        name: name.into(),
        region: name.parse().unwrap(),
        addresses: Default::default(),
        witness: false,
    };
    let initial = Initial {
        cluster: "test".into(),
        regions: vec![
            ("eu".parse().unwrap(), "EU".parse().unwrap()),
            ("us".parse().unwrap(), "US".parse().unwrap()),
        ],
        nodes: vec![node("eu"), node("us")],
        groups_per_region: 1,
    };
    directory.apply(0, Command::Bootstrap(initial)).answer.unwrap();
    let tenant = NewTenant {
        name: "acme".parse().unwrap(),
        home: "eu".parse().unwrap(),
        followers: Followers::AllAdmitted,
        residency: Vec::new(),
        durability: Durability::Region,
        labels: BTreeMap::new(),
        limits: TenantLimits::default(),
    };
    directory
        .apply(0, Command::CreateTenant(By::default(), tenant))
        .answer
        .unwrap();
    directory.view().clone()
}

fn changed(change: impl FnOnce(&mut Tenant)) -> View {
    let mut view = view();
    let mut tenant = Tenant::clone(view.tenant(TENANT).unwrap());
    change(&mut tenant);
    view.apply(Change::Tenant(Box::new(tenant)));
    view
}

fn epoch(number: u32) -> Epoch {
    Epoch::new(number).unwrap()
}

fn following() -> Following {
    Following {
        tenant: TENANT,
        home: GroupId::new(1),
        epoch: Epoch::FIRST,
        attached: Some(offset(5)),
        baton: None,
    }
}

/// A ping sent at one second, answered with offset 10 and version 3.
fn pinged() -> Proofs {
    let mut proofs = Proofs::default();
    proofs.answered(Proof {
        as_of: SECOND,
        offset: offset(10),
        view: version(3),
    });
    proofs
}

/// What a copy that counted the ping says at three seconds.
fn staleness(view: &View, following: &Following) -> Option<u64> {
    let mut proofs = pinged();
    proofs.advance(offset(10), version(3));
    proofs
        .staleness(3 * SECOND, view, following)
        .map(|staleness| staleness.as_secs())
}

#[test]
fn staleness_counts_from_when_the_ping_was_sent() {
    assert_eq!(staleness(&view(), &following()), Some(2));
}

/// Invariant 1.
#[test]
fn a_ping_counts_once_its_offset_is_applied_and_its_version_reached() {
    let mut proofs = pinged();
    proofs.advance(offset(9), version(9));
    assert_eq!(proofs.counted(), None, "not applied");
    proofs.advance(offset(19), version(2));
    assert_eq!(proofs.counted(), None, "view too old");
    proofs.advance(offset(10), version(3));
    assert!(proofs.counted().is_some());
}

/// Invariant 2.
#[test]
fn a_ping_counts_for_attached_tenants_only() {
    let with = |attached| Following {
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
fn a_ping_counts_only_while_the_view_says_that_the_group_is_home_at_the_epoch_followed() {
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
        staleness(&changed(|tenant| tenant.state = State::Disabled), &following()),
        None
    );
    let behind = Following {
        epoch: epoch(2),
        ..following()
    };
    assert_eq!(staleness(&view(), &behind), None);
}

/// Invariant 2: the model's `ping_ignores_baton`.
#[test]
fn a_ping_does_not_count_past_the_baton_that_ended_the_epoch() {
    let with = |baton| Following { baton, ..following() };
    assert_eq!(staleness(&view(), &with(Some(offset(10)))), None);
    assert_eq!(
        staleness(&view(), &with(Some(offset(11)))),
        Some(2),
        "the baton came later"
    );
}

/// Invariant 3.
#[test]
fn a_ping_of_another_incarnation_never_counts() {
    let recovered = FeedOffset {
        incarnation: Incarnation(2),
        index: 100,
    };
    let mut proofs = pinged();
    proofs.advance(recovered, version(3));
    assert_eq!(proofs.counted(), None);
    proofs.advance(offset(10), version(3));
    assert_eq!(proofs.counted(), None, "it was dropped");
    let mut proofs = pinged();
    proofs.advance(offset(10), version(3));
    proofs.advance(recovered, version(3));
    assert_eq!(proofs.counted(), None);
}

#[test]
fn waiting_proofs_are_bounded_and_the_oldest_are_kept() {
    let mut proofs = Proofs::default();
    for number in 1..=100 {
        if proofs.wants_ping() {
            proofs.answered(Proof {
                as_of: Duration::from_secs(number),
                offset: offset(number),
                view: version(1),
            });
        }
    }
    proofs.advance(offset(3), version(1));
    assert_eq!(proofs.counted().map(|proof| proof.as_of), Some(3 * SECOND));
    proofs.advance(offset(100), version(1));
    assert_eq!(
        proofs.counted().map(|proof| proof.as_of),
        Some(PENDING_MAX as u32 * SECOND)
    );
}

#[test]
fn what_a_leader_knows_is_older_by_its_age_on_another_node() {
    let proof = Proof::relayed(10 * SECOND, 2 * SECOND, offset(1), version(1));
    assert_eq!(proof.map(|proof| proof.as_of), Some(8 * SECOND));
    assert_eq!(
        Proof::relayed(SECOND, 2 * SECOND, offset(1), version(1)),
        None,
        "from before this node's start"
    );
}

/// A tenant at epoch 5: moved at 2, promoted at 4 after sequence 10, moved at 5.
fn promoted() -> View {
    changed(|tenant| {
        tenant.epoch = epoch(5);
        tenant.lineage.moved_to(epoch(2));
        tenant.lineage.promoted_to(epoch(4), Sequence::new(10).unwrap());
        tenant.lineage.moved_to(epoch(5));
    })
}

fn revision(text: &str) -> Revision {
    text.parse().unwrap()
}

fn verdict(level: Level, at: &str, lineage: &Lineage, staleness: Option<Duration>) -> Verdict {
    let view = promoted();
    let replica = Replica {
        revision: revision(at),
        lineage,
        staleness,
    };
    read(level, None, view.tenant(TENANT).unwrap(), replica)
}

/// What a token gives at a replica that stands at `at`, of the view's lineage.
fn token(token: &str, at: &str) -> Verdict {
    let view = promoted();
    verdict(
        Level::Session(revision(token)),
        at,
        &view.tenant(TENANT).unwrap().lineage,
        None,
    )
}

/// Gate invariant 1: the model's `token_by_rev`.
#[test]
fn a_token_is_served_if_and_only_if_the_replica_holds_it() {
    assert_eq!(token("4.11", "4.11"), Verdict::Serve);
    assert_eq!(token("4.11", "5.20"), Verdict::Serve);
    assert_eq!(token("1.10", "4.11"), Verdict::Serve);
    assert_eq!(token("4.11", "1.9"), Verdict::WaitFor(revision("4.11")));
    assert_eq!(token("1.9", "1.8"), Verdict::WaitFor(revision("1.9")));
    assert_eq!(token("1.0", "1.0"), Verdict::Serve, "nothing was seen");
}

#[test]
fn named_revision_is_held_against_the_views_lineage() {
    let view = promoted();
    let tenant = view.tenant(TENANT).unwrap();
    // The copy's own lineage is from before the promotion: it would show what was cut.
    let older = Lineage::starting(Epoch::FIRST);
    let replica = Replica {
        revision: revision("1.10"),
        lineage: &older,
        staleness: None,
    };
    let at = |at| read(Level::Local, Some(revision(at)), tenant, replica);
    assert_eq!(at("1.9"), Verdict::Serve);
    assert!(matches!(at("2.12"), Verdict::Refuse(error) if matches!(error.kind, ErrorKind::Forked { .. })));
    assert_eq!(
        at("6.12"),
        Verdict::Serve,
        "may be an unrecorded move: the copy says whether it is there"
    );
}

#[test]
fn a_token_that_was_cut_is_forked_with_what_was_cut() {
    let Verdict::Refuse(error) = token("2.12", "4.30") else {
        panic!("served");
    };
    let expected = ErrorKind::Forked {
        epoch: epoch(2),
        first: revision("2.11"),
        last: revision("2.12"),
    };
    assert_eq!(error.kind, expected);
}

/// Gate invariant 2: the model's `token_server_epoch`.
#[test]
fn a_token_of_an_epoch_that_the_view_does_not_know_waits() {
    assert_eq!(token("6.1", "5.20"), Verdict::WaitFor(revision("6.1")));
    assert_eq!(token("6.21", "5.20"), Verdict::WaitFor(revision("6.21")));
}

/// Gate invariant 3, F2.
#[test]
fn a_replica_that_was_cut_shows_nothing_until_its_rewind() {
    let mut own = Lineage::starting(Epoch::FIRST);
    own.moved_to(epoch(2));
    let at = |level| verdict(level, "2.12", &own, Some(Duration::ZERO));
    assert_eq!(at(Level::Local), Verdict::Forward);
    assert_eq!(at(Level::Session(revision("1.1"))), Verdict::Forward);
    assert_eq!(at(Level::Bounded(SECOND)), Verdict::Forward);
}

#[test]
fn a_replica_that_lags_behind_a_promotion_serves_what_it_has() {
    let mut own = Lineage::starting(Epoch::FIRST);
    own.moved_to(epoch(2));
    let at = |level| verdict(level, "2.9", &own, None);
    assert_eq!(at(Level::Session(revision("2.9"))), Verdict::Serve);
    assert_eq!(at(Level::Session(revision("4.11"))), Verdict::WaitFor(revision("4.11")));
    assert_eq!(at(Level::Local), Verdict::Serve);
}

/// Gate invariant 4.
#[test]
fn a_bound_is_served_by_what_was_measured() {
    let view = promoted();
    let own = &view.tenant(TENANT).unwrap().lineage;
    let at = |staleness| verdict(Level::Bounded(SECOND), "5.20", own, staleness);
    assert_eq!(at(Some(SECOND)), Verdict::Serve);
    assert_eq!(at(Some(2 * SECOND)), Verdict::Forward);
    assert_eq!(at(None), Verdict::Forward, "nothing was measured");
}

#[test]
fn a_revision_in_a_closed_run_is_too_old_to_tell() {
    let view = changed(|tenant| {
        for number in 0..80 {
            tenant
                .lineage
                .promoted_to(epoch(2 + number), Sequence::new(u64::from(number + 1) * 10).unwrap());
        }
        tenant.epoch = epoch(81);
    });
    let error = check(revision("1.5"), view.tenant(TENANT).unwrap()).unwrap_err();
    assert!(
        matches!(error.kind, ErrorKind::Compacted { oldest } if oldest > revision("1.5")),
        "{error:?}"
    );
}
