//! Guards of PROTOCOL's table, one by one.

use bytes::Bytes;
use stead_types::{FeedOffset, GroupId, Incarnation, Revision, Sequence};

use super::group::{Group, HOME, TENANT, epoch, revision, version};
use crate::{
    lineage::{Lineage, LostRevisions},
    shard::{
        ApplyResult,
        apply_result::{DetachReason, GuardFailure},
        command::{
            Attach, BeginAttach, Chunk, Condition, Create, DataHeader, Detach, Effect, Erase, Follow, Offset,
            Operation, Rejoin, RetentionFloor, Write,
        },
        digest::{DigestMismatch, Digests},
        record::{AttachNumber, ClientsLoaded, LeaseLossPolicy, OperationId, Role, SeedNumber, ShadowCopy},
    },
};

const OTHER: GroupId = GroupId::new(3);

fn put(value: &'static str) -> Bytes {
    let operation = Operation::new("k", Effect::put(value.to_owned()));
    Write::new(TENANT, None, operation).encode()
}

fn follow(home: GroupId, number: u32, view: u64, promotions: &[(u32, u64)]) -> Bytes {
    let follow = Follow {
        tenant: TENANT,
        version: version(view),
        home,
        epoch: epoch(number),
        lineage: lineage(promotions),
    };
    follow.encode()
}

fn lineage(promotions: &[(u32, u64)]) -> Lineage {
    let mut lineage = Lineage::starting(epoch(1));
    for (number, kept) in promotions {
        lineage.record_promotion(epoch(*number), Sequence::new(*kept).unwrap());
    }
    lineage
}

fn erase(view: u64, deleted: bool, forks: Vec<u32>) -> Bytes {
    let erase = Erase {
        tenant: TENANT,
        version: version(view),
        deleted,
        forks,
        recorded: None,
    };
    erase.encode()
}

fn guard_failure_of(answer: &ApplyResult) -> GuardFailure {
    let ApplyResult::GuardFailed(failure) = answer else {
        panic!("no guard failed: {answer:?}")
    };
    *failure
}

/// A home with three changes and a follower that has them.
fn fed() -> (Group, Group) {
    let mut home = Group::owner();
    for value in ["a", "b", "c"] {
        home.apply(1_000, put(value));
    }
    let mut follower = Group::follower(&home);
    assert_eq!(follower.attach(&home), ApplyResult::Done);
    let data = home.data(Revision::ZERO, Sequence::MAX);
    follower.apply(0, data.encode());
    assert_eq!(follower.record().live.revision, revision("1.3"));
    (home, follower)
}

#[test]
fn create_twice_is_rejected() {
    let mut home = Group::owner();
    let create = Create {
        tenant: TENANT,
        version: version(9),
        policy: LeaseLossPolicy::Stop,
    };
    assert_eq!(
        guard_failure_of(&home.apply(0, create.encode())),
        GuardFailure::HasRecord
    );
    home.apply(0, erase(10, true, vec![]));
    assert_eq!(
        guard_failure_of(&home.apply(0, create.encode())),
        GuardFailure::HasRecord,
        "a number is never used twice"
    );
}

#[test]
fn write_at_non_owner_is_rejected_with_heir() {
    let (mut home, mut follower) = fed();
    assert_eq!(
        guard_failure_of(&follower.apply(0, put("x"))),
        GuardFailure::NotOwner { to: None }
    );
    let role = Role::Relinquished {
        operation: OperationId(1),
        to: OTHER,
        epoch: epoch(2),
        last: revision("1.3"),
    };
    home.shard.tenants.get_mut(&TENANT).unwrap().record.role = role;
    assert_eq!(
        guard_failure_of(&home.apply(0, put("x"))),
        GuardFailure::NotOwner { to: Some(OTHER) }
    );
    assert_eq!(home.record().live.revision, revision("1.3"));
}

