//! Planned moves over two groups: what a tenant takes along, and batons that come twice, late or early.

use bytes::Bytes;
use stead_types::{ClientId, FeedOffset, GroupId, IdempotencyKey, Incarnation, Sequence, TenantTime};

use super::group::{Group, HOME, TENANT, epoch, revision, version};
use crate::{
    rows::change::Cause,
    shard::{
        ApplyResult,
        apply_result::{GuardFailure, WriteOutput, WriteResult},
        command::{CancelHeir, Effect, Expire, Follow, Heir, Increment, Offset, Operation, Refuse, Uncount, Write},
        digest::{DigestMismatch, Digests},
        ownership::baton,
        record::{OperationId, Role},
    },
};

const TARGET: GroupId = GroupId::new(2);
/// Logged time of the source when it hands over, and of the target then: its clock is an hour ahead.
const HANDOVER: u64 = 20_000;
pub(super) const AHEAD: u64 = HANDOVER + 3_600_000;

fn put(key: &'static str, ttl: Option<u64>) -> Bytes {
    let value = "v".into();
    Write::new(TENANT, None, Operation::new(key, Effect::Put { value, ttl })).encode()
}

fn keyed(sequence: u64) -> Bytes {
    let key = IdempotencyKey {
        client: ClientId(7),
        sequence,
        first_sent: TenantTime(0),
    };
    let increment = Increment {
        delta: 5,
        ..Increment::default()
    };
    let operation = Operation::new("counter", Effect::Increment(increment));
    Write::new(TENANT, Some(key), operation).encode()
}

pub(super) fn written(result: ApplyResult) -> WriteResult {
    let ApplyResult::Write(written) = result else {
        panic!("not written: {result:?}")
    };
    written
}

fn failure_of(result: &ApplyResult) -> GuardFailure {
    let ApplyResult::GuardFailed(failure) = result else {
        panic!("no guard failed: {result:?}")
    };
    *failure
}

/// Gives a follower everything that its home has, in an attached session of its own.
pub(super) fn feed(home: &Group, follower: &mut Group) {
    if !follower.shard.is_attached(follower.record()) {
        assert_eq!(follower.begin_attach(), ApplyResult::Done);
        assert_eq!(follower.attach(home), ApplyResult::Done);
    }
    let data = home.data_for(follower, follower.record().live.revision, Sequence::MAX);
    let ApplyResult::Data(done) = follower.apply(0, data.encode()) else {
        panic!()
    };
    assert_eq!(done.detached, None);
}

pub(super) fn follow(home: GroupId, number: u32, view: u64, of: &Group) -> Bytes {
    let follow = Follow {
        tenant: TENANT,
        version: version(view),
        home,
        epoch: epoch(number),
        lineage: of.record().lineage.clone(),
    };
    follow.encode()
}

/// A home and a follower that has everything: a key that expires at 25,000, one without end, a counter at 10.
fn pair() -> (Group, Group) {
    let mut home = Group::owner();
    home.apply(5_000, put("short", Some(20_000)));
    home.apply(6_000, put("long", None));
    home.apply(7_000, keyed(1));
    home.apply(8_000, keyed(2));
    let mut target = Group::follower(&home);
    assert_eq!(target.attach(&home), ApplyResult::Done);
    feed(&home, &mut target);
    (home, target)
}

/// A pair after the source has handed over to epoch 4.
fn handed_over() -> (Group, Group) {
    let (mut home, target) = pair();
    assert_eq!(
        home.apply(HANDOVER, home.relinquish(TARGET, 4).encode()),
        ApplyResult::Done
    );
    (home, target)
}

/// A pair after the target has taken over in epoch 4.
pub(super) fn moved() -> (Group, Group) {
    let (home, mut target) = handed_over();
    assert_eq!(target.apply(AHEAD, target.accept(&home).encode()), ApplyResult::Done);
    (home, target)
}

