//! The guards of PROTOCOL's table, one by one.

use bytes::Bytes;
use stead_types::{FeedOffset, GroupId, Incarnation, Revision, Sequence};

use super::group::{Group, HOME, TENANT, epoch, revision, version};
use crate::{
    lineage::Lineage,
    shard::{
        Answer,
        answer::{Detached, Void},
        command::{
            Attach, BeginAttach, Chunk, Condition, Create, DataHead, Detach, Effect, Erase, Follow, Offset, Operation,
            Rejoin, Write,
        },
        digest::{Differs, Digests},
        record::{AttachNumber, ClientsLoaded, OnLeaseLoss, OperationId, Role, SeedNumber, Shadow},
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
        lineage.promoted_to(epoch(*number), Sequence::new(*kept).unwrap());
    }
    lineage
}

fn erase(view: u64, deleted: bool, forks: Vec<u32>) -> Bytes {
    let erase = Erase {
        tenant: TENANT,
        version: version(view),
        deleted,
        forks,
    };
    erase.encode()
}

fn void_of(answer: &Answer) -> Void {
    let Answer::Void(void) = answer else {
        panic!("not void: {answer:?}")
    };
    *void
}

/// A home with three changes and a follower that has them.
fn fed() -> (Group, Group) {
    let mut home = Group::owner();
    for value in ["a", "b", "c"] {
        home.apply(1_000, put(value));
    }
    let mut follower = Group::follower(&home);
    assert_eq!(follower.attach(&home), Answer::Done);
    let data = home.data(Revision::ZERO, Sequence::MAX);
    follower.apply(0, data.encode());
    assert_eq!(follower.record().live.revision, revision("1.3"));
    (home, follower)
}

#[test]
fn a_tenant_is_created_once() {
    let mut home = Group::owner();
    let create = Create {
        tenant: TENANT,
        version: version(9),
        policy: OnLeaseLoss::Stop,
    };
    assert_eq!(void_of(&home.apply(0, create.encode())), Void::HasRecord);
    home.apply(0, erase(10, true, vec![]));
    assert_eq!(
        void_of(&home.apply(0, create.encode())),
        Void::HasRecord,
        "a number is never used twice"
    );
}

#[test]
fn only_an_owner_writes_and_who_handed_over_says_to_whom() {
    let (mut home, mut follower) = fed();
    assert_eq!(void_of(&follower.apply(0, put("x"))), Void::NotOwner { to: None });
    let role = Role::Relinquished {
        operation: OperationId(1),
        to: OTHER,
        epoch: epoch(2),
        last: revision("1.3"),
    };
    home.shard.tenants.get_mut(&TENANT).unwrap().record.role = role;
    assert_eq!(void_of(&home.apply(0, put("x"))), Void::NotOwner { to: Some(OTHER) });
    assert_eq!(home.record().live.revision, revision("1.3"));
}

#[test]
fn follow_needs_another_home_a_higher_epoch_and_no_older_view() {
    let (mut home, mut follower) = fed();
    assert_eq!(void_of(&home.apply(0, follow(HOME, 2, 5, &[]))), Void::NotFollower);
    let refused = Void::Epoch {
        epoch: epoch(1),
        promised: epoch(1),
    };
    assert_eq!(void_of(&follower.apply(0, follow(OTHER, 1, 5, &[]))), refused);
    assert_eq!(follower.apply(0, follow(OTHER, 3, 5, &[(3, 3)])), Answer::Done);
    assert_eq!(
        void_of(&follower.apply(0, follow(HOME, 4, 4, &[(4, 3)]))),
        Void::OlderView
    );
    follower.shard.tenants.get_mut(&TENANT).unwrap().record.promised = epoch(6);
    let refused = Void::Epoch {
        epoch: epoch(3),
        promised: epoch(6),
    };
    assert_eq!(void_of(&follower.apply(0, follow(HOME, 5, 7, &[(5, 3)]))), refused);
    assert_eq!(follower.apply(0, follow(HOME, 6, 7, &[(6, 3)])), Answer::Done);
    assert_eq!(follower.record().promised, epoch(6));
    assert!(follower.record().forks.is_empty());
    let mut stranger = Group::new(OTHER);
    assert!(matches!(
        void_of(&stranger.apply(0, follow(OTHER, 1, 1, &[]))),
        Void::NotFollower
    ));
    assert!(
        stranger.shard.record(TENANT).is_none(),
        "a void command leaves no record"
    );
}

