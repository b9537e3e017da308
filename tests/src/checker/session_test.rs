use proptest::prelude::*;

use super::*;
use crate::checker::{generate, script};

fn guarantees(script: &str) -> Vec<Guarantee> {
    let violations = check(&script::history(script));
    let guarantee = |violation: &Violation| {
        let Violation::SessionGuarantee { guarantee, .. } = violation else {
            panic!("{violation:?}")
        };
        *guarantee
    };
    violations.iter().map(guarantee).collect()
}

#[test]
fn session_read_missing_own_write_is_found() {
    assert_eq!(
        guarantees("s0 1-2 put a x -> @5\n s0 3-4 get/session a -> @4"),
        [Guarantee::ReadYourWrites]
    );
    assert_eq!(guarantees("s0 1-2 put a x -> @5\n s1 3-4 get/session a -> @4"), []);
    assert_eq!(guarantees("s0 1-2 put a x -> @5\n s0 3-4 get/session a -> x@5 @5"), []);
}

#[test]
fn non_monotonic_session_read_is_found() {
    let script = "s0 1-2 get/local a -> @5\n s0 3-4 get/session b -> @4";
    assert_eq!(guarantees(script), [Guarantee::MonotonicReads]);
}

#[test]
fn write_below_session_reads_is_found() {
    assert_eq!(
        guarantees("s0 1-2 get/local a -> @5\n s0 3-4 put a x -> @5"),
        [Guarantee::WritesFollowReads]
    );
    assert_eq!(guarantees("s0 1-2 get/local a -> @5\n s0 3-4 delete a -> none @5"), []);
}

#[test]
fn local_reads_and_concurrent_calls_carry_no_guarantee() {
    assert_eq!(guarantees("s0 1-2 put a x -> @5\n s0 3-4 get/local a -> @4"), []);
    assert_eq!(guarantees("s0 1-4 put a x -> @5\n s0 3-6 get/session a -> @4"), []);
}

#[test]
fn session_token_keeps_highest_revision() {
    let script = "s0 1-2 put a x -> @5\n s0 3-4 get/local a -> @2\n s0 5-6 get/session a -> @3";
    assert_eq!(guarantees(script), [Guarantee::ReadYourWrites]);
}

/// Compares every pair.
fn holds_for_every_pair(history: &History) -> bool {
    let operations = history.operations();
    operations.iter().all(|later| {
        let mut earlier_ones = operations
            .iter()
            .filter(|earlier| earlier.session == later.session && earlier.is_before(later));
        earlier_ones.all(
            |earlier| match (revision(earlier), revision(later), later.call.level()) {
                (Some(seen), Some(answered), None) => answered > seen || (answered == seen && !is_change(later)),
                (Some(seen), Some(answered), Some(Level::Linearizable | Level::Session)) => answered >= seen,
                (_, _, Some(Level::Bounded | Level::Local)) | (None, _, _) | (_, None, _) => true,
            },
        )
    })
}

proptest! {
    #[test]
    fn correct_history_has_no_violations(steps in generate::steps(), with_deletes: bool) {
        prop_assert_eq!(check(&generate::history(&steps, with_deletes)), vec![]);
    }

    #[test]
    fn session_check_agrees_with_pairwise_comparison(steps in generate::steps(), mutations in prop::collection::vec(generate::mutation(), 1..4)) {
        let correct = generate::history(&steps, true);
        let history = mutations.into_iter().fold(correct, |history, mutation| generate::mutate(&history, mutation));
        prop_assert_eq!(check(&history).is_empty(), holds_for_every_pair(&history), "{:#?}", history);
    }
}