/// Moves the tenant of a home with this data to a target, after a last command at the source.
pub(super) fn moved_by(mut home: Group, last: impl FnOnce(&mut Group)) -> (Group, Group) {
    let mut target = Group::follower(&home);
    assert_eq!(target.attach(&home), ApplyResult::Done);
    feed(&home, &mut target);
    last(&mut home);
    feed(&home, &mut target);
    assert_eq!(
        home.apply(HANDOVER, home.relinquish(TARGET, 4).encode()),
        ApplyResult::Done
    );
    assert_eq!(target.apply(AHEAD, target.accept(&home).encode()), ApplyResult::Done);
    (home, target)
}

#[test]
fn new_owner_continues_revisions_counters_and_windows() {
    let (home, mut target) = moved();
    target.reopen();
    let record = target.record();
    assert_eq!((record.owned(), record.promised), (Some(epoch(4)), epoch(4)));
    assert_eq!(record.lineage.epoch(), epoch(4));
    assert_eq!(record.lineage.runs().len(), 1);
    assert_eq!(record.live.digests, home.record().live.digests);
    assert_eq!(
        record.accepted.map(|accepted| (accepted.revision, accepted.digests)),
        Some((revision("1.4"), home.record().live.digests))
    );
    assert_eq!(record.live.index, target.index, "answers depend on the takeover");
    let repeated = written(target.apply(AHEAD, keyed(2)));
    assert!(repeated.repeated);
    assert_eq!((repeated.revision, repeated.index), (revision("1.4"), target.index - 1));
    let next = written(target.apply(AHEAD + 10, keyed(3)));
    assert_eq!(next.revision, revision("4.5"), "the sequence goes on");
    assert_eq!(next.output, Some(WriteOutput::Number(15)));
}

#[test]
fn takeover_makes_batch_of_feed() {
    let (_, target) = moved();
    let entries = target.shard.feed(&target.rows, 0, 10).unwrap();
    let (index, entry) = entries.last().unwrap();
    assert_eq!(*index, target.index);
    assert_eq!(entry.touched[0].revision(), revision("1.4"));
}

#[test]
fn tenant_time_continues_from_baton_without_leap() {
    let (home, mut target) = moved();
    let time = baton(home.record()).unwrap().time;
    assert_eq!(time, TenantTime(HANDOVER), "idle time has passed for the tenant");
    assert_eq!(target.record().live.time_at(AHEAD), time);
    // A key with 5,000 left at the handover: the target's clock is an hour ahead, and the tenant's goes at
    // most a tenth faster.
    assert_eq!(target.shard.first_due(), Some((TenantTime(25_000), TENANT)));
    assert!(matches!(
        target.apply(AHEAD + 4_000, put("other", None)),
        ApplyResult::Write(_)
    ));
    let expire = Expire { tenant: TENANT }.encode();
    let before = target.record().live.revision;
    target.apply(AHEAD + 4_500, expire.clone());
    assert_eq!(target.record().live.revision, before, "nothing has expired");
    target.apply(AHEAD + 5_000, expire);
    let changes = target.reading().changes(before, Sequence::MAX, usize::MAX).unwrap();
    assert_eq!(changes.changes[0].cause, Cause::Expiry);
    assert!(changes.changes[0].time >= TenantTime(25_000));
}

#[test]
fn tenant_time_at_slower_target_does_not_go_back() {
    let (home, mut target) = handed_over();
    let behind = 9_000;
    assert_eq!(target.apply(behind, target.accept(&home).encode()), ApplyResult::Done);
    assert_eq!(target.record().live.time_at(behind), TenantTime(HANDOVER));
    let next = written(target.apply(behind + 1_000, put("k", None)));
    assert_eq!(next.time, TenantTime(HANDOVER + 900), "nine tenths of what passes");
}