#[test]
fn a_former_home_keeps_what_was_cut_as_a_fork_and_begins_anew() {
    let (mut home, _) = fed();
    assert_eq!(home.apply(0, follow(OTHER, 4, 5, &[(4, 2)])), Answer::Done);
    let record = home.record().clone();
    assert_eq!(record.role, Role::Follower { home: OTHER });
    assert_eq!(record.live.revision, Revision::ZERO);
    let fork = &record.forks[0];
    assert_eq!((fork.copy.revision, fork.point.get()), (revision("1.3"), 2));
    assert_eq!(fork.lineage, lineage(&[]));
    let copy = home.shard.place().copy(TENANT, fork.copy.number);
    let rows = copy.range(crate::rows::kind::CHANGE);
    let rows = crate::rows::Rows::range(&home.rows, &rows.start..&rows.end, crate::rows::Order::Ascending);
    assert_eq!(rows.count(), 3, "nothing of it is lost");
    assert_eq!(void_of(&home.apply(0, erase(6, false, vec![]))), Void::HoldsForks);
    assert_eq!(home.apply(0, erase(6, false, vec![fork.copy.number])), Answer::Done);
    home.maintain();
    assert_eq!(home.data_rows(), 0);
}

#[test]
fn attach_needs_its_attempt_the_epoch_the_position_and_one_history() {
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
        assert_eq!(follower.begin_attach(), Answer::Done);
        let mut attach = right.clone();
        change(&mut attach);
        let answer = follower.apply(0, attach.encode());
        let record = follower.record();
        (answer, record.session.is_some(), follower.shard.is_attached(record))
    };
    let ends = |void| (Answer::Void(void), false, false);
    let ignored = (Answer::Void(Void::Session), true, false);
    assert_eq!(attempt(&|_| ()), (Answer::Done, true, true));
    assert_eq!(attempt(&|attach| attach.number = AttachNumber(1)), ignored);
    assert_eq!(attempt(&|attach| attach.home = OTHER), ignored);
    let void = Void::Epoch {
        epoch: epoch(1),
        promised: epoch(1),
    };
    assert_eq!(attempt(&|attach| attach.epoch = epoch(2)), ends(void));
    assert_eq!(attempt(&|attach| attach.version = version(0)), ends(Void::OlderView));
    let behind = Void::Position {
        revision: revision("1.3"),
    };
    assert_eq!(attempt(&|attach| attach.position = revision("1.4")), ends(behind));
    assert_eq!(
        attempt(&|attach| attach.lineage = lineage(&[(3, 2)])),
        ends(Void::Diverged)
    );
    let mut follower = fed.copied();
    follower.apply(0, home.next_seed(&follower).encode());
    assert_eq!(follower.begin_attach(), Answer::Done);
    assert_eq!(void_of(&follower.attach(&home)), Void::Seed, "swapped in first");
}

#[test]
fn an_attempt_has_a_number_of_its_own_and_detach_names_it() {
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
    assert_eq!(void_of(&follower.apply(0, begin(1, 1).encode())), Void::Session);
    assert_eq!(void_of(&follower.apply(0, begin(2, 0).encode())), Void::OlderView);
    assert_eq!(void_of(&follower.apply(0, detach(2).encode())), Void::Session);
    assert!(follower.shard.is_attached(follower.record()));
    assert_eq!(follower.apply(0, detach(1).encode()), Answer::Done);
    assert_eq!(void_of(&follower.apply(0, detach(1).encode())), Void::Session);
    assert_eq!(void_of(&follower.attach(&home)), Void::Session, "it is over");
    follower.reopen();
    assert_eq!(void_of(&follower.apply(0, begin(1, 1).encode())), Void::Session);
    assert_eq!(follower.apply(0, begin(2, 1).encode()), Answer::Done);
    assert!(!follower.shard.is_attached(follower.record()), "not yet");
    assert_eq!(void_of(&follower.apply(0, detach(1).encode())), Void::Session);
    follower.reopen();
    assert_eq!(follower.attach(&home), Answer::Done);
    assert!(follower.shard.is_attached(follower.record()));
    // Erased and followed again: a message of before must not find a number of its own.
    assert_eq!(follower.apply(0, erase(7, false, vec![])), Answer::Done);
    assert_eq!(follower.apply(0, follow(HOME, 1, 8, &[])), Answer::Done);
    assert_eq!(void_of(&follower.apply(0, begin(2, 8).encode())), Void::Session);
}

