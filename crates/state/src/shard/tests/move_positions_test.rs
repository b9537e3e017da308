//! Positions on the lineage across a planned move: page tokens, starts of watches, conditions, session tokens and range
//! deletions name revisions of the epoch in which these were made, and hold at the new home.

use bytes::Bytes;
use stead_types::{
    ClientId, Condition, GroupId, IdempotencyKey, Revision, Sequence, TenantName, TenantNumber, TenantTime,
};

use super::{
    group::{Group, TENANT, epoch, revision},
    ownership_moves_test::{AHEAD, feed, follow, moved, written},
};
use crate::{
    directory::Tenant,
    freshness::gate::{FreshnessLevel, ReadDecision, ReplicaState, decide},
    rows::Order,
    shard::{
        ApplyResult,
        apply_result::DeleteRangeResult,
        command::{DeleteRange, Effect, Operation, RANGE_KEYS_MAX, Write},
        range_deletion::RangeDeletion,
        read::{ReadError, Scan},
    },
};

const TARGET: GroupId = GroupId::new(2);

fn put(key: impl Into<Bytes>) -> Bytes {
    Write::new(TENANT, None, Operation::new(key, Effect::put("later"))).encode()
}

fn put_if(key: &'static str, condition: Condition) -> Bytes {
    let operation = Operation {
        condition: Some(condition),
        ..Operation::new(key, Effect::put("conditional"))
    };
    Write::new(TENANT, None, operation).encode()
}

/// The tenant as views have it that know of a move to epoch 4, or not yet.
fn in_directory(knows_move: bool) -> Tenant {
    let name: TenantName = "acme".parse().unwrap();
    let mut tenant = Tenant::new(TenantNumber::new(TENANT.get()), name, GroupId::new(1));
    if knows_move {
        tenant.home = TARGET;
        tenant.epoch = epoch(4);
        tenant.lineage.record_move(epoch(4));
    }
    tenant
}

#[test]
fn page_token_of_old_home_continues_at_new_home() {
    let (home, mut target) = moved();
    let page = |of: &Group, at, after: Option<&'static str>| {
        of.reading().scan(&Scan {
            start: Bytes::new(),
            end: None,
            order: Order::Ascending,
            keys_only: false,
            at,
            after: after.map(Bytes::from),
            keys_max: 1,
            len_max: usize::MAX,
        })
    };
    let first = page(&home, None, None).unwrap();
    assert_eq!(
        (first.revision, first.next.as_deref()),
        (revision("1.4"), Some(&b"counter"[..]))
    );
    target.apply(AHEAD, put("long"));
    target.apply(AHEAD, put("longer"));
    let second = page(&target, Some(first.revision), Some("counter")).unwrap();
    assert_eq!(second.revision, first.revision);
    let (key, version) = &second.entries[0];
    assert_eq!(
        (&key[..], version.revision),
        (&b"long"[..], revision("1.2")),
        "not the later value"
    );
    // A copy that has not followed yet has not reached a token of the new epoch.
    let not_reached = page(&home, Some(revision("4.5")), None).unwrap_err();
    assert!(matches!(not_reached, ReadError::NotReached { .. }), "{not_reached:?}");
}

#[test]
fn watch_position_of_each_epoch_continues_at_each_copy() {
    let (mut home, mut target) = moved();
    target.apply(AHEAD, put("a"));
    target.apply(AHEAD, put("b"));
    assert_eq!(home.apply(0, follow(TARGET, 4, 6, &target)), ApplyResult::Done);
    feed(&target, &mut home);
    let after = |of: &Group, at: &str| -> Vec<String> {
        let found = of.reading().changes(revision(at), Sequence::MAX, usize::MAX).unwrap();
        assert!(!found.more);
        found.changes.iter().map(|change| change.revision.to_string()).collect()
    };
    for copy in [&home, &target] {
        assert_eq!(after(copy, "1.2"), ["1.3", "1.4", "4.5", "4.6"]);
        assert_eq!(after(copy, "1.4"), ["4.5", "4.6"]);
        assert_eq!(after(copy, "4.5"), ["4.6"]);
        assert_eq!(after(copy, "4.6"), [""; 0]);
    }
    // A copy names the revision of its last change, and not its epoch of now.
    let (_, unchanged) = moved();
    assert_eq!(unchanged.reading().resolve(None).unwrap(), revision("1.4"));
}