#[test]
fn source_refuses_writes_and_names_heir() {
    let (mut home, _) = handed_over();
    let refused = GuardFailure::NotOwner { to: Some(TARGET) };
    assert_eq!(failure_of(&home.apply(HANDOVER, put("k", None))), refused);
    let expire = Expire { tenant: TENANT };
    assert_eq!(failure_of(&home.apply(30_000, expire.encode())), refused);
    assert_eq!(home.shard.first_due(), None, "it expires no keys");
    home.reopen();
    assert_eq!(home.shard.first_due(), None);
    assert_eq!(baton(home.record()).unwrap().last, revision("1.4"));
}

#[test]
fn baton_twice_or_late_is_void() {
    let (home, mut target) = handed_over();
    let accept = target.accept(&home).encode();
    assert_eq!(target.apply(AHEAD, accept.clone()), ApplyResult::Done);
    target.apply(AHEAD, put("k", None));
    let record = target.record().clone();
    assert_eq!(
        failure_of(&target.apply(AHEAD, accept.clone())),
        GuardFailure::NotFollower
    );
    assert_eq!(*target.record(), record);
    // Late: the target follows a later epoch by now.
    let (home, mut target) = handed_over();
    assert_eq!(target.apply(0, follow(GroupId::new(3), 6, 9, &home)), ApplyResult::Done);
    assert!(matches!(
        failure_of(&target.apply(AHEAD, accept)),
        GuardFailure::NotFollower
    ));
    assert_eq!(target.record().owned(), None);
}

#[test]
fn early_baton_waits_for_last_change() {
    let (mut home, mut target) = pair();
    home.apply(9_000, keyed(3));
    home.apply(HANDOVER, home.relinquish(TARGET, 4).encode());
    let accept = target.accept(&home).encode();
    let early = GuardFailure::Position {
        revision: revision("1.4"),
    };
    assert_eq!(failure_of(&target.apply(AHEAD, accept.clone())), early);
    feed(&home, &mut target);
    assert_eq!(target.apply(AHEAD, accept), ApplyResult::Done);
    assert_eq!(target.record().live.revision, revision("1.5"));
}

#[test]
fn baton_of_other_attempt_or_incarnation_is_void() {
    let (home, mut target) = handed_over();
    let accept = target.accept(&home).encode();
    assert_eq!(target.begin_attach(), ApplyResult::Done);
    assert_eq!(failure_of(&target.apply(AHEAD, accept)), GuardFailure::Session);
    let accept = target.accept(&home).encode();
    assert_eq!(
        failure_of(&target.apply(AHEAD, accept.clone())),
        GuardFailure::Session,
        "not attached yet"
    );
    assert_eq!(target.attach(&home), ApplyResult::Done);
    let offset = Offset {
        home: HOME,
        offset: FeedOffset {
            incarnation: Incarnation(2),
            index: 1,
        },
    };
    let mut later = target.copied();
    later.apply(0, offset.encode());
    assert_eq!(failure_of(&later.apply(AHEAD, accept.clone())), GuardFailure::Session);
    assert_eq!(target.apply(AHEAD, accept), ApplyResult::Done);
}

#[test]
fn baton_with_other_digests_detaches_suspect_copy() {
    let (home, mut target) = handed_over();
    let mut accept = target.accept(&home);
    accept.baton.digests = Digests {
        keys: 1,
        ..accept.baton.digests
    };
    let failure = GuardFailure::DigestMismatch(DigestMismatch::Keys);
    assert_eq!(failure_of(&target.apply(AHEAD, accept.encode())), failure);
    assert!(target.record().suspect);
    assert_eq!(target.shard.detached(HOME).collect::<Vec<_>>(), [TENANT]);
    assert_eq!(target.record().owned(), None);
}