#[test]
fn follow_needs_other_home_higher_epoch_current_view() {
    let (mut home, mut follower) = fed();
    assert_eq!(
        guard_failure_of(&home.apply(0, follow(HOME, 2, 5, &[]))),
        GuardFailure::NotFollower
    );
    let refused = GuardFailure::Epoch {
        epoch: epoch(1),
        promised: epoch(1),
    };
    assert_eq!(guard_failure_of(&follower.apply(0, follow(OTHER, 1, 5, &[]))), refused);
    assert_eq!(follower.apply(0, follow(OTHER, 3, 5, &[(3, 3)])), ApplyResult::Done);
    assert_eq!(
        guard_failure_of(&follower.apply(0, follow(HOME, 4, 4, &[(4, 3)]))),
        GuardFailure::OlderView
    );
    follower.shard.tenants.get_mut(&TENANT).unwrap().record.promised = epoch(6);
    let refused = GuardFailure::Epoch {
        epoch: epoch(3),
        promised: epoch(6),
    };
    assert_eq!(
        guard_failure_of(&follower.apply(0, follow(HOME, 5, 7, &[(5, 3)]))),
        refused
    );
    assert_eq!(follower.apply(0, follow(HOME, 6, 7, &[(6, 3)])), ApplyResult::Done);
    assert_eq!(follower.record().promised, epoch(6));
    assert!(follower.record().forks.is_empty());
    let mut stranger = Group::new(OTHER);
    assert!(matches!(
        guard_failure_of(&stranger.apply(0, follow(OTHER, 1, 1, &[]))),
        GuardFailure::NotFollower
    ));
    assert!(
        stranger.shard.record(TENANT).is_none(),
        "a command whose guard fails leaves no record"
    );
}

#[test]
fn former_home_keeps_cut_history_as_fork() {
    let (mut home, _) = fed();
    assert_eq!(home.apply(0, follow(OTHER, 4, 5, &[(4, 2)])), ApplyResult::Done);
    let record = home.record().clone();
    assert_eq!(record.role, Role::Follower { home: OTHER });
    assert_eq!((record.live.revision, record.rewind), (revision("1.2"), None));
    let fork = &record.forks[0];
    assert_eq!((fork.copy.revision, fork.point.get()), (revision("1.3"), 2));
    assert_eq!(
        (&fork.lineage, fork.tail.map(|tail| tail.after)),
        (&lineage(&[]), Some(revision("1.2")))
    );
    assert_eq!(
        changes_of(&home, fork.copy.number),
        2,
        "the change that was cut, and what it replaced"
    );
    assert_eq!(changes_of(&home, record.live.number), 2);
    assert_eq!(
        guard_failure_of(&home.apply(0, erase(6, false, vec![]))),
        GuardFailure::HoldsForks
    );
    assert_eq!(
        home.apply(0, erase(6, false, vec![fork.copy.number])),
        ApplyResult::Done
    );
    home.maintain();
    assert_eq!(home.data_rows(), 0);
}

/// Counts the changes of a copy.
fn changes_of(group: &Group, copy: u32) -> usize {
    let rows = group.shard.prefix().copy(TENANT, copy).range(crate::rows::kind::CHANGE);
    crate::rows::Rows::range(&group.rows, &rows.start..&rows.end, crate::rows::Order::Ascending).count()
}

#[test]
fn former_home_whose_floor_is_above_cut_keeps_whole_copy_as_fork() {
    let (mut home, _) = fed();
    let floor = RetentionFloor {
        index: 0,
        tenants: vec![(TENANT, revision("1.3"))],
    };
    home.apply(0, floor.encode());
    assert_eq!(home.apply(0, follow(OTHER, 4, 5, &[(4, 2)])), ApplyResult::Done);
    let record = home.record();
    assert_eq!((record.live.revision, record.rewind), (Revision::ZERO, None));
    let fork = &record.forks[0];
    assert_eq!(
        (fork.copy.number, fork.copy.revision, fork.tail),
        (1, revision("1.3"), None)
    );
    let summary = &home.shard.forks(&home.rows, TENANT).unwrap()[0];
    assert_eq!(
        (summary.entries, summary.is_whole, summary.first),
        (1, true, Some(revision("1.3")))
    );
    let page = home
        .shard
        .fork(&home.rows, TENANT, 1)
        .unwrap()
        .entries(None, 10, 1 << 20);
    assert!(
        page.unwrap().entries.is_empty(),
        "what is below the floor is not listed"
    );
}

