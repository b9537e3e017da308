//! Data that passes validation can be applied, and data that cannot be applied does not pass.

use bytes::Bytes;
use proptest::prelude::*;
use stead_types::{ClientId, TenantTime};

use super::*;
use crate::{
    rows::{
        chain::VersionChain,
        change::{Cause, Value},
    },
    shard::{command::Command, idempotency_window::IdempotencyRecord},
};

fn at(text: &str) -> Revision {
    text.parse().unwrap()
}

/// An effect of a change.
fn effect(revision: &str, effect: u16, more: bool) -> Change {
    let revision = at(revision);
    Change {
        revision,
        effect,
        more,
        cause: Cause::Write,
        time: TenantTime(1),
        previous: None,
        chain: VersionChain::default(),
        outcome: None,
        operation: None,
        origin: None,
        key: Bytes::from_static(b"k"),
        value: Some(Value {
            create: revision,
            version: 1,
            expires: None,
            bytes: Bytes::from_static(b"v"),
        }),
    }
}

fn check(changes: &[Change], after: Option<&str>) -> Result<Option<Revision>, InvalidFeedData> {
    check_changes(changes, Epoch::new(2).unwrap(), after.map(at))
}

#[test]
fn contiguous_changes_pass() {
    let changes = [
        effect("1.4", 0, false),
        effect("1.5", 0, true),
        effect("1.5", 1, false),
        effect("2.6", 0, false),
    ];
    assert_eq!(check(&changes, None), Ok(Some(at("2.6"))));
    assert_eq!(check(&changes, Some("1.3")), Ok(Some(at("2.6"))));
    assert_eq!(check(&[], Some("1.3")), Ok(Some(at("1.3"))));
}

#[test]
fn gap_and_step_back_are_rejected() {
    let not_contiguous = |after, found| Err(InvalidFeedData::NotContiguous { after, found });
    let one = [effect("1.5", 0, false)];
    assert_eq!(check(&one, Some("1.3")), not_contiguous(at("1.3"), at("1.5")));
    for after in ["1.5", "1.6"] {
        assert_eq!(
            check(&one, Some(after)),
            Ok(Some(at("1.5"))),
            "the log has it, and ignores it"
        );
    }
    let twice = [effect("1.5", 0, false), effect("1.5", 0, false)];
    assert_eq!(check(&twice, None), not_contiguous(at("1.5"), at("1.5")));
    let lower = [effect("2.5", 0, false), effect("1.6", 0, false)];
    assert_eq!(check(&lower, None), not_contiguous(at("2.5"), at("1.6")));
    let later = [effect("3.5", 0, false)];
    assert_eq!(
        check(&later, None),
        Err(InvalidFeedData::OtherSession),
        "of an epoch above the session's"
    );
}

#[test]
fn change_with_missing_effects_is_rejected() {
    let refused = |changes: &[Change]| {
        let Err(InvalidFeedData::Change { what, .. }) = check(changes, None) else {
            panic!("{changes:?}")
        };
        what
    };
    assert_eq!(
        refused(&[effect("1.5", 0, true)]),
        "effects that are missing at its end"
    );
    let first_missing = [effect("1.5", 1, false)];
    assert_eq!(refused(&first_missing), "effects that are missing or out of order");
    let torn = [effect("1.5", 0, true), effect("1.6", 0, false)];
    assert_eq!(refused(&torn), "effects that are missing at its end");
    let last = EFFECTS_MAX as u16;
    let many: Vec<_> = (0..=last).map(|number| effect("1.5", number, number < last)).collect();
    assert_eq!(refused(&many), "more effects than a change can have");
    assert!(
        check(
            &[&many[..EFFECTS_MAX - 1], &[effect("1.5", last - 1, false)]].concat(),
            None
        )
        .is_ok()
    );
}

#[test]
fn keys_and_values_beyond_limits_are_rejected() {
    let with = |key: usize, value: usize| {
        let mut change = effect("1.5", 0, false);
        change.key = vec![7; key].into();
        change.value.as_mut().unwrap().bytes = vec![7; value].into();
        check(&[change], None).is_ok()
    };
    assert!(with(1, 0) && with(KEY_LEN_MAX, VALUE_LEN_MAX));
    assert!(!with(0, 0) && !with(KEY_LEN_MAX + 1, 0) && !with(1, VALUE_LEN_MAX + 1));
    let mut change = effect("1.5", 0, false);
    change.value.as_mut().unwrap().version = 6;
    assert!(
        check(&[change.clone()], None).is_err(),
        "five changes make no sixth version"
    );
    change.value.as_mut().unwrap().version = u64::MAX;
    assert!(check(&[change], None).is_err());
}

fn part(after: u64, up_to: u64, changes: Vec<Change>) -> ChunkContent {
    let sequence = |number| Sequence::new(number).unwrap();
    ChunkContent::Changes {
        after: sequence(after),
        up_to: sequence(up_to),
        changes,
    }
}

