use proptest::prelude::*;

use super::*;
use crate::checker::{generate, script};

fn violations(script: &str) -> Vec<Violation> {
    check(&script::history(script))
}

#[test]
fn overlapping_operations_may_take_any_order() {
    let correct = "
        s0 1-9 put a x -> @1
        s1 2-8 put a y -> @2
        s2 3-4 get a -> y@2 @2
        s2 5-6 get a -> x@1 @1
        s3 10-11 get a -> x@1 @2";
    assert_eq!(violations(correct), []);
}

#[test]
fn open_write_may_happen_late_or_never() {
    assert_eq!(
        violations("s0 1- put a x\n s1 2-3 get a -> @0\n s1 90-91 get a -> x@1 @1"),
        []
    );
    assert_eq!(violations("s0 1- put a x\n s1 90-91 get a -> @0"), []);
}

#[test]
fn stale_linearizable_read_is_found() {
    let found = violations("s0 1-2 put a x -> @1\n s0 3-4 put a y -> @2\n s1 5-6 get a -> x@1 @1");
    assert!(
        matches!(
            found[..],
            [Violation::OrderConflict {
                one: Some(0),
                other: Some(1),
                ..
            }]
        ),
        "{found:?}"
    );
}

#[test]
fn lost_write_is_found() {
    let found = violations("s0 1-2 put a x -> @1\n s1 5-6 get a -> @0");
    assert!(
        matches!(
            found[..],
            [Violation::OrderConflict {
                one: None,
                other: Some(0),
                ..
            }]
        ),
        "{found:?}"
    );
}

#[test]
fn non_monotonic_linearizable_read_is_found() {
    let found = violations(
        "s0 1-20 put a x -> @1\n s0 1-20 put a y -> @2
         s1 3-4 get a -> x@1 @1\n s1 5-6 get a -> y@2 @2\n s1 7-8 get a -> x@1 @2",
    );
    assert!(matches!(found[..], [Violation::OrderConflict { .. }]), "{found:?}");
}

#[test]
fn read_of_unwritten_value_is_found() {
    let found = violations("s0 1-2 put a x -> @1\n s0 3-4 put b z -> @2\n s1 5-6 get a -> z@2 @2");
    assert!(
        matches!(found[..], [Violation::GarbageRead { read: 2, .. }]),
        "{found:?}"
    );
}

#[test]
fn read_before_its_write_is_found() {
    let found = violations("s1 1-2 get a -> x@1 @1\n s0 3-4 put a x -> @1");
    assert!(
        matches!(found[..], [Violation::FutureRead { read: 0, write: 1 }]),
        "{found:?}"
    );
}

#[test]
fn scan_missing_a_key_is_found() {
    let found = violations("s0 1-2 put a1 x -> @1\n s0 3-4 put a2 y -> @2\n s1 5-6 scan a -> a2=y@2 @2");
    assert!(
        matches!(
            found[..],
            [Violation::OrderConflict {
                one: None,
                other: Some(0),
                ..
            }]
        ),
        "{found:?}"
    );
}

#[test]
fn deleted_keys_are_checked_by_search() {
    let script = "s0 1-2 put a x -> @1\n s0 3-4 delete a -> @2\n s1 5-6 get a -> ";
    assert_eq!(violations(&format!("{script} @2")), []);
    let found = violations(&format!("{script} x@1 @1"));
    assert!(matches!(found[..], [Violation::NotLinearizable { .. }]), "{found:?}");
    let found = violations("s0 1-2 put a x -> @1\n s0 3-4 delete a -> none @1");
    assert!(matches!(found[..], [Violation::OrderConflict { .. }]), "{found:?}");
}

#[test]
fn stale_follower_reads_are_not_linearizability_violations() {
    assert_eq!(
        violations("s0 1-2 put a x -> @1\n s1 3-4 get/session a -> @0\n s1 5-6 get/local a -> @0"),
        []
    );
}

#[test]
fn long_history_is_checked_in_bounded_time() {
    let put = |n: u64| format!("s0 {}-{} put a {n} -> @{}", 10 * n, 10 * n + 8, n + 1);
    let get = |n: u64| format!("s1 {}-{} get a -> {n}@{n1} @{n1}", 10 * n + 9, 10 * n + 12, n1 = n + 1);
    let lines: Vec<String> = (0..20_000).flat_map(|n| [put(n), get(n)]).collect();
    assert_eq!(violations(&lines.join("\n")), []);
}

/// Tries orders for every register.
fn is_linearizable_by_search(history: &History) -> bool {
    let registers = history.registers();
    registers.garbage_reads.is_empty()
        && registers
            .by_key
            .iter()
            .all(|(key, events)| search::check_key(key, events).is_none())
}

proptest! {
    #[test]
    fn correct_history_has_no_violations(steps in generate::steps(), with_deletes: bool) {
        let history = generate::history(&steps, with_deletes);
        prop_assert_eq!(check(&history), vec![]);
        prop_assert!(is_linearizable_by_search(&history));
    }

    #[test]
    fn zones_and_search_agree_on_random_histories(steps in generate::steps(), mutations in prop::collection::vec(generate::mutation(), 1..4)) {
        let correct = generate::history(&steps, false);
        let history = mutations.into_iter().fold(correct, |history, mutation| generate::mutate(&history, mutation));
        prop_assert_eq!(check(&history).is_empty(), is_linearizable_by_search(&history), "{:#?}", history);
    }
}

#[test]
fn mutations_produce_incorrect_histories() {
    use proptest::{strategy::ValueTree, test_runner::TestRunner};
    let mut runner = TestRunner::deterministic();
    let strategy = (generate::steps(), generate::mutation());
    let wrong = (0..1_000).filter(|_| {
        let (steps, mutation) = strategy.new_tree(&mut runner).unwrap().current();
        !is_linearizable_by_search(&generate::mutate(&generate::history(&steps, false), mutation))
    });
    let wrong = wrong.count();
    assert!(wrong > 50, "only {wrong} of 1000 mutations matter");
}