#[test]
fn attach_needs_attempt_epoch_position_and_history() {
    let (home, fed) = fed();
    let right = Attach {
        tenant: TENANT,
        home: HOME,
        epoch: epoch(1),
        version: version(1),
        number: AttachNumber(2),
        position: revision("1.3"),
        lineage: lineage(&[]),
    };
    // Each on a follower of its own: a void attach of the present attempt ends it, one of another leaves it.
    let attempt = |change: &dyn Fn(&mut Attach)| {
        let mut follower = fed.copied();
        assert_eq!(follower.begin_attach(), ApplyResult::Done);
        let mut attach = right.clone();
        change(&mut attach);
        let answer = follower.apply(0, attach.encode());
        let record = follower.record();
        (answer, record.session.is_some(), follower.shard.is_attached(record))
    };
    let ends = |failure| (ApplyResult::GuardFailed(failure), false, false);
    let ignored = (ApplyResult::GuardFailed(GuardFailure::Session), true, false);
    assert_eq!(attempt(&|_| ()), (ApplyResult::Done, true, true));
    assert_eq!(attempt(&|attach| attach.number = AttachNumber(1)), ignored);
    assert_eq!(attempt(&|attach| attach.home = OTHER), ignored);
    let failure = GuardFailure::Epoch {
        epoch: epoch(1),
        promised: epoch(1),
    };
    assert_eq!(attempt(&|attach| attach.epoch = epoch(2)), ends(failure));
    assert_eq!(
        attempt(&|attach| attach.version = version(0)),
        ends(GuardFailure::OlderView)
    );
    let behind = GuardFailure::Position {
        revision: revision("1.3"),
    };
    assert_eq!(attempt(&|attach| attach.position = revision("1.4")), ends(behind));
    assert_eq!(
        attempt(&|attach| attach.lineage = lineage(&[(3, 2)])),
        ends(GuardFailure::Diverged)
    );
    let mut follower = fed.copied();
    follower.apply(0, home.next_seed(&follower).encode());
    assert_eq!(follower.begin_attach(), ApplyResult::Done);
    assert_eq!(
        guard_failure_of(&follower.attach(&home)),
        GuardFailure::Seed,
        "swapped in first"
    );
}

#[test]
fn attach_number_is_not_reused_and_detach_names_it() {
    let (home, mut follower) = fed();
    let detach = |number| Detach {
        tenant: TENANT,
        home: HOME,
        number: AttachNumber(number),
    };
    let begin = |number, view| BeginAttach {
        tenant: TENANT,
        home: HOME,
        incarnation: Incarnation::FIRST,
        epoch: epoch(1),
        version: version(view),
        number: AttachNumber(number),
    };
    assert!(follower.shard.is_attached(follower.record()));
    assert_eq!(
        guard_failure_of(&follower.apply(0, begin(1, 1).encode())),
        GuardFailure::Session
    );
    assert_eq!(
        guard_failure_of(&follower.apply(0, begin(2, 0).encode())),
        GuardFailure::OlderView
    );
    assert_eq!(
        guard_failure_of(&follower.apply(0, detach(2).encode())),
        GuardFailure::Session
    );
    assert!(follower.shard.is_attached(follower.record()));
    assert_eq!(follower.apply(0, detach(1).encode()), ApplyResult::Done);
    assert_eq!(
        guard_failure_of(&follower.apply(0, detach(1).encode())),
        GuardFailure::Session
    );
    assert_eq!(
        guard_failure_of(&follower.attach(&home)),
        GuardFailure::Session,
        "it is over"
    );
    follower.reopen();
    assert_eq!(
        guard_failure_of(&follower.apply(0, begin(1, 1).encode())),
        GuardFailure::Session
    );
    assert_eq!(follower.apply(0, begin(2, 1).encode()), ApplyResult::Done);
    assert!(!follower.shard.is_attached(follower.record()), "not yet");
    assert_eq!(
        guard_failure_of(&follower.apply(0, detach(1).encode())),
        GuardFailure::Session
    );
    follower.reopen();
    assert_eq!(follower.attach(&home), ApplyResult::Done);
    assert!(follower.shard.is_attached(follower.record()));
    // Erased and followed again: a message of before must not find a number of its own.
    assert_eq!(follower.apply(0, erase(7, false, vec![])), ApplyResult::Done);
    assert_eq!(follower.apply(0, follow(HOME, 1, 8, &[])), ApplyResult::Done);
    assert_eq!(
        guard_failure_of(&follower.apply(0, begin(2, 8).encode())),
        GuardFailure::Session
    );
}

