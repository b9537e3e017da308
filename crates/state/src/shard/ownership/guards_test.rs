//! Guards of moves and of membership: each clause alone refuses and changes nothing.

use stead_types::{DirectoryVersion, Epoch, GroupId, Incarnation, Revision, TenantNumber, TenantTime};

use super::*;
use crate::{
    lineage::Lineage,
    shard::{
        command::{
            Accept, Attach, Baton, BeginAttach, CancelHeir, ConfirmRemote, Count, Create, DataHeader, Detach, Erase,
            Follow, Heir, Refuse, Rejoin, Relinquish, SetLeaseLossPolicy, Uncount,
        },
        digest::{DigestMismatch, Digests},
        record::{
            AttachNumber, AttachSession, CopyState, Fork, LeaseLossPolicy, OperationId, PreviousRole, SeedNumber,
            ShadowCopy,
        },
    },
};

const TENANT: TenantNumber = TenantNumber::new(5);
const ME: GroupId = GroupId::new(1);
const OTHER: GroupId = GroupId::new(2);
const STAMP: EntryStamp = EntryStamp { index: 70, time: 9_000 };

fn version(index: u64) -> DirectoryVersion {
    DirectoryVersion {
        incarnation: Incarnation::FIRST,
        index,
    }
}

fn epoch(number: u32) -> Epoch {
    Epoch::new(number).unwrap()
}

fn at(text: &str) -> Revision {
    text.parse().unwrap()
}

/// An owner of epoch 3 that has seen view 10 and refused move 4.
fn owner() -> TenantRecord {
    TenantRecord {
        role: Role::Owner,
        epoch: epoch(3),
        promised: epoch(3),
        view_version: version(10),
        lineage: Lineage::starting(epoch(1)),
        refused_up_to: OperationId(4),
        live: CopyState {
            number: 1,
            revision: at("3.20"),
            index: 60,
            time: TenantTime(5_000),
            digests: Digests { keys: 7, outcomes: 8 },
            ..CopyState::default()
        },
        copies: 1,
        ..TenantRecord::unknown()
    }
}

/// A follower of epoch 3 with the same copy, attached by attempt 6.
fn follower() -> TenantRecord {
    let session = AttachSession {
        home: OTHER,
        incarnation: Incarnation::FIRST,
        epoch: epoch(3),
        number: AttachNumber(6),
        attached: true,
    };
    TenantRecord {
        role: Role::Follower { home: OTHER },
        attach: AttachNumber(6),
        session: Some(session),
        ..owner()
    }
}

fn shadow() -> ShadowCopy {
    ShadowCopy {
        state: CopyState {
            number: 2,
            ..CopyState::default()
        },
        number: SeedNumber(1),
        seed: at("3.1"),
        loaded: stead_types::Sequence::ZERO,
        clients: Vec::new(),
        read_at: at("3.1"),
        windows_only: false,
    }
}

fn fork() -> Fork {
    Fork {
        copy: CopyState {
            number: 9,
            ..CopyState::default()
        },
        lineage: Lineage::default(),
        point: stead_types::Sequence::ZERO,
        tail: None,
    }
}

fn frozen() -> Role {
    Role::Frozen {
        operation: OperationId(1),
        epoch: epoch(3),
        previous: PreviousRole::Owner,
    }
}

fn failure(promised: u32) -> GuardFailure {
    GuardFailure::Epoch {
        epoch: epoch(3),
        promised: epoch(promised),
    }
}

type Change<T> = fn(&mut T);

/// One clause of a guard: what breaks it in the record or in the entry, and the failure.
struct Clause<E> {
    record: Change<TenantRecord>,
    entry: Change<E>,
    failure: GuardFailure,
}

fn of_record<E>(record: Change<TenantRecord>, failure: GuardFailure) -> Clause<E> {
    Clause {
        record,
        entry: |_| (),
        failure,
    }
}

fn of_entry<E>(entry: Change<E>, failure: GuardFailure) -> Clause<E> {
    Clause {
        record: |_| (),
        entry,
        failure,
    }
}