fn is_ok(part: &ChunkContent) -> bool {
    check_chunk(part, Epoch::new(2).unwrap(), at("1.9"), at("2.12")).is_ok()
}

#[test]
fn chunk_of_changes_must_keep_range_and_order() {
    let some = || vec![effect("1.3", 1, false), effect("1.5", 0, true)];
    assert!(is_ok(&part(2, 9, some())), "effects that were replaced are not in it");
    assert!(!is_ok(&part(3, 9, some())), "behind its beginning");
    assert!(!is_ok(&part(2, 4, some())), "up to its end");
    assert!(!is_ok(&part(2, 10, some())), "up to where the seed began");
    assert!(!is_ok(&part(9, 2, Vec::new())), "a range has a direction");
    assert!(!is_ok(&part(2, 9, some().into_iter().rev().collect())));
    assert!(!is_ok(&part(2, 9, [some(), some()].concat())));
    let deleted = Change {
        value: None,
        ..effect("1.4", 0, false)
    };
    assert!(!is_ok(&part(2, 9, vec![deleted])), "only what is live is seeded");
}

#[test]
fn chunk_of_clients_must_keep_range_and_order() {
    let window = |client, revisions: &[&str]| {
        let outcome = |revision: &&str| IdempotencyRecord {
            revision: at(revision),
            ..IdempotencyRecord::default()
        };
        WindowPart {
            client: ClientId(client),
            edge: TenantTime(0),
            oldest: at("1.2"),
            outcomes: revisions.iter().map(outcome).collect(),
        }
    };
    let part = |ids: &[u128], revisions: &[&str]| ChunkContent::Clients {
        after: ClientsLoaded {
            whole: Some(ClientId(3)),
            part: Some((ClientId(5), at("1.4"))),
        },
        up_to: Some(ClientId(9)),
        time: TenantTime(1),
        edge: TenantTime(0),
        windows: ids.iter().map(|id| window(*id, revisions)).collect(),
    };
    assert!(is_ok(&part(&[4, 9], &["1.2", "2.12"])));
    assert!(is_ok(&part(&[4, 10], &["1.2"])), "the last may be a part of the next");
    assert!(is_ok(&part(&[5, 6], &["1.5"])), "the first goes on where it is loaded");
    assert!(is_ok(&part(&[4], &[])));
    for ids in [&[3_u128][..], &[10, 11], &[5, 4], &[4, 4], &[5]] {
        assert!(!is_ok(&part(ids, &["1.2"])), "{ids:?}");
    }
    for revisions in [&["1.2", "1.2"][..], &["2.2", "1.9"], &["2.13"], &["0.0"], &["1.1"]] {
        assert!(!is_ok(&part(&[4], revisions)), "{revisions:?}");
    }
    let backwards = |up_to| ChunkContent::Clients {
        after: ClientsLoaded {
            whole: Some(ClientId(3)),
            part: None,
        },
        up_to,
        time: TenantTime(1),
        edge: TenantTime(0),
        windows: Vec::new(),
    };
    assert!(is_ok(&backwards(Some(ClientId(3)))));
    assert!(!is_ok(&backwards(Some(ClientId(2)))) && !is_ok(&backwards(None)));
}

prop_compose! {
    fn effects()(
        sequence in 0..9_u64, number in 0..3_u16, more: bool, live: bool,
        version in prop_oneof![0..4_u64, Just(u64::MAX)], epoch in 0..4_u32, key in 0..3_usize,
    ) -> Change {
        let revision = Revision::new(Epoch::new(epoch).unwrap(), Sequence::new(sequence).unwrap());
        let mut change = effect("1.1", number, more);
        (change.revision, change.key) = (revision, vec![7; key].into());
        change.value = live.then(|| Value { version, create: revision, ..change.value.unwrap() });
        change
    }
}

proptest! {
    /// Invariant 1.
    #[test]
    fn valid_changes_are_gapless(changes in prop::collection::vec(effects(), 0..6), after in prop::option::of(0..9_u64)) {
        let after = after.map(|number| Revision::new(Epoch::FIRST, Sequence::new(number).unwrap()));
        if let Ok(last) = check_changes(&changes, Epoch::new(2).unwrap(), after) {
            let firsts: Vec<_> = changes.iter().filter(|change| change.effect == 0).map(|change| change.revision).collect();
            prop_assert_eq!(firsts.last().copied().or(after), last);
            if let (Some(first), Some(after)) = (firsts.first(), after) {
                prop_assert!(first.sequence().get() <= after.sequence().get() + 1);
            }
            for pair in firsts.windows(2) {
                prop_assert_eq!(pair[0].sequence().next(), Some(pair[1].sequence()));
            }
        }
    }

    #[test]
    fn decoders_never_panic_on_arbitrary_bytes(kind: u8, bytes in prop::collection::vec(any::<u8>(), 0..120)) {
        drop(Command::decode(kind, bytes.into()));
    }
}