#[test]
fn heir_is_cancelled_only_by_view_that_knows_move() {
    let (mut home, mut target) = pair();
    let heir = Heir {
        tenant: TENANT,
        version: version(5),
        operation: OperationId(1),
        to: TARGET,
        recorded_epoch: epoch(1),
        epoch: epoch(4),
    };
    assert_eq!(target.apply(0, heir.encode()), ApplyResult::Done);
    home.apply(9_000, keyed(3));
    feed(&home, &mut target);
    let role = Role::Heir {
        home: HOME,
        operation: OperationId(1),
        epoch: epoch(4),
    };
    target.reopen();
    assert_eq!(target.record().role, role, "an heir goes on following");
    let cancel = |last| CancelHeir {
        tenant: TENANT,
        version: version(5),
        operation: OperationId(1),
        last_operation: OperationId(last),
    };
    assert_eq!(
        failure_of(&target.apply(0, cancel(0).encode())),
        GuardFailure::OtherOperation
    );
    assert_eq!(target.apply(0, cancel(1).encode()), ApplyResult::Done);
    assert_eq!(target.record().role, Role::Follower { home: HOME });
    assert!(target.shard.is_attached(target.record()));
}

#[test]
fn refused_move_leaves_owner_in_place() {
    let (mut home, _) = pair();
    let refuse = Refuse {
        tenant: TENANT,
        version: version(2),
        operation: OperationId(1),
    };
    assert_eq!(home.apply(0, refuse.encode()), ApplyResult::Done);
    home.reopen();
    let relinquish = home.relinquish(TARGET, 4);
    assert_eq!(
        failure_of(&home.apply(HANDOVER, relinquish.encode())),
        GuardFailure::OtherOperation
    );
    assert!(matches!(home.apply(HANDOVER, put("k", None)), ApplyResult::Write(_)));
}

#[test]
fn uncounted_members_travel_with_baton() {
    let (mut home, mut target) = pair();
    let uncount = Uncount {
        tenant: TENANT,
        version: version(2),
        group: GroupId::new(3),
    };
    assert_eq!(home.apply(0, uncount.encode()), ApplyResult::Done);
    home.apply(HANDOVER, home.relinquish(TARGET, 4).encode());
    home.reopen();
    assert_eq!(target.apply(AHEAD, target.accept(&home).encode()), ApplyResult::Done);
    assert_eq!(target.record().uncounted, [GroupId::new(3)]);
}

#[test]
fn reversed_move_needs_only_delta() {
    let (mut home, mut target) = moved();
    assert_eq!(home.apply(0, follow(TARGET, 4, 6, &target)), ApplyResult::Done);
    let record = home.record();
    assert!(record.forks.is_empty());
    assert_eq!(record.live.revision, revision("1.4"), "nothing is cut");
    let next = written(target.apply(AHEAD + 100, keyed(3)));
    feed(&target, &mut home);
    assert_eq!(home.record().live.revision, next.revision);
    assert_eq!(home.record().live.digests, target.record().live.digests);
    let mut back = target.relinquish(HOME, 9);
    back.operation = OperationId(2);
    assert_eq!(target.apply(AHEAD + 200, back.encode()), ApplyResult::Done);
    assert_eq!(home.apply(HANDOVER, home.accept(&target).encode()), ApplyResult::Done);
    assert_eq!(home.record().owned(), Some(epoch(9)));
    assert!(home.record().live.time_at(HANDOVER) >= next.time);
    let again = written(home.apply(HANDOVER + 10, keyed(3)));
    assert!(again.repeated);
    assert_eq!(written(home.apply(HANDOVER + 20, keyed(4))).revision, revision("9.6"));
}

#[test]
fn records_after_handover_are_gapless_for_third_group() {
    let (home, mut target) = moved();
    let mut third = Group::follower_in(GroupId::new(3), &home);
    feed(&home, &mut third);
    // It follows the new home and takes up where the old one ended.
    assert_eq!(third.apply(0, follow(TARGET, 4, 6, &target)), ApplyResult::Done);
    target.apply(AHEAD + 10, keyed(3));
    feed(&target, &mut third);
    assert_eq!(third.record().live.revision, revision("4.5"));
    assert_eq!(third.record().live.digests, target.record().live.digests);
}