/// Applies the entry to the record, and again with each clause broken alone. Returns the record after the entry.
fn check<E: Clone, T: std::fmt::Debug>(
    record: &TenantRecord,
    entry: &E,
    apply: impl Fn(&mut TenantRecord, &E) -> Result<T, GuardFailure>,
    clauses: &[Clause<E>],
) -> TenantRecord {
    for (number, clause) in clauses.iter().enumerate() {
        let (mut record, mut entry) = (record.clone(), entry.clone());
        (clause.record)(&mut record);
        (clause.entry)(&mut entry);
        let before = record.clone();
        assert_eq!(
            apply(&mut record, &entry).map(|_| ()),
            Err(clause.failure),
            "clause {number}"
        );
        assert_eq!(record, before, "clause {number} changes nothing");
    }
    let mut after = record.clone();
    apply(&mut after, entry).unwrap();
    after
}

#[test]
fn heir_needs_each_clause() {
    let entry = Heir {
        tenant: TENANT,
        version: version(10),
        operation: OperationId(5),
        to: ME,
        recorded_epoch: epoch(3),
        epoch: epoch(6),
    };
    let after = check(
        &follower(),
        &entry,
        |record, entry| heir(record, ME, entry),
        &[
            of_record(|record| record.role = Role::Owner, GuardFailure::NotFollower),
            of_record(|record| record.role = frozen(), GuardFailure::NotFollower),
            of_entry(|entry| entry.to = OTHER, GuardFailure::NotTarget),
            of_entry(|entry| entry.version = version(9), GuardFailure::OlderView),
            of_entry(|entry| entry.recorded_epoch = epoch(4), failure(3)),
            of_record(|record| record.promised = epoch(4), failure(4)),
            of_entry(|entry| entry.epoch = epoch(3), failure(3)),
            of_record(|record| record.suspect = true, GuardFailure::Suspect),
            of_record(|record| record.shadow = Some(shadow()), GuardFailure::Seed),
            of_record(|record| record.live.rewound = true, GuardFailure::IncompleteWindows),
            of_record(|record| record.session = None, GuardFailure::Session),
            of_record(
                |record| record.session.as_mut().unwrap().attached = false,
                GuardFailure::Session,
            ),
            of_record(
                |record| record.session.as_mut().unwrap().home = ME,
                GuardFailure::Session,
            ),
        ],
    );
    let role = Role::Heir {
        home: OTHER,
        operation: OperationId(5),
        epoch: epoch(6),
    };
    assert_eq!((after.role, after.promised), (role, epoch(3)), "no promise yet");
}

#[test]
fn cancel_heir_needs_view_that_knows_move() {
    let record = TenantRecord {
        role: Role::Heir {
            home: OTHER,
            operation: OperationId(5),
            epoch: epoch(6),
        },
        ..follower()
    };
    let entry = CancelHeir {
        tenant: TENANT,
        version: version(11),
        operation: OperationId(5),
        last_operation: OperationId(5),
    };
    let after = check(
        &record,
        &entry,
        cancel_heir,
        &[
            of_record(
                |record| record.role = Role::Follower { home: OTHER },
                GuardFailure::OtherOperation,
            ),
            of_entry(|entry| entry.operation = OperationId(6), GuardFailure::OtherOperation),
            of_entry(
                |entry| entry.last_operation = OperationId(4),
                GuardFailure::OtherOperation,
            ),
            of_entry(|entry| entry.version = version(9), GuardFailure::OlderView),
        ],
    );
    assert_eq!(after.role, Role::Follower { home: OTHER });
    assert_eq!(after.view_version, version(11));
    assert!(after.session.is_some(), "it stays attached");
}

#[test]
fn relinquish_needs_each_clause() {
    let entry = Relinquish {
        tenant: TENANT,
        version: version(10),
        operation: OperationId(5),
        to: OTHER,
        recorded_epoch: epoch(3),
        epoch: epoch(6),
    };
    let after = check(
        &owner(),
        &entry,
        |record, entry| relinquish(record, ME, entry, STAMP),
        &[
            of_record(
                |record| record.role = Role::Follower { home: OTHER },
                GuardFailure::NotOwner { to: None },
            ),
            of_entry(|entry| entry.to = ME, GuardFailure::NotTarget),
            of_entry(|entry| entry.version = version(9), GuardFailure::OlderView),
            of_entry(|entry| entry.recorded_epoch = epoch(2), failure(3)),
            of_entry(|entry| entry.epoch = epoch(3), failure(3)),
            of_entry(|entry| entry.operation = OperationId(4), GuardFailure::OtherOperation),
        ],
    );
    let role = Role::Relinquished {
        operation: OperationId(5),
        to: OTHER,
        epoch: epoch(6),
        last: at("3.20"),
    };
    assert_eq!(after.role, role);
    assert_eq!((after.epoch, after.promised), (epoch(3), epoch(6)));
    assert_eq!(
        after.live.time,
        TenantTime(9_000),
        "time has passed since the last change"
    );
    let mut again = after.clone();
    let refused = Err(GuardFailure::NotOwner { to: Some(OTHER) });
    assert_eq!(relinquish(&mut again, ME, &entry, STAMP), refused);
    let refuse_late = Refuse {
        tenant: TENANT,
        version: version(11),
        operation: OperationId(5),
    };
    assert_eq!(refuse(&mut again, &refuse_late), refused, "the log has decided");
    assert_eq!(again, after);
}