#[test]
fn feed_of_new_incarnation_detaches_tenants() {
    let (_, mut follower) = fed();
    let mut offset = |incarnation, index| {
        let offset = FeedOffset {
            incarnation: Incarnation(incarnation),
            index,
        };
        let answer = follower.apply(0, Offset { home: HOME, offset }.encode());
        (answer, follower.shard.is_attached(follower.record()))
    };
    assert_eq!(offset(1, 7), (ApplyResult::Done, true));
    assert_eq!(offset(1, 7), (ApplyResult::GuardFailed(GuardFailure::Offset), true));
    assert_eq!(offset(1, 9), (ApplyResult::Done, true));
    assert_eq!(offset(2, 3), (ApplyResult::Done, false));
    assert_eq!(offset(1, 10), (ApplyResult::GuardFailed(GuardFailure::Offset), false));
}

#[test]
fn data_needs_session_of_promised_epoch() {
    let (mut home, mut follower) = fed();
    home.apply(1_000, put("d"));
    let data = home.data(revision("1.3"), Sequence::MAX);
    let with = |change: &dyn Fn(&mut DataHeader)| {
        let mut data = data.clone();
        change(&mut data.head);
        data.encode()
    };
    // What belongs to another attempt is ignored.
    for other in [
        with(&|head| head.home = OTHER),
        with(&|head| head.attach = AttachNumber(0)),
        with(&|head| head.attach = AttachNumber(2)),
    ] {
        assert_eq!(guard_failure_of(&follower.apply(0, other)), GuardFailure::Session);
        assert!(follower.shard.is_attached(follower.record()));
    }
    // What is void for another reason is missing from here on: the tenant is detached by the same command.
    let is_void = |follower: &Group, command| {
        let mut follower = follower.copied();
        let answer = follower.apply(0, command);
        assert!(!follower.shard.is_attached(follower.record()));
        let detached: Vec<_> = follower.shard.detached(HOME).collect();
        assert_eq!(detached, [TENANT]);
        assert_eq!(follower.record().live.revision, revision("1.3"));
        guard_failure_of(&answer)
    };
    let epoch_failure = |promised| GuardFailure::Epoch {
        epoch: epoch(1),
        promised: epoch(promised),
    };
    assert_eq!(
        is_void(&follower, with(&|head| head.epoch = epoch(2))),
        epoch_failure(1)
    );
    assert_eq!(
        is_void(&follower, with(&|head| head.version = version(0))),
        GuardFailure::OlderView
    );
    follower.shard.tenants.get_mut(&TENANT).unwrap().record.promised = epoch(2);
    assert_eq!(
        is_void(&follower, data.encode()),
        epoch_failure(2),
        "a higher epoch was promised"
    );
}

