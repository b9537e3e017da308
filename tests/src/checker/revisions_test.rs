use proptest::prelude::*;

use super::*;
use crate::checker::{generate, linearizability, script};

fn violations(script: &str) -> Vec<Violation> {
    check(&script::history(script))
}

#[test]
fn duplicate_revision_is_found() {
    let found = violations("s0 1-2 put a x -> @1\n s0 3-4 put b y -> @1");
    assert!(
        found.contains(&Violation::DuplicateRevision { one: 0, other: 1 }),
        "{found:?}"
    );
}

#[test]
fn change_revision_below_earlier_response_is_found() {
    let found = violations("s0 1-2 put a x -> @2\n s0 3-4 put b y -> @1");
    assert_eq!(found, [Violation::RevisionRegression { earlier: 0, later: 1 }]);
}

#[test]
fn linearizable_read_at_old_revision_is_found() {
    let found = violations("s0 1-2 put a x -> @1\n s0 3-4 put a y -> @2\n s1 5-6 get a -> x@1 @1");
    assert_eq!(found, [Violation::RevisionRegression { earlier: 1, later: 2 }]);
    assert_eq!(
        violations("s0 1-2 put a x -> @1\n s0 3-4 put a y -> @2\n s1 5-6 get/local a -> x@1 @1"),
        []
    );
}

#[test]
fn read_not_matching_its_revision_is_found() {
    let writes = "s0 1-2 put a x -> @1\n s0 3-4 put a y -> @2\n s0 5-6 delete a -> @3";
    for wrong in ["x@1 @2", "y@2 @1", "y@2 @3", "@2", "y@1 @2"] {
        let found = violations(&format!("{writes}\n s1 7-8 get/local a -> {wrong}"));
        assert!(
            found.contains(&Violation::WrongSnapshot {
                read: 3,
                key: "a".into()
            }),
            "{wrong}: {found:?}"
        );
    }
    for right in ["x@1 @1", "y@2 @2", "@3", "@0"] {
        assert_eq!(
            violations(&format!("{writes}\n s1 7-8 get/local a -> {right}")),
            [],
            "{right}"
        );
    }
}

#[test]
fn scan_mixing_revisions_is_found() {
    let writes = "s0 1-2 put a1 x -> @1\n s0 3-4 put a2 y -> @2\n s0 5-6 put a1 z -> @3";
    assert_eq!(
        violations(&format!("{writes}\n s1 7-8 scan/local a -> a1=x@1 a2=y@2 @2")),
        []
    );
    let found = violations(&format!("{writes}\n s1 7-8 scan/local a -> a1=z@3 a2=y@2 @2"));
    assert_eq!(
        found,
        [Violation::WrongSnapshot {
            read: 3,
            key: "a1".into()
        }]
    );
    let found = violations(&format!("{writes}\n s1 7-8 scan/local a -> a2=y@2 @2"));
    assert_eq!(
        found,
        [Violation::WrongSnapshot {
            read: 3,
            key: "a1".into()
        }]
    );
}

#[test]
fn open_write_takes_revision_it_is_read_at() {
    let script = "s0 1- put a x\n s0 2-3 put a y -> @2\n s1 4-5 get/local a -> x@1 @1";
    assert_eq!(violations(script), []);
    let found = violations("s0 2-3 put a y -> @2\n s0 4- put a x\n s1 5-6 get/local a -> x@1 @1");
    assert_eq!(found, [Violation::RevisionRegression { earlier: 0, later: 1 }]);
}

#[test]
fn open_delete_explains_missing_key() {
    assert_eq!(
        violations("s0 1-2 put a x -> @1\n s0 3- delete a\n s1 4-5 get a -> @2"),
        []
    );
    let found = violations("s0 1-2 put a x -> @1\n s1 4-5 get a -> @2\n s0 6- delete a");
    assert_eq!(
        found,
        [Violation::WrongSnapshot {
            read: 1,
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
    fn history_with_valid_revisions_is_linearizable(steps in generate::steps(), mutations in prop::collection::vec(generate::mutation(), 1..4)) {
        let correct = generate::history(&steps, false);
        let history = mutations.into_iter().fold(correct, |history, mutation| generate::mutate(&history, mutation));
        if check(&history).is_empty() {
            prop_assert_eq!(linearizability::check(&history), vec![], "{:#?}", history);
        }
    }
}