#[test]
fn refuse_raises_watermark_and_never_lowers_it() {
    let entry = Refuse {
        tenant: TENANT,
        version: version(10),
        operation: OperationId(7),
    };
    let clauses = [
        of_record(|record| record.role = frozen(), GuardFailure::NotOwner { to: None }),
        of_entry(|entry: &mut Refuse| entry.version = version(9), GuardFailure::OlderView),
    ];
    let mut record = check(&owner(), &entry, refuse, &clauses);
    assert_eq!(record.refused_up_to, OperationId(7));
    let earlier = Refuse {
        operation: OperationId(5),
        ..entry
    };
    assert_eq!(refuse(&mut record, &earlier), Ok(()));
    assert_eq!(record.refused_up_to, OperationId(7));
}

fn accept_entry() -> Accept {
    let baton = Baton {
        operation: OperationId(5),
        to: ME,
        from_epoch: epoch(3),
        epoch: epoch(6),
        last: at("3.20"),
        digests: Digests { keys: 7, outcomes: 8 },
        policy: LeaseLossPolicy::Continue,
        time: TenantTime(8_000),
        retention_floor: at("3.15"),
        uncounted: vec![ME, GroupId::new(3)],
    };
    let head = DataHeader {
        tenant: TENANT,
        home: OTHER,
        epoch: epoch(3),
        version: version(10),
        attach: AttachNumber(6),
    };
    baton.accept(head, Incarnation::FIRST)
}

fn accept_clauses() -> Vec<Clause<Accept>> {
    vec![
        of_entry(|entry| entry.baton.to = OTHER, GuardFailure::NotTarget),
        of_record(|record| record.role = Role::Owner, GuardFailure::NotFollower),
        of_record(|record| record.role = frozen(), GuardFailure::NotFollower),
        of_entry(|entry| entry.head.home = ME, GuardFailure::NotFollower),
        of_entry(|entry| entry.head.version = version(9), GuardFailure::OlderView),
        of_entry(|entry| entry.head.epoch = epoch(2), failure(3)),
        of_entry(|entry| entry.baton.from_epoch = epoch(2), failure(3)),
        of_entry(|entry| entry.baton.epoch = epoch(3), failure(3)),
        of_record(|record| record.promised = epoch(7), failure(7)),
        of_entry(|entry| entry.head.attach = AttachNumber(5), GuardFailure::Session),
        of_entry(|entry| entry.incarnation = Incarnation(2), GuardFailure::Session),
        of_record(
            |record| record.session.as_mut().unwrap().attached = false,
            GuardFailure::Session,
        ),
        of_record(
            |record| record.session.as_mut().unwrap().epoch = epoch(2),
            GuardFailure::Session,
        ),
        of_record(|record| record.session = None, GuardFailure::Session),
        of_record(|record| record.suspect = true, GuardFailure::Suspect),
        of_record(|record| record.shadow = Some(shadow()), GuardFailure::Seed),
        of_record(|record| record.live.rewound = true, GuardFailure::IncompleteWindows),
        of_record(
            |record| record.live.revision = at("3.19"),
            GuardFailure::Position { revision: at("3.19") },
        ),
    ]
}

