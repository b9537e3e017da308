//! `Freeze`, `Pull` and `Activate` over rows.

use proptest::prelude::*;
use stead_types::{GroupId, Revision, Sequence};

use super::{
    group::{Group, TENANT, epoch, revision, version},
    histories::{Clock, histories},
};
use crate::shard::{
    ApplyResult,
    apply_result::{DataResult, DetachReason, GuardFailure},
    command::{Effect, Operation, Pull, PullHeader, Write},
    digest::DigestMismatch,
    ownership::freeze_report,
    record::{OperationId, PreviousRole},
};

fn put(key: &'static str) -> bytes::Bytes {
    Write::new(TENANT, None, Operation::new(key, Effect::put("v"))).encode()
}

/// The pull of the changes of a source after the puller's last one, up to a sequence.
fn pull(source: &Group, puller: &Group, up_to: Sequence) -> Pull {
    let after = puller.record().live.revision;
    let records = source.records(after, up_to);
    Pull {
        head: PullHeader {
            tenant: TENANT,
            version: version(2),
            operation: OperationId(1),
            epoch: epoch(2),
            from: source.shard.prefix().group,
            after,
            last: records.changes.last().map_or(after, |change| change.revision),
            lineage: source.record().lineage.clone(),
        },
        records,
    }
}

/// Two followers of a home with four changes, frozen: one has them all, the other the first.
fn frozen() -> (Group, Group) {
    let mut home = Group::owner();
    let mut followers = [2, 3].map(|group| Group::follower_in(GroupId::new(group), &home));
    for (at, key) in ["a", "b", "a", "c"].into_iter().enumerate() {
        home.apply(1_000, put(key));
        for follower in followers.iter_mut().take(if at == 0 { 2 } else { 1 }) {
            let data = home.data_for(follower, follower.record().live.revision, Sequence::MAX);
            follower.apply(0, data.encode());
        }
    }
    for follower in &mut followers {
        assert_eq!(follower.freeze(0, 2), ApplyResult::Done);
    }
    let [source, puller] = followers;
    (source, puller)
}

#[test]
fn frozen_group_reports_position_and_takes_in_nothing() {
    let mut home = Group::owner();
    home.apply(1_000, put("a"));
    let mut follower = Group::follower(&home);
    assert_eq!(follower.attach(&home), ApplyResult::Done);
    let data = home.data_for(&follower, Revision::ZERO, Sequence::MAX);
    assert_eq!(follower.freeze(0, 2), ApplyResult::Done);
    let void = ApplyResult::GuardFailed(GuardFailure::Session);
    assert_eq!(follower.apply(0, data.encode()), void);
    let report = freeze_report(follower.record()).unwrap();
    assert_eq!(
        (report.previous, report.revision),
        (PreviousRole::Follower, Revision::ZERO)
    );
    // Of an owner the idle time has passed, and it writes no more.
    assert_eq!(home.freeze(9_000, 2), ApplyResult::Done);
    let report = freeze_report(home.record()).unwrap();
    assert_eq!((report.previous, report.time.0), (PreviousRole::Owner, 9_000));
    let refused = home.apply(9_000, put("b"));
    assert_eq!(refused, ApplyResult::GuardFailed(GuardFailure::NotOwner { to: None }));
    assert_eq!(
        home.freeze(9_000, 2),
        ApplyResult::GuardFailed(GuardFailure::Epoch {
            epoch: epoch(1),
            promised: epoch(2)
        })
    );
    // The promise is kept without a record of the tenant.
    let mut stranger = Group::new(GroupId::new(9));
    let freeze = crate::shard::command::Freeze {
        tenant: TENANT,
        version: version(2),
        operation: OperationId(1),
        epoch: epoch(2),
        lineage: home.record().lineage.clone(),
    };
    assert_eq!(stranger.apply(0, freeze.encode()), ApplyResult::Done);
    stranger.reopen();
    assert_eq!(freeze_report(stranger.record()).unwrap().previous, PreviousRole::None);
}

