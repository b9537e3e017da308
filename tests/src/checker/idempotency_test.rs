use proptest::prelude::*;

use super::*;
use crate::checker::{generate, script};

fn violations(script: &str) -> Vec<Violation> {
    check(&script::history(script))
}

#[test]
fn value_at_two_revisions_is_found() {
    let found = violations("s0 1-2 put a x -> @1\n s1 3-4 get a -> x@2v2c1 @2");
    assert!(
        found.contains(&Violation::DuplicateApply { write: 0, seen: 1 }),
        "{found:?}"
    );
    let found = violations("s0 1- put a x\n s1 2-3 get a -> x@1 @1\n s1 4-5 get a -> x@2v2c1 @2");
    assert!(
        found.contains(&Violation::DuplicateApply { write: 0, seen: 2 }),
        "{found:?}"
    );
}

#[test]
fn version_counting_a_write_twice_is_found() {
    let writes = "s0 1-2 put a x -> @1\n s0 3-4 put a y -> @3\n";
    assert_eq!(violations(&format!("{writes} s1 5-6 get a -> y@3v2c1 @3")), []);
    for wrong in ["y@3v3c1", "y@3v1c1", "y@3v2c3"] {
        let found = violations(&format!("{writes} s1 5-6 get a -> {wrong} @3"));
        assert_eq!(
            found,
            [Violation::WrongVersion {
                read: 2,
                key: "a".into()
            }],
            "{wrong}"
        );
    }
}

#[test]
fn open_write_may_count_once_in_version() {
    let writes = "s0 1-2 put a x -> @1\n s2 1- put a z\n s0 3-4 put a y -> @3\n";
    for right in ["y@3v3c1", "y@3v2c1"] {
        assert_eq!(
            violations(&format!("{writes} s1 5-6 get a -> {right} @3")),
            [],
            "{right}"
        );
    }
    let found = violations(&format!("{writes} s1 5-6 get a -> y@3v4c1 @3"));
    assert_eq!(
        found,
        [Violation::WrongVersion {
            read: 3,
            key: "a".into()
        }]
    );
}

#[test]
fn version_restarts_after_delete() {
    let writes = "s0 1-2 put a x -> @1\n s0 3-4 delete a -> @2\n s0 5-6 put a y -> @3\n";
    assert_eq!(violations(&format!("{writes} s1 7-8 get a -> y@3v1c3 @3")), []);
    let found = violations(&format!("{writes} s1 7-8 get a -> y@3v2c1 @3"));
    assert_eq!(
        found,
        [Violation::WrongVersion {
            read: 3,
            key: "a".into()
        }]
    );
}

proptest! {
    #[test]
    fn correct_history_has_no_violations(steps in generate::steps(), with_deletes: bool) {
        prop_assert_eq!(check(&generate::history(&steps, with_deletes)), vec![]);
    }

    #[test]
    fn value_at_two_revisions_in_random_history_is_found(steps in generate::steps(), mutations in prop::collection::vec(generate::mutation(), 1..4)) {
        let correct = generate::history(&steps, true);
        let history = mutations.into_iter().fold(correct, |history, mutation| generate::mutate(&history, mutation));
        let mut seen = std::collections::HashMap::new();
        let items = history.operations().iter().flat_map(|operation| &operation.response).flat_map(|response| &response.items);
        let once = items.clone().all(|item| *seen.entry((&item.key, &item.value)).or_insert(item.modified) == item.modified);
        prop_assert!(once || !check(&history).is_empty(), "{:#?}", history);
    }
}