#[test]
fn accept_needs_each_clause() {
    let entry = accept_entry();
    let take = |record: &mut TenantRecord, entry: &Accept| accept(record, ME, entry, STAMP);
    let heir = TenantRecord {
        role: Role::Heir {
            home: OTHER,
            operation: OperationId(5),
            epoch: epoch(6),
        },
        ..follower()
    };
    let after = check(&follower(), &entry, take, &accept_clauses());
    assert_eq!(after, check(&heir, &entry, take, &accept_clauses()), "heir or follower");
    assert_eq!((after.owned(), after.promised), (Some(epoch(6)), epoch(6)));
    assert_eq!(after.lineage.epoch(), epoch(6));
    assert_eq!(after.lineage.runs().len(), 1, "a move cuts nothing");
    assert_eq!(after.policy, LeaseLossPolicy::Continue);
    assert_eq!(after.uncounted, [GroupId::new(3)]);
    let handover = after.accepted.unwrap();
    assert_eq!((handover.revision, handover.digests), (at("3.20"), entry.baton.digests));
    assert_eq!((after.live.index, after.live.retention_floor), (70, at("3.15")));
    assert_eq!(after.live.time_at(STAMP.time), TenantTime(8_000), "no leap to 9,000");
    assert_eq!(after.live.time_at(STAMP.time + 1_000), TenantTime(9_100));
    let mut again = after.clone();
    assert_eq!(
        take(&mut again, &entry),
        Err(GuardFailure::NotFollower),
        "a baton twice"
    );
    assert_eq!(again, after);
}

#[test]
fn accept_with_other_digests_makes_copy_suspect() {
    for (keys, outcomes, mismatch) in [(1, 8, DigestMismatch::Keys), (7, 1, DigestMismatch::Outcomes)] {
        let mut entry = accept_entry();
        entry.baton.digests = Digests { keys, outcomes };
        let mut record = follower();
        let failure = GuardFailure::DigestMismatch(mismatch);
        assert_eq!(accept(&mut record, ME, &entry, STAMP), Err(failure));
        let suspect = TenantRecord {
            suspect: true,
            session: None,
            ..follower()
        };
        assert_eq!(record, suspect);
    }
}

#[test]
fn baton_exists_only_while_relinquished() {
    for role in [Role::Owner, Role::Follower { home: OTHER }, frozen(), Role::Erased] {
        assert_eq!(baton(&TenantRecord { role, ..owner() }), None);
    }
}

#[test]
fn uncount_and_count_need_owner_and_current_view() {
    let entry = Uncount {
        tenant: TENANT,
        version: version(10),
        group: OTHER,
    };
    let clauses = [
        of_record(
            |record| record.role = Role::Follower { home: OTHER },
            GuardFailure::NotOwner { to: None },
        ),
        of_entry(
            |entry: &mut Uncount| entry.version = version(9),
            GuardFailure::OlderView,
        ),
    ];
    let mut record = check(&owner(), &entry, uncount, &clauses);
    assert_eq!(uncount(&mut record, &entry), Ok(()));
    assert_eq!(record.uncounted, [OTHER], "once");
    let entry = Count {
        tenant: TENANT,
        version: version(10),
        group: OTHER,
    };
    let clauses = [
        of_record(
            |record| record.role = Role::Follower { home: OTHER },
            GuardFailure::NotOwner { to: None },
        ),
        of_entry(|entry: &mut Count| entry.version = version(9), GuardFailure::OlderView),
    ];
    let record = check(&record, &entry, count, &clauses);
    assert!(record.uncounted.is_empty());
}

#[test]
fn create_and_follow_need_each_clause() {
    let entry = Create {
        tenant: TENANT,
        version: version(10),
        policy: LeaseLossPolicy::Stop,
    };
    let clauses = [of_record(|record| *record = owner(), GuardFailure::HasRecord)];
    let created = check(&TenantRecord::unknown(), &entry, create, &clauses);
    assert_eq!((created.owned(), created.promised), (Some(epoch(1)), epoch(1)));
    let entry = Follow {
        tenant: TENANT,
        version: version(10),
        home: OTHER,
        epoch: epoch(6),
        lineage: Lineage::starting(epoch(1)),
    };
    let clauses = [
        of_entry(|entry: &mut Follow| entry.home = ME, GuardFailure::NotFollower),
        of_entry(|entry| entry.version = version(9), GuardFailure::OlderView),
        of_entry(|entry| entry.epoch = epoch(3), failure(3)),
        of_record(|record| record.promised = epoch(7), failure(7)),
    ];
    let go = |record: &mut TenantRecord, entry: &Follow| follow(record, ME, entry, &|_| None);
    let after = check(&owner(), &entry, go, &clauses);
    assert_eq!((after.role, after.epoch), (Role::Follower { home: OTHER }, epoch(6)));
    assert_eq!(after.live.revision, at("3.20"), "nothing is cut by a move");
}

