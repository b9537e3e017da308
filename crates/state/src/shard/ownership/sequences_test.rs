//! Random sequences of transitions keep the invariants of the module.

use std::collections::BTreeSet;

use proptest::{prelude::*, strategy::ValueTree, test_runner::TestRunner};
use stead_types::{DirectoryVersion, Epoch, GroupId, Incarnation, Revision, Sequence, TenantNumber, TenantTime};

use super::*;
use crate::{
    lineage::Lineage,
    shard::{
        command::{
            Activate, Attach, Baton, BeginAttach, CancelHeir, Count, Create, DataHeader, Detach, Erase, Follow, Freeze,
            Heir, PullHeader, Refuse, Rejoin, Relinquish, Uncount,
        },
        digest::Digests,
        record::{AttachNumber, LeaseLossPolicy, OperationId},
    },
};

const TENANT: TenantNumber = TenantNumber::new(5);
/// Kinds of entries that [`apply`] tells apart.
const KINDS: u8 = 18;

/// One entry with small numbers, so that guards hold often.
#[derive(Clone, Debug)]
struct Choice {
    kind: u8,
    group: u32,
    version: u64,
    operation: u64,
    recorded: u32,
    epoch: u32,
    attach: u64,
    sequence: u64,
    /// Whether epochs, numbers and positions are the record's, so that later guards are reached.
    fits: bool,
}

prop_compose! {
    fn choices()(
        (kind, group) in (0..KINDS, 1..4_u32),
        (version, operation) in (0..6_u64, 0..4_u64),
        (recorded, epoch) in (1..8_u32, 1..8_u32),
        (attach, sequence) in (0..5_u64, 0..12_u64),
        fits in any::<bool>(),
    ) -> Choice {
        Choice { kind, group, version, operation, recorded, epoch, attach, sequence, fits }
    }
}

const ME: GroupId = GroupId::new(1);

fn lineage(last: u32, promotion: Option<(u32, u64)>) -> Lineage {
    let mut lineage = Lineage::starting(Epoch::FIRST);
    if let Some((number, kept)) = promotion {
        lineage.record_promotion(Epoch::new(number).unwrap(), Sequence::new(kept).unwrap());
    }
    lineage.record_move(Epoch::new(last).unwrap());
    lineage
}

/// Applies a choice to the record; returns the failure of its guard.
#[expect(clippy::too_many_lines, reason = "one arm for each entry")]
fn apply(record: &mut TenantRecord, choice: &Choice, index: u64) -> Result<(), GuardFailure> {
    let (tenant, group) = (TENANT, GroupId::new(choice.group));
    let version = DirectoryVersion {
        incarnation: Incarnation::FIRST,
        index: choice
            .version
            .max(if choice.fits { record.view_version.index } else { 0 }),
    };
    let operation = OperationId(choice.operation);
    let mut recorded = Epoch::new(choice.recorded).unwrap();
    let mut epoch = Epoch::new(choice.epoch).unwrap();
    let mut number = AttachNumber(choice.attach);
    let mut home = group;
    if choice.fits {
        recorded = record.epoch;
        epoch = Epoch::new(record.promised.get() + choice.epoch).unwrap();
        number = record.attach;
        home = record.home().unwrap_or(group);
    }
    let stamp = EntryStamp {
        index,
        time: 1_000 + index * 100,
    };
    let cut = lineage(choice.epoch, Some((choice.epoch.max(2), choice.sequence.max(1))));
    let whole = record.lineage.clone();
    let history = |sequence: Sequence| (choice.sequence > 3).then(|| Revision::new(Epoch::FIRST, sequence));
    let last = Revision::new(Epoch::FIRST, Sequence::new(choice.sequence).unwrap());
    let policy = LeaseLossPolicy::Stop;
    let head = DataHeader {
        tenant,
        home,
        epoch: recorded,
        version,
        attach: number,
    };
    match choice.kind {
        0 => create(
            record,
            &Create {
                tenant,
                version,
                policy,
            },
        ),
        1 => follow(
            record,
            ME,
            &Follow {
                tenant,
                version,
                home: group,
                epoch,
                lineage: cut,
            },
            &history,
        )
        .map(drop),
        2 => follow(
            record,
            ME,
            &Follow {
                tenant,
                version,
                home: group,
                epoch,
                lineage: whole,
            },
            &history,
        )
        .map(drop),
        3 => {
            let number = if choice.fits { number.next() } else { number };
            let incarnation = Incarnation::FIRST;
            begin_attach(
                record,
                &BeginAttach {
                    tenant,
                    home,
                    incarnation,
                    epoch: recorded,
                    version,
                    number,
                },
            )
        }
        4 => attach(
            record,
            &Attach {
                tenant,
                home,
                epoch: recorded,
                version,
                number,
                position: Revision::ZERO,
                lineage: whole,
            },
        ),
        5 => detach(record, &Detach { tenant, home, number }),
        6 => admit_data(record, &head).map(|()| {
            // What apply does with the changes that are admitted.
            record.live.revision = Revision::new(record.epoch, record.live.revision.sequence().next().unwrap());
        }),
        7 => heir(
            record,
            ME,
            &Heir {
                tenant,
                version,
                operation,
                to: group,
                recorded_epoch: recorded,
                epoch,
            },
        ),
        8 => cancel_heir(
            record,
            &CancelHeir {
                tenant,
                version,
                operation,
                last_operation: OperationId(2),
            },
        ),
        9 => relinquish(
            record,
            ME,
            &Relinquish {
                tenant,
                version,
                operation,
                to: group,
                recorded_epoch: recorded,
                epoch,
            },
            stamp,
        ),
        10 => refuse(
            record,
            &Refuse {
                tenant,
                version,
                operation,
            },
        ),
        11 => {
            let baton = Baton {
                operation,
                to: group,
                from_epoch: recorded,
                epoch,
                last: if choice.fits { record.live.revision } else { last },
                digests: Digests {
                    keys: u128::from(choice.sequence / 11),
                    outcomes: 0,
                },
                policy,
                time: TenantTime(choice.sequence * 500),
                retention_floor: last,
                uncounted: vec![group],
            };
            accept(record, ME, &baton.accept(head, Incarnation::FIRST), stamp)
        }
        12 => {
            let carried = if choice.fits { whole } else { cut };
            freeze(
                record,
                &Freeze {
                    tenant,
                    version,
                    operation,
                    epoch,
                    lineage: carried,
                },
                stamp,
                &history,
            )
            .map(drop)
        }
        13 => {
            let (after, epoch) = (record.live.revision, if choice.fits { record.promised } else { epoch });
            let last = Revision::new(after.epoch(), Sequence::new(after.sequence().get() + 2).unwrap());
            pull(
                record,
                &PullHeader {
                    tenant,
                    version,
                    operation,
                    epoch,
                    from: group,
                    after,
                    last,
                    lineage: whole,
                },
            )
        }
        14 => {
            let (kept, epoch) = if choice.fits {
                (record.live.revision, record.promised)
            } else {
                (last, epoch)
            };
            let time = TenantTime(choice.sequence * 500);
            let entry = Activate {
                tenant,
                version,
                home: group,
                epoch,
                kept,
                time,
                policy,
                uncounted: vec![group],
            };
            activate(record, ME, &entry, stamp, &history).map(drop)
        }
        15 => uncount(record, &Uncount { tenant, version, group }),
        16 => count(record, &Count { tenant, version, group }),
        _ if choice.fits => rejoin(record, &Rejoin { tenant, version }),
        _ => erase(
            record,
            &Erase {
                tenant,
                version,
                deleted: choice.attach == 0,
                forks: vec![2, 3],
                recorded: (choice.epoch > 1).then_some(recorded),
            },
        )
        .map(drop),
    }
}