#[test]
fn pull_in_parts_takes_over_changes_and_lineage() {
    let (source, mut puller) = frozen();
    let first = pull(&source, &puller, Sequence::new(2).unwrap());
    let reached = |at: &str| {
        ApplyResult::Data(DataResult {
            revision: revision(at),
            detached: None,
        })
    };
    assert_eq!(puller.apply(0, first.encode()), reached("1.2"));
    // Sent again, it is void.
    let void = ApplyResult::GuardFailed(GuardFailure::Position {
        revision: revision("1.2"),
    });
    assert_eq!(puller.apply(0, first.encode()), void);
    let rest = pull(&source, &puller, Sequence::MAX);
    let mut gap = rest.clone();
    gap.records.changes.remove(0);
    assert_eq!(puller.apply(0, gap.encode()), void);
    let mut short = rest.clone();
    short.records.changes.pop();
    assert_eq!(
        puller.apply(0, short.encode()),
        void,
        "it ends before the change that it names"
    );
    assert_eq!(puller.apply(0, rest.encode()), reached("1.4"));
    assert_eq!(freeze_report(puller.record()).unwrap().revision, revision("1.4"));
    assert_eq!(puller.record().live.digests, source.record().live.digests);
    assert_eq!(puller.activate(2_000, revision("1.4")), ApplyResult::Done);
    let ApplyResult::Write(written) = puller.apply(2_000, put("d")) else {
        panic!()
    };
    assert_eq!(written.revision, revision("2.5"));
    assert_eq!(
        puller.shard.take_touched().0,
        0,
        "touched tenants are in the entry's row"
    );
}

#[test]
fn pull_with_other_digest_makes_copy_suspect() {
    let (source, mut puller) = frozen();
    let mut entry = pull(&source, &puller, Sequence::MAX);
    entry.records.digests.as_mut().unwrap().keys ^= 1;
    let expected = DataResult {
        revision: revision("1.4"),
        detached: Some(DetachReason::DigestMismatch(DigestMismatch::Keys)),
    };
    assert_eq!(puller.apply(0, entry.encode()), ApplyResult::Data(expected));
    assert!(freeze_report(puller.record()).unwrap().suspect);
    let refused = puller.apply(0, pull(&source, &puller, Sequence::MAX).encode());
    assert_eq!(refused, ApplyResult::GuardFailed(GuardFailure::Suspect));
}

#[test]
fn activation_makes_batch_of_feed() {
    let (mut source, _) = frozen();
    assert_eq!(source.activate(2_000, revision("1.4")), ApplyResult::Done);
    let feed = source.shard.feed(&source.rows, 0, 10).unwrap();
    let (index, entry) = feed.last().unwrap();
    assert_eq!((*index, entry.touched.len()), (source.index, 1));
    assert_eq!(source.record().live.index, source.index);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn copy_that_pulled_equals_source(shared in histories(0..25), more in histories(0..25), parts in 1u64..6) {
        let mut clock = Clock::new();
        let mut home = Group::owner();
        let mut followers = [2, 3].map(|group| Group::follower_in(GroupId::new(group), &home));
        for (at, happens) in shared.iter().chain(&more).enumerate() {
            if let Some(command) = clock.command(&mut home, happens) {
                home.apply(clock.time, command);
            }
            let fed = if at < shared.len() { 2 } else { 1 };
            for follower in followers.iter_mut().take(fed) {
                let data = home.data_for(follower, follower.record().live.revision, Sequence::MAX);
                follower.apply(0, data.encode());
            }
        }
        let [mut source, mut puller] = followers;
        for group in [&mut source, &mut puller] {
            prop_assert_eq!(group.freeze(0, 2), ApplyResult::Done);
        }
        if puller.record().live.revision < source.record().live.retention_floor {
            // The source's history does not reach back to it.
            return Ok(());
        }
        let last = source.record().live.revision;
        while puller.record().live.revision < last {
            let next = puller.record().live.revision.sequence().get() + parts;
            let entry = pull(&source, &puller, Sequence::new(next).unwrap());
            let pulled = puller.apply(0, entry.encode());
            prop_assert!(matches!(pulled, ApplyResult::Data(DataResult { detached: None, .. })), "{:?}", pulled);
        }
        let (one, other) = (&puller.record().live, &source.record().live);
        prop_assert_eq!((one.revision, one.digests, one.keys, one.len), (other.revision, other.digests, other.keys, other.len));
        let windows = |group: &Group| group.shard.clients(TENANT).unwrap().windows().clone();
        prop_assert_eq!(windows(&puller), windows(&source));
        prop_assert!(!puller.record().live.rewound);
    }
}