#[test]
fn sessions_need_each_clause() {
    let begin = BeginAttach {
        tenant: TENANT,
        home: OTHER,
        incarnation: Incarnation::FIRST,
        epoch: epoch(3),
        version: version(10),
        number: AttachNumber(7),
    };
    let clauses = [
        of_record(|record| record.role = Role::Owner, GuardFailure::NotFollower),
        of_entry(|entry: &mut BeginAttach| entry.epoch = epoch(4), failure(3)),
        of_entry(|entry| entry.version = version(9), GuardFailure::OlderView),
        of_entry(|entry| entry.number = AttachNumber(6), GuardFailure::Session),
    ];
    let record = check(&follower(), &begin, begin_attach, &clauses);
    let entry = Attach {
        tenant: TENANT,
        home: OTHER,
        epoch: epoch(3),
        version: version(10),
        number: AttachNumber(7),
        position: at("3.20"),
        lineage: Lineage::starting(epoch(1)),
    };
    let other = [of_entry(
        |entry: &mut Attach| entry.number = AttachNumber(6),
        GuardFailure::Session,
    )];
    let attached = check(&record, &entry, attach, &other);
    let mut unfit = record;
    let beyond = Attach {
        position: at("3.21"),
        ..entry
    };
    assert!(attach(&mut unfit, &beyond).is_err());
    assert_eq!(unfit.session, None, "an attempt that does not fit is over");
    let entry = Detach {
        tenant: TENANT,
        home: OTHER,
        number: AttachNumber(7),
    };
    let other = [of_entry(
        |entry: &mut Detach| entry.number = AttachNumber(6),
        GuardFailure::Session,
    )];
    assert_eq!(check(&attached, &entry, detach, &other).session, None);
}

#[test]
fn erase_and_rejoin_need_each_clause() {
    let entry = Rejoin {
        tenant: TENANT,
        version: version(12),
    };
    let clauses = [
        of_record(|record| *record = TenantRecord::unknown(), GuardFailure::NoRecord),
        of_entry(|entry: &mut Rejoin| entry.version = version(9), GuardFailure::OlderView),
    ];
    let rejoined = check(&follower(), &entry, rejoin, &clauses);
    let entry = Erase {
        tenant: TENANT,
        version: version(12),
        deleted: false,
        forks: Vec::new(),
        recorded: Some(epoch(3)),
    };
    let clauses = [
        of_record(|record| *record = TenantRecord::unknown(), GuardFailure::NoRecord),
        of_record(|record| record.role = Role::Owner, GuardFailure::NotFollower),
        of_record(|record| record.forks.push(fork()), GuardFailure::HoldsForks),
        of_entry(|entry: &mut Erase| entry.version = version(11), GuardFailure::OlderView),
        of_entry(
            |entry: &mut Erase| entry.recorded = Some(epoch(4)),
            GuardFailure::Epoch {
                epoch: epoch(3),
                promised: epoch(3),
            },
        ),
    ];
    let erased = check(&rejoined, &entry, erase, &clauses);
    assert_eq!((erased.role, erased.promised), (Role::Erased, epoch(3)));
}

#[test]
fn lease_loss_policy_needs_owner_and_current_view() {
    let entry = SetLeaseLossPolicy {
        tenant: TENANT,
        version: version(12),
        policy: LeaseLossPolicy::Continue,
    };
    let clauses = [
        of_record(
            |record| record.role = Role::Follower { home: OTHER },
            GuardFailure::NotOwner { to: None },
        ),
        of_entry(
            |entry: &mut SetLeaseLossPolicy| entry.version = version(9),
            GuardFailure::OlderView,
        ),
    ];
    let changed = check(&owner(), &entry, set_lease_loss_policy, &clauses);
    assert_eq!(
        (changed.policy, changed.view_version),
        (LeaseLossPolicy::Continue, version(12))
    );
}

#[test]
fn remote_watermark_rises_in_owners_epoch_up_to_last_change() {
    let mut owner = owner();
    (owner.live.index, owner.remote) = (20, 10);
    let entry = ConfirmRemote {
        tenant: TENANT,
        epoch: owner.epoch,
        index: 20,
    };
    let clauses = [
        of_record(
            |record| record.role = Role::Follower { home: OTHER },
            GuardFailure::NotOwner { to: None },
        ),
        of_record(|record| record.remote = 20, GuardFailure::Offset),
        of_record(|record| record.live.index = 19, GuardFailure::Offset),
        of_entry(
            |entry: &mut ConfirmRemote| entry.epoch = epoch(7),
            GuardFailure::Epoch {
                epoch: owner.epoch,
                promised: owner.promised,
            },
        ),
    ];
    let confirmed = check(&owner, &entry, confirm_remote, &clauses);
    assert_eq!(confirmed.remote, 20);
}