/// Tells whether a failed guard may have changed the record so: the session ended, or the copy became suspect.
fn only_session_ended(before: &TenantRecord, after: &TenantRecord) -> bool {
    let ended = TenantRecord {
        session: None,
        suspect: after.suspect,
        ..before.clone()
    };
    *after == ended && after.suspect >= before.suspect
}

fn check(before: &TenantRecord, after: &TenantRecord, choice: &Choice) -> Result<(), TestCaseError> {
    prop_assert!(after.promised >= before.promised, "promised: {choice:?}");
    prop_assert!(after.view_version >= before.view_version, "view: {choice:?}");
    prop_assert!(after.epoch <= after.promised, "epoch: {choice:?}");
    prop_assert!(after.refused_up_to >= before.refused_up_to);
    prop_assert!(after.attach >= before.attach && after.copies >= before.copies);
    if after.role == Role::Owner && (before.role != Role::Owner || before.epoch != after.epoch) {
        prop_assert!([0, 11, 14].contains(&choice.kind), "owner: {choice:?}");
        prop_assert!(after.epoch >= before.promised && after.session.is_none());
    }
    if choice.kind != 17 {
        // Each copy that held a change is live or a fork.
        let numbers: Vec<u32> = after.copies().map(|copy| copy.number).collect();
        for copy in before.forks.iter().map(|fork| &fork.copy).chain([&before.live]) {
            prop_assert!(
                copy.revision == Revision::ZERO || numbers.contains(&copy.number),
                "{choice:?}"
            );
        }
    }
    if let Role::Frozen { epoch, .. } = after.role {
        prop_assert_eq!(epoch, after.promised);
    }
    if let Role::Relinquished { last, epoch, .. } = after.role {
        prop_assert_eq!((last, epoch), (after.live.revision, after.promised));
    }
    if after.owned().is_some() && before.owned().is_some() {
        prop_assert!(after.live.time >= before.live.time);
    }
    Ok(())
}

proptest! {
    #[test]
    fn random_entries_keep_invariants(choices in prop::collection::vec(choices(), 1..60)) {
        let mut record = TenantRecord::unknown();
        for (index, choice) in choices.iter().enumerate() {
            let before = record.clone();
            let result = apply(&mut record, choice, index as u64 + 1);
            if result.is_err() {
                prop_assert!(record == before || only_session_ended(&before, &record), "{:?}: {:?}", choice, result);
            }
            check(&before, &record, choice)?;
        }
    }
}

/// The sequences would prove nothing about a transition whose guard they never pass.
#[test]
fn random_entries_pass_every_guard() {
    let mut runner = TestRunner::deterministic();
    let sequences = prop::collection::vec(choices(), 1..60);
    let mut passed = BTreeSet::new();
    for _ in 0..4_096 {
        let mut record = TenantRecord::unknown();
        let choices = sequences.new_tree(&mut runner).unwrap().current();
        for (index, choice) in choices.iter().enumerate() {
            if apply(&mut record, choice, index as u64 + 1).is_ok() {
                // The last kind is two entries.
                passed.insert((choice.kind, choice.kind == KINDS - 1 && choice.fits));
            }
        }
    }
    assert_eq!(passed.len(), usize::from(KINDS) + 1, "{passed:?}");
}
