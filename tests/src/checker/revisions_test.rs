use proptest::prelude::*;

use super::*;
use crate::checker::{generate, linearizability, script};

fn violations(script: &str) -> Vec<Violation> {
    check(&script::history(script))
}

#[test]
fn one_revision_for_two_changes_is_found() {
    let found = violations("s0 1-2 put a x -> @1\n s0 3-4 put b y -> @1");
    assert!(
        found.contains(&Violation::RevisionRepeated { one: 0, other: 1 }),
        "{found:?}"
    );
}

#[test]
fn a_change_below_one_that_had_returned_is_found() {
    let found = violations("s0 1-2 put a x -> @2\n s0 3-4 put b y -> @1");
    assert_eq!(found, [Violation::RevisionBackward { earlier: 0, later: 1 }]);
}

#[test]
fn a_linearizable_read_at_an_old_revision_is_found() {
    let found = violations("s0 1-2 put a x -> @1\n s0 3-4 put a y -> @2\n s1 5-6 get a -> x@1 @1");
    assert_eq!(found, [Violation::RevisionBackward { earlier: 1, later: 2 }]);
    assert_eq!(
        violations("s0 1-2 put a x -> @1\n s0 3-4 put a y -> @2\n s1 5-6 get/local a -> x@1 @1"),
        []
    );
}

#[test]
fn a_read_that_does_not_show_its_revision_is_found() {
    let writes = "s0 1-2 put a x -> @1\n s0 3-4 put a y -> @2\n s0 5-6 delete a -> @3";
    for wrong in ["x@1 @2", "y@2 @1", "y@2 @3", "@2", "y@1 @2"] {
        let found = violations(&format!("{writes}\n s1 7-8 get/local a -> {wrong}"));
        assert!(
            found.contains(&Violation::WrongState {
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
fn a_scan_shows_one_revision_of_all_keys() {
    let writes = "s0 1-2 put a1 x -> @1\n s0 3-4 put a2 y -> @2\n s0 5-6 put a1 z -> @3";
    assert_eq!(
        violations(&format!("{writes}\n s1 7-8 scan/local a -> a1=x@1 a2=y@2 @2")),
        []
    );
    let found = violations(&format!("{writes}\n s1 7-8 scan/local a -> a1=z@3 a2=y@2 @2"));
    assert_eq!(
        found,
        [Violation::WrongState {
            read: 3,
            key: "a1".into()
        }]
    );
    let found = violations(&format!("{writes}\n s1 7-8 scan/local a -> a2=y@2 @2"));
    assert_eq!(
        found,
        [Violation::WrongState {
            read: 3,
            key: "a1".into()
        }]
    );
}

#[test]
fn an_open_write_has_the_revision_with_which_it_is_seen() {
    let script = "s0 1- put a x\n s0 2-3 put a y -> @2\n s1 4-5 get/local a -> x@1 @1";
    assert_eq!(violations(script), []);
    let found = violations("s0 2-3 put a y -> @2\n s0 4- put a x\n s1 5-6 get/local a -> x@1 @1");
    assert_eq!(found, [Violation::RevisionBackward { earlier: 0, later: 1 }]);
}

#[test]
fn an_open_delete_explains_an_absence() {
    assert_eq!(
        violations("s0 1-2 put a x -> @1\n s0 3- delete a\n s1 4-5 get a -> @2"),
        []
    );
    let found = violations("s0 1-2 put a x -> @1\n s1 4-5 get a -> @2\n s0 6- delete a");
    assert_eq!(
        found,
        [Violation::WrongState {
            read: 1,
            key: "a".into()
        }]
    );
}

proptest! {
    #[test]
    fn a_correct_store_passes(steps in generate::steps(), with_deletes: bool) {
        prop_assert_eq!(check(&generate::history(&steps, with_deletes)), vec![]);
    }

    #[test]
    fn what_passes_is_linearizable(steps in generate::steps(), mutations in prop::collection::vec(generate::mutation(), 1..4)) {
        let correct = generate::history(&steps, false);
        let history = mutations.into_iter().fold(correct, |history, mutation| generate::mutate(&history, mutation));
        if check(&history).is_empty() {
            prop_assert_eq!(linearizability::check(&history), vec![], "{:#?}", history);
        }
    }
}