#[test]
fn gap_detaches_and_applies_nothing() {
    let (mut home, mut follower) = fed();
    home.apply(1_000, put("d"));
    home.apply(1_000, put("e"));
    let late = home.data(revision("1.4"), Sequence::MAX);
    let ApplyResult::Data(fed) = follower.apply(0, late.encode()) else {
        panic!()
    };
    assert_eq!((fed.detached, fed.revision), (Some(DetachReason::Gap), revision("1.3")));
    assert!(!follower.shard.is_attached(follower.record()));
    let all = home.data(revision("1.1"), Sequence::MAX);
    assert_eq!(
        guard_failure_of(&follower.apply(0, all.encode())),
        GuardFailure::Session,
        "of an attempt that is over"
    );
    assert_eq!(follower.begin_attach(), ApplyResult::Done);
    let all = home.data_for(&follower, revision("1.1"), Sequence::MAX);
    let ApplyResult::Data(fed) = follower.apply(0, all.encode()) else {
        panic!()
    };
    assert_eq!(
        (fed.detached, fed.revision),
        (None, revision("1.5")),
        "what is known is ignored"
    );
}

#[test]
fn digest_mismatch_stops_copy_until_seeded() {
    let (mut home, mut follower) = fed();
    home.apply(1_000, put("d"));
    let mut data = home.data(revision("1.3"), Sequence::MAX);
    data.records.digests = data.records.digests.map(|digests| Digests {
        keys: digests.keys ^ 1,
        ..digests
    });
    let ApplyResult::Data(fed) = follower.apply(0, data.encode()) else {
        panic!()
    };
    assert_eq!(fed.detached, Some(DetachReason::DigestMismatch(DigestMismatch::Keys)));
    assert!(follower.record().suspect);
    assert_eq!(follower.begin_attach(), ApplyResult::Done);
    assert_eq!(guard_failure_of(&follower.attach(&home)), GuardFailure::Suspect);
    home.apply(1_000, put("e"));
    assert_eq!(follower.begin_attach(), ApplyResult::Done);
    let next = home.data_for(&follower, revision("1.4"), Sequence::MAX);
    follower.apply(0, next.encode());
    assert_eq!(follower.record().live.revision, revision("1.4"), "it stays as it is");
    seed(&home, &mut follower);
    assert!(!follower.record().suspect);
    assert_eq!(follower.record().live.digests, home.record().live.digests);
    assert_eq!(follower.begin_attach(), ApplyResult::Done);
    assert_eq!(follower.attach(&home), ApplyResult::Done);
    follower.maintain();
    assert_eq!(follower.data_rows(), 2, "the old copy goes");
}

#[test]
fn chunk_of_other_seed_is_rejected() {
    let (home, mut follower) = fed();
    for _ in 0..2 {
        let begin = home.next_seed(&follower);
        assert_eq!(follower.apply(0, begin.encode()), ApplyResult::Done);
    }
    let live = home.record().live.revision;
    let part = home.reading().chunk_of_changes(Sequence::ZERO, live, 1 << 20).unwrap();
    let chunk = home.chunk(&follower, part);
    for number in [SeedNumber(1), SeedNumber(3)] {
        let other = Chunk {
            number,
            ..chunk.clone()
        };
        assert_eq!(
            guard_failure_of(&follower.apply(0, other.encode())),
            GuardFailure::Seed,
            "{number:?}"
        );
    }
    assert_eq!(follower.apply(0, chunk.encode()), ApplyResult::Done);
}

/// Seeds the follower in one go.
fn seed(home: &Group, follower: &mut Group) {
    let live = home.record().live.clone();
    let seed = home.next_seed(follower);
    assert_eq!(follower.apply(0, seed.encode()), ApplyResult::Done);
    assert_eq!(
        guard_failure_of(&follower.apply(0, seed.encode())),
        GuardFailure::Seed,
        "a number is used once"
    );
    let swap = home.swap(follower);
    let parts = [
        home.reading()
            .chunk_of_changes(Sequence::ZERO, live.revision, 1 << 20)
            .unwrap(),
        home.reading().chunk_of_clients(ClientsLoaded::default(), 1 << 20),
    ];
    for part in parts {
        assert_eq!(
            guard_failure_of(&follower.apply(0, swap.encode())),
            GuardFailure::Seed,
            "not whole yet"
        );
        let chunk = home.chunk(follower, part);
        assert_eq!(follower.apply(0, chunk.encode()), ApplyResult::Done);
        assert_eq!(
            guard_failure_of(&follower.apply(0, chunk.encode())),
            GuardFailure::Seed,
            "it goes on behind the last one"
        );
    }
    assert_eq!(follower.apply(0, swap.encode()), ApplyResult::Done);
    assert_eq!(
        follower.record().live.index,
        follower.index,
        "the copy is there from the swap on"
    );
}