#[test]
fn a_stream_of_another_incarnation_detaches_its_tenants() {
    let (_, mut follower) = fed();
    let mut offset = |incarnation, index| {
        let offset = FeedOffset {
            incarnation: Incarnation(incarnation),
            index,
        };
        let answer = follower.apply(0, Offset { home: HOME, offset }.encode());
        (answer, follower.shard.is_attached(follower.record()))
    };
    assert_eq!(offset(1, 7), (Answer::Done, true));
    assert_eq!(offset(1, 7), (Answer::Void(Void::Offset), true));
    assert_eq!(offset(1, 9), (Answer::Done, true));
    assert_eq!(offset(2, 3), (Answer::Done, false));
    assert_eq!(offset(1, 10), (Answer::Void(Void::Offset), false));
}

#[test]
fn data_needs_the_session_of_the_promised_epoch() {
    let (mut home, mut follower) = fed();
    home.apply(1_000, put("d"));
    let data = home.data(revision("1.3"), Sequence::MAX);
    let with = |change: &dyn Fn(&mut DataHead)| {
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
        assert_eq!(void_of(&follower.apply(0, other)), Void::Session);
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
        void_of(&answer)
    };
    let epoch_void = |promised| Void::Epoch {
        epoch: epoch(1),
        promised: epoch(promised),
    };
    assert_eq!(is_void(&follower, with(&|head| head.epoch = epoch(2))), epoch_void(1));
    assert_eq!(
        is_void(&follower, with(&|head| head.version = version(0))),
        Void::OlderView
    );
    follower.shard.tenants.get_mut(&TENANT).unwrap().record.promised = epoch(2);
    assert_eq!(
        is_void(&follower, data.encode()),
        epoch_void(2),
        "a higher epoch was promised"
    );
}

#[test]
fn a_gap_detaches_and_takes_nothing_in() {
    let (mut home, mut follower) = fed();
    home.apply(1_000, put("d"));
    home.apply(1_000, put("e"));
    let late = home.data(revision("1.4"), Sequence::MAX);
    let Answer::Fed(fed) = follower.apply(0, late.encode()) else {
        panic!()
    };
    assert_eq!((fed.detached, fed.revision), (Some(Detached::Gap), revision("1.3")));
    assert!(!follower.shard.is_attached(follower.record()));
    let all = home.data(revision("1.1"), Sequence::MAX);
    assert_eq!(
        void_of(&follower.apply(0, all.encode())),
        Void::Session,
        "of an attempt that is over"
    );
    assert_eq!(follower.begin_attach(), Answer::Done);
    let all = home.data_for(&follower, revision("1.1"), Sequence::MAX);
    let Answer::Fed(fed) = follower.apply(0, all.encode()) else {
        panic!()
    };
    assert_eq!(
        (fed.detached, fed.revision),
        (None, revision("1.5")),
        "what is known is ignored"
    );
}

#[test]
fn a_differing_digest_stops_the_copy_until_it_is_seeded() {
    let (mut home, mut follower) = fed();
    home.apply(1_000, put("d"));
    let mut data = home.data(revision("1.3"), Sequence::MAX);
    data.records.digests = data.records.digests.map(|digests| Digests {
        keys: digests.keys ^ 1,
        ..digests
    });
    let Answer::Fed(fed) = follower.apply(0, data.encode()) else {
        panic!()
    };
    assert_eq!(fed.detached, Some(Detached::DigestDiffers(Differs::Keys)));
    assert!(follower.record().suspect);
    assert_eq!(follower.begin_attach(), Answer::Done);
    assert_eq!(void_of(&follower.attach(&home)), Void::Suspect);
    home.apply(1_000, put("e"));
    assert_eq!(follower.begin_attach(), Answer::Done);
    let next = home.data_for(&follower, revision("1.4"), Sequence::MAX);
    follower.apply(0, next.encode());
    assert_eq!(follower.record().live.revision, revision("1.4"), "it stays as it is");
    seed(&home, &mut follower);
    assert!(!follower.record().suspect);
    assert_eq!(follower.record().live.digests, home.record().live.digests);
    assert_eq!(follower.begin_attach(), Answer::Done);
    assert_eq!(follower.attach(&home), Answer::Done);
    follower.maintain();
    assert_eq!(follower.data_rows(), 2, "the old copy goes");
}