#[test]
fn condition_with_old_revision_is_compared_at_new_home() {
    let (_, mut target) = moved();
    let at = |text: &str| Condition::modified_at(revision(text));
    let stale = target.apply(AHEAD, put_if("long", at("1.1")));
    assert!(
        matches!(stale, ApplyResult::ConditionFailed { current, .. } if current == revision("1.2")),
        "{stale:?}"
    );
    assert_eq!(
        written(target.apply(AHEAD, put_if("long", at("1.2")))).revision,
        revision("4.5")
    );
    let again = target.apply(AHEAD, put_if("long", at("1.2")));
    assert!(matches!(again, ApplyResult::ConditionFailed { current, .. } if current == revision("4.5")));
}

#[test]
fn session_token_holds_whether_or_not_view_knows_move() {
    let (home, mut target) = moved();
    target.apply(AHEAD, put("a"));
    let decide = |of: &Group, token: &str, knows_move| {
        let record = of.record();
        let replica = ReplicaState {
            revision: record.live.revision,
            lineage: &record.lineage,
            staleness: None,
        };
        decide(
            FreshnessLevel::Session(revision(token)),
            None,
            &in_directory(knows_move),
            replica,
        )
    };
    let wait = |token: &str| ReadDecision::WaitFor(revision(token));
    for knows_move in [false, true] {
        assert_eq!(decide(&target, "1.4", knows_move), ReadDecision::Serve);
        assert_eq!(decide(&target, "4.5", knows_move), ReadDecision::Serve);
        assert_eq!(decide(&home, "1.4", knows_move), ReadDecision::Serve);
        assert_eq!(decide(&home, "4.5", knows_move), wait("4.5"), "never forked");
    }
}

#[test]
fn range_deletion_goes_on_at_new_home_under_its_key() {
    let keys = 2 * RANGE_KEYS_MAX as u64;
    let key = IdempotencyKey {
        client: ClientId(9),
        sequence: 1,
        first_sent: TenantTime(0),
    };
    let range = DeleteRange::new(TENANT, Some(key), "r".into(), Some("s".into()));
    let step = |group: &mut Group, range: &DeleteRange| -> DeleteRangeResult {
        let result = group.apply(AHEAD, range.encode());
        let ApplyResult::DeleteRange(step) = result else {
            panic!("{result:?}")
        };
        step
    };
    let mut home = Group::owner();
    for number in 0..keys {
        home.apply(1_000, put(format!("r{number:05}")));
    }
    let mut first = None;
    let (_, mut target) = super::ownership_moves_test::moved_by(home, |home| {
        first = Some(step(home, &range));
    });
    let first = first.unwrap();
    let mut deletion = RangeDeletion::start(range.clone(), first.clone());
    assert_eq!(
        (deletion.keys(), deletion.is_complete()),
        (RANGE_KEYS_MAX as u64, false)
    );

    // Another caller writes a key of the range at the new home, before and behind what was deleted.
    for again in ["r00000", "r01000"] {
        target.apply(AHEAD, put(again));
    }
    let repeat = step(&mut target, &range);
    assert_eq!(
        (repeat.repeated, repeat.at.revision),
        (true, first.at.revision),
        "it was begun at the old home"
    );
    deletion = RangeDeletion::start(range, repeat);
    while let Some(next) = deletion.next() {
        deletion.add(step(&mut target, &next));
    }
    let left = |key: &'static str| target.reading().get(key.as_bytes(), None).unwrap().is_some();
    assert!(left("r00000") && left("r01000"), "what was written since stays");
    assert_eq!(deletion.keys(), keys - RANGE_KEYS_MAX as u64 - 1);
    assert_eq!(deletion.revision(), first.at.revision);
    assert!(deletion.revision() < Revision::new(epoch(4), Sequence::ZERO));
}
