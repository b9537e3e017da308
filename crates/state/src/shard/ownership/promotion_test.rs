//! Transitions of promotions: guards, rewinds and forks.

use stead_types::{DirectoryVersion, Epoch, GroupId, Incarnation, Revision, Sequence, TenantNumber, TenantTime};

use super::*;
use crate::{
    lineage::Lineage,
    shard::{
        command::{Activate, Follow, Freeze, PullHeader},
        record::{CopyState, LeaseLossPolicy, OperationId, PreviousRole},
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

/// Lineage of epochs 1 to `last`, then cut by these promotions.
fn lineage(last: u32, promotions: &[(u32, u64)]) -> Lineage {
    let mut lineage = Lineage::starting(epoch(1));
    lineage.record_move(epoch(last));
    for (number, kept) in promotions {
        lineage.record_promotion(epoch(*number), Sequence::new(*kept).unwrap());
    }
    lineage
}

/// A group in this role at epoch 3, moved there from epoch 1 after its sequence 10, with 20 changes.
fn held(role: Role) -> TenantRecord {
    TenantRecord {
        role,
        epoch: epoch(3),
        promised: epoch(3),
        view_version: version(10),
        lineage: lineage(3, &[]),
        live: CopyState {
            number: 1,
            revision: at("3.20"),
            time: TenantTime(5_000),
            ..CopyState::default()
        },
        copies: 1,
        ..TenantRecord::unknown()
    }
}

/// History of [`held`], complete.
fn history(sequence: Sequence) -> Option<Revision> {
    let number = if sequence.get() <= 10 { 1 } else { 3 };
    Some(Revision::new(epoch(number), sequence))
}

fn no_history(_: Sequence) -> Option<Revision> {
    None
}

fn freeze_for(number: u32, lineage: Lineage) -> Freeze {
    Freeze {
        tenant: TENANT,
        version: version(11),
        operation: OperationId(8),
        epoch: epoch(number),
        lineage,
    }
}

#[test]
fn every_role_can_be_frozen_and_is_remembered() {
    let operation = OperationId(2);
    let relinquished = Role::Relinquished {
        operation,
        to: OTHER,
        epoch: epoch(4),
        last: at("3.20"),
    };
    let heir = Role::Heir {
        home: OTHER,
        operation,
        epoch: epoch(4),
    };
    for (role, previous) in [
        (Role::Owner, PreviousRole::Owner),
        (Role::Follower { home: OTHER }, PreviousRole::Follower),
        (heir, PreviousRole::Follower),
        (relinquished, PreviousRole::Relinquished(OTHER)),
        (Role::Erased, PreviousRole::None),
    ] {
        let mut record = held(role);
        let cut = freeze(&mut record, &freeze_for(6, lineage(3, &[])), STAMP, &history).unwrap();
        assert_eq!(cut, Cut::default());
        let report = freeze_report(&record).unwrap();
        assert_eq!((report.previous, report.revision), (previous, at("3.20")));
        assert_eq!((record.promised, record.session), (epoch(6), None));
        // Replaced by another promotion.
        freeze(&mut record, &freeze_for(7, lineage(3, &[])), STAMP, &history).unwrap();
        assert_eq!(freeze_report(&record).unwrap().previous, previous);
    }
    let mut unknown = TenantRecord::unknown();
    freeze(&mut unknown, &freeze_for(6, lineage(3, &[])), STAMP, &history).unwrap();
    assert_eq!(freeze_report(&unknown).unwrap().revision, Revision::ZERO);
    assert!(!unknown.is_unknown(), "the promise is kept");
}

#[test]
fn freeze_needs_higher_epoch_and_current_view() {
    let record = held(Role::Owner);
    for (entry, failure) in [
        (
            freeze_for(3, lineage(3, &[])),
            GuardFailure::Epoch {
                epoch: epoch(3),
                promised: epoch(3),
            },
        ),
        (
            Freeze {
                version: version(9),
                ..freeze_for(6, lineage(3, &[]))
            },
            GuardFailure::OlderView,
        ),
    ] {
        let mut changed = record.clone();
        assert_eq!(freeze(&mut changed, &entry, STAMP, &history), Err(failure));
        assert_eq!(changed, record);
    }
}

#[test]
fn freeze_rewinds_what_recorded_lineage_lacks() {
    let carried = lineage(3, &[(4, 15)]);
    let mut record = held(Role::Follower { home: OTHER });
    let cut = freeze(&mut record, &freeze_for(6, carried.clone()), STAMP, &history).unwrap();
    assert_eq!((cut.fork, cut.rewound_to), (Some(2), Some(at("3.15"))));
    assert_eq!((record.live.revision, record.live.number), (at("3.15"), 1));
    assert!(record.live.rewound);
    let fork = &record.forks[0];
    assert_eq!(
        (fork.copy.number, fork.tail.map(|tail| tail.after)),
        (2, Some(at("3.15")))
    );
    assert_eq!((fork.copy.revision, fork.point.get()), (at("3.20"), 15));
    assert_eq!((&fork.lineage, &record.lineage), (&lineage(3, &[]), &carried));
    // The versions at the fork point are gone: the whole copy is the fork.
    let mut record = held(Role::Follower { home: OTHER });
    let cut = freeze(&mut record, &freeze_for(6, carried), STAMP, &no_history).unwrap();
    assert_eq!((cut.fork, cut.rewound_to), (Some(1), None));
    assert_eq!((record.live.revision, record.live.number), (Revision::ZERO, 2));
    assert_eq!(
        freeze_report(&record).unwrap().forked_up_to.get(),
        15,
        "P1: it is consulted with what it held"
    );
    assert!(!record.live.rewound, "an empty copy has no window that lacks anything");
}

#[test]
fn freeze_keeps_epochs_that_directory_does_not_know() {
    let mut record = held(Role::Owner);
    let recorded = lineage(1, &[]);
    let cut = freeze(&mut record, &freeze_for(6, recorded), STAMP, &history).unwrap();
    assert_eq!(cut, Cut::default());
    let report = freeze_report(&record).unwrap();
    assert_eq!((report.revision, report.lineage), (at("3.20"), lineage(3, &[])));
}

fn frozen() -> TenantRecord {
    let mut record = held(Role::Follower { home: OTHER });
    freeze(&mut record, &freeze_for(6, lineage(3, &[])), STAMP, &history).unwrap();
    record
}

#[test]
fn pull_needs_same_promotion_position_and_history() {
    let entry = PullHeader {
        tenant: TENANT,
        version: version(11),
        operation: OperationId(8),
        epoch: epoch(6),
        from: OTHER,
        after: at("3.20"),
        last: at("5.22"),
        lineage: lineage(5, &[]),
    };
    let refused = |change: fn(&mut PullHeader)| {
        let (mut record, mut entry) = (frozen(), entry.clone());
        change(&mut entry);
        let failure = pull(&mut record, &entry).unwrap_err();
        assert_eq!(record, frozen());
        failure
    };
    let position = GuardFailure::Position { revision: at("3.20") };
    assert_eq!(refused(|pull| pull.operation = OperationId(9)), GuardFailure::NotFrozen);
    assert_eq!(refused(|pull| pull.epoch = epoch(7)), GuardFailure::NotFrozen);
    assert_eq!(refused(|pull| pull.version = version(10)), GuardFailure::OlderView);
    assert_eq!(refused(|pull| pull.after = at("3.19")), position);
    assert_eq!(refused(|pull| pull.last = at("3.19")), position);
    assert_eq!(
        refused(|pull| pull.lineage = lineage(3, &[(5, 19)])),
        GuardFailure::Diverged
    );
    let mut owner = held(Role::Owner);
    assert_eq!(pull(&mut owner, &entry), Err(GuardFailure::NotFrozen));
    let mut record = frozen();
    pull(&mut record, &entry).unwrap();
    assert_eq!((record.live.revision, record.lineage.epoch()), (at("5.22"), epoch(5)));
}

fn activate_at(kept: &str) -> Activate {
    Activate {
        tenant: TENANT,
        version: version(12),
        home: ME,
        epoch: epoch(6),
        kept: at(kept),
        time: TenantTime(7_000),
        policy: LeaseLossPolicy::Continue,
        uncounted: vec![OTHER, ME],
    }
}

#[test]
fn activate_needs_each_clause() {
    let refused = |record: TenantRecord, entry: Activate| {
        let mut changed = record.clone();
        let failure = activate(&mut changed, ME, &entry, STAMP, &history).unwrap_err();
        assert_eq!(changed, record);
        failure
    };
    let entry = || activate_at("3.20");
    let position = GuardFailure::Position { revision: at("3.20") };
    assert_eq!(refused(held(Role::Owner), entry()), GuardFailure::NotFrozen);
    let other_epoch = Activate {
        epoch: epoch(5),
        ..entry()
    };
    assert_eq!(refused(frozen(), other_epoch), GuardFailure::NotFrozen);
    let promised_more = TenantRecord {
        promised: epoch(7),
        ..frozen()
    };
    assert_eq!(refused(promised_more, entry()), GuardFailure::NotFrozen);
    let older = Activate {
        version: version(10),
        ..entry()
    };
    assert_eq!(refused(frozen(), older), GuardFailure::OlderView);
    let elsewhere = Activate { home: OTHER, ..entry() };
    assert_eq!(refused(frozen(), elsewhere), GuardFailure::NotTarget);
    assert_eq!(refused(frozen(), activate_at("3.21")), position, "it lacks a change");
    assert_eq!(refused(frozen(), activate_at("1.20")), position, "of another history");
    assert_eq!(refused(frozen(), activate_at("1.15")), position, "of another history");
}

#[test]
fn activation_begins_run_and_keeps_time_index_and_policy() {
    let mut record = frozen();
    let done = activate(&mut record, ME, &activate_at("3.20"), STAMP, &no_history).unwrap();
    assert_eq!(done, Activation::default());
    assert_eq!((record.owned(), record.promised), (Some(epoch(6)), epoch(6)));
    assert_eq!(record.lineage, lineage(3, &[(6, 20)]));
    assert_eq!((record.live.index, record.policy), (70, LeaseLossPolicy::Continue));
    assert_eq!(record.live.time_at(STAMP.time), TenantTime(7_000), "no leap to 9,000");
    assert_eq!(record.uncounted, [OTHER]);
    let again = activate(&mut record, ME, &activate_at("3.20"), STAMP, &history);
    assert_eq!(again, Err(GuardFailure::NotFrozen));
}

#[test]
fn activation_cuts_what_is_above_position_taken_over() {
    let mut record = frozen();
    let failure = activate(&mut record, ME, &activate_at("3.15"), STAMP, &no_history);
    assert_eq!(
        failure,
        Err(GuardFailure::Position { revision: at("3.20") }),
        "an empty copy cannot own"
    );
    let done = activate(&mut record, ME, &activate_at("3.15"), STAMP, &history).unwrap();
    assert_eq!(done.cut.fork, Some(2));
    assert_eq!(
        done.raised_edge,
        Some(TenantTime(7_000)),
        "its windows lack evicted outcomes"
    );
    assert_eq!(record.live.edge, TenantTime(7_000));
    assert_eq!((record.live.revision, record.forks.len()), (at("3.15"), 1));
    assert_eq!(record.lineage, lineage(3, &[(6, 15)]));
    assert!(!record.live.rewound);
}

#[test]
fn follow_rewinds_only_where_history_allows() {
    let entry = Follow {
        tenant: TENANT,
        version: version(11),
        home: OTHER,
        epoch: epoch(6),
        lineage: lineage(3, &[(6, 15)]),
    };
    let mut record = held(Role::Owner);
    let cut = follow(&mut record, ME, &entry, &history).unwrap();
    assert_eq!(cut.rewound_to, Some(at("3.15")));
    assert!(record.live.rewound, "no heir before its windows are complete");
    let mut record = held(Role::Owner);
    follow(&mut record, ME, &entry, &no_history).unwrap();
    assert_eq!(record.live.revision, Revision::ZERO);
    // A frozen group follows no epoch below the one that it is frozen for.
    let mut record = frozen();
    let below = Follow {
        epoch: epoch(5),
        ..entry.clone()
    };
    let failure = GuardFailure::Epoch {
        epoch: epoch(3),
        promised: epoch(6),
    };
    assert_eq!(follow(&mut record, ME, &below, &history), Err(failure));
    follow(&mut record, ME, &entry, &history).unwrap();
    assert_eq!(record.role, Role::Follower { home: OTHER });
}