#[test]
fn shadow_copy_off_lineage_is_dropped() {
    let (home, mut follower) = fed();
    let begin = home.next_seed(&follower);
    follower.apply(0, begin.encode());
    let shadow: Option<&ShadowCopy> = follower.record().shadow.as_ref();
    assert!(shadow.is_some());
    follower.apply(0, follow(OTHER, 3, 5, &[(3, 3)]));
    assert!(follower.record().shadow.is_some(), "still on the lineage");
    follower.apply(0, follow(HOME, 5, 6, &[(5, 2)]));
    assert!(follower.record().shadow.is_none());
}

#[test]
fn erase_needs_current_view_and_deleted_tenant_at_owner() {
    let (mut home, mut follower) = fed();
    assert_eq!(
        guard_failure_of(&home.apply(0, erase(5, false, vec![]))),
        GuardFailure::NotFollower
    );
    let rejoin = |view| Rejoin {
        tenant: TENANT,
        version: version(view),
    };
    assert_eq!(follower.apply(0, rejoin(6).encode()), ApplyResult::Done);
    assert_eq!(
        guard_failure_of(&follower.apply(0, rejoin(5).encode())),
        GuardFailure::OlderView
    );
    assert_eq!(
        guard_failure_of(&follower.apply(0, erase(5, false, vec![]))),
        GuardFailure::OlderView
    );
    assert_eq!(follower.record().live.revision, revision("1.3"), "it rejoined");
    assert_eq!(follower.apply(0, erase(7, false, vec![])), ApplyResult::Done);
    assert_eq!(follower.record().role, Role::Erased);
    assert_eq!(follower.record().promised, epoch(1));
    follower.reopen();
    follower.maintain();
    assert_eq!(follower.data_rows(), 0);
    // Added again, at the same epoch.
    assert_eq!(follower.apply(0, follow(HOME, 1, 8, &[])), ApplyResult::Done);
    assert_eq!(follower.begin_attach(), ApplyResult::Done);
    let data = home.data_for(&follower, Revision::ZERO, Sequence::MAX);
    follower.apply(0, data.encode());
    assert_eq!(follower.record().live.digests, home.record().live.digests);
    assert_eq!(home.apply(0, erase(9, true, vec![])), ApplyResult::Done);
}

#[test]
fn condition_on_cut_revision_is_forked() {
    let (mut home, _) = fed();
    let record = &mut home.shard.tenants.get_mut(&TENANT).unwrap().record;
    record.lineage = lineage(&[(4, 3)]);
    record.epoch = epoch(4);
    let write = |wanted| {
        let operation = Operation {
            condition: Some(Condition::modified_at(revision(wanted))),
            ..Operation::new("k", Effect::Delete)
        };
        Write::new(TENANT, None, operation).encode()
    };
    let forked = ApplyResult::Forked {
        lost: LostRevisions {
            first: revision("1.4"),
            last: revision("1.4"),
            kept: revision("1.3"),
        },
        at: home.record().live.evaluation_point(),
    };
    assert_eq!(home.apply(0, write("1.4")), forked);
    assert!(matches!(
        home.apply(0, write("1.2")),
        ApplyResult::ConditionFailed { .. }
    ));
    assert!(matches!(home.apply(0, write("1.3")), ApplyResult::Write(written) if written.revision == revision("4.4")));
}
