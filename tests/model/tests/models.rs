//! The models of docs/protocol.md in bounds that are small enough for every run; `tests/model.sh` explores the rest.

use std::time::Duration;

use stead_model::{
    catalogue::{configurations, coverage, mutants},
    explore::Limits,
};

/// More than enough for each: a run that reaches it has not been as small as it should be.
const LIMITS: Limits = Limits {
    time: Duration::from_secs(120),
    states: usize::MAX,
    threads: 1,
};

#[test]
fn no_property_fails_in_short_configurations() {
    for case in configurations().iter().filter(|case| case.is_short) {
        let outcome = (case.run)(LIMITS, false);
        assert!(outcome.is_exhausted, "{}: {:#?}", case.name, outcome.violated);
        assert!(
            outcome.missed.is_empty(),
            "{} does not reach {:?}",
            case.name,
            outcome.missed
        );
    }
}

#[test]
fn named_property_catches_each_short_mutant() {
    for case in mutants().iter().filter(|case| case.is_short) {
        let outcome = (case.run)(LIMITS, false);
        assert!(
            !outcome.violated.is_empty(),
            "{} is not caught by {:?}",
            case.name,
            case.caught_by
        );
    }
}

#[test]
fn short_configurations_reach_their_corners() {
    for case in coverage().iter().filter(|case| case.is_short) {
        let outcome = (case.run)(LIMITS, false);
        assert!(
            outcome.missed.is_empty(),
            "{} does not reach {:?}",
            case.name,
            outcome.missed
        );
    }
}