#[test]
fn a_chunk_of_another_seed_is_void() {
    let (home, mut follower) = fed();
    for _ in 0..2 {
        let begin = home.next_seed(&follower);
        assert_eq!(follower.apply(0, begin.encode()), Answer::Done);
    }
    let live = home.record().live.revision;
    let part = home.reading().chunk_of_changes(Sequence::ZERO, live, 1 << 20).unwrap();
    let chunk = home.chunk(&follower, part);
    for number in [SeedNumber(1), SeedNumber(3)] {
        let other = Chunk {
            number,
            ..chunk.clone()
        };
        assert_eq!(void_of(&follower.apply(0, other.encode())), Void::Seed, "{number:?}");
    }
    assert_eq!(follower.apply(0, chunk.encode()), Answer::Done);
}

/// Seeds the follower in one go.
fn seed(home: &Group, follower: &mut Group) {
    let live = home.record().live.clone();
    let seed = home.next_seed(follower);
    assert_eq!(follower.apply(0, seed.encode()), Answer::Done);
    assert_eq!(
        void_of(&follower.apply(0, seed.encode())),
        Void::Seed,
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
        assert_eq!(void_of(&follower.apply(0, swap.encode())), Void::Seed, "not whole yet");
        let chunk = home.chunk(follower, part);
        assert_eq!(follower.apply(0, chunk.encode()), Answer::Done);
        assert_eq!(
            void_of(&follower.apply(0, chunk.encode())),
            Void::Seed,
            "it goes on behind the last one"
        );
    }
    assert_eq!(follower.apply(0, swap.encode()), Answer::Done);
    assert_eq!(
        follower.record().live.index,
        follower.index,
        "the copy is there from the swap on"
    );
}

#[test]
fn a_shadow_off_the_lineage_is_dropped() {
    let (home, mut follower) = fed();
    let begin = home.next_seed(&follower);
    follower.apply(0, begin.encode());
    let shadow: Option<&Shadow> = follower.record().shadow.as_ref();
    assert!(shadow.is_some());
    follower.apply(0, follow(OTHER, 3, 5, &[(3, 3)]));
    assert!(follower.record().shadow.is_some(), "still on the lineage");
    follower.apply(0, follow(HOME, 5, 6, &[(5, 2)]));
    assert!(follower.record().shadow.is_none());
}

#[test]
fn erase_needs_no_older_view_and_an_owner_goes_only_with_its_tenant() {
    let (mut home, mut follower) = fed();
    assert_eq!(void_of(&home.apply(0, erase(5, false, vec![]))), Void::NotFollower);
    let rejoin = |view| Rejoin {
        tenant: TENANT,
        version: version(view),
    };
    assert_eq!(follower.apply(0, rejoin(6).encode()), Answer::Done);
    assert_eq!(void_of(&follower.apply(0, rejoin(5).encode())), Void::OlderView);
    assert_eq!(void_of(&follower.apply(0, erase(5, false, vec![]))), Void::OlderView);
    assert_eq!(follower.record().live.revision, revision("1.3"), "it rejoined");
    assert_eq!(follower.apply(0, erase(7, false, vec![])), Answer::Done);
    assert_eq!(follower.record().role, Role::Erased);
    assert_eq!(follower.record().promised, epoch(1));
    follower.reopen();
    follower.maintain();
    assert_eq!(follower.data_rows(), 0);
    // Added again, at the same epoch.
    assert_eq!(follower.apply(0, follow(HOME, 1, 8, &[])), Answer::Done);
    assert_eq!(follower.begin_attach(), Answer::Done);
    let data = home.data_for(&follower, Revision::ZERO, Sequence::MAX);
    follower.apply(0, data.encode());
    assert_eq!(follower.record().live.digests, home.record().live.digests);
    assert_eq!(home.apply(0, erase(9, true, vec![])), Answer::Done);
}

#[test]
fn a_condition_on_a_revision_that_was_cut_is_answered_with_the_cut() {
    let (mut home, _) = fed();
    let record = &mut home.shard.tenants.get_mut(&TENANT).unwrap().record;
    record.lineage = lineage(&[(4, 3)]);
    record.epoch = epoch(4);
    let write = |wanted| {
        let operation = Operation {
            condition: Some(Condition::modified(revision(wanted))),
            ..Operation::new("k", Effect::Delete)
        };
        Write::new(TENANT, None, operation).encode()
    };
    let forked = Answer::Forked {
        epoch: epoch(1),
        kept: Sequence::new(3).unwrap(),
        at: home.record().live.evaluated(),
    };
    assert_eq!(home.apply(0, write("1.4")), forked);
    assert!(matches!(home.apply(0, write("1.2")), Answer::ConditionFailed { .. }));
    assert!(matches!(home.apply(0, write("1.3")), Answer::Written(written) if written.revision == revision("4.4")));
}
