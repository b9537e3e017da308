//! Catalogue of explorations: configurations of each model, and mutants with the property that must catch each.

use crate::{
    attach::{self, Attaching},
    explore::{Limits, Outcome, cover, explore, explore_described},
    leases::{self, Leases},
    ownership::{Ownership, catalogue::CONFIGURATIONS, coverage::Corners, mutations::MUTATIONS},
    replicas::{self, Operation, Replicas, Request},
};

/// One exploration.
pub struct Case {
    /// Its name.
    pub name: String,
    /// The property that must fail, for a mutant.
    pub caught_by: Option<&'static str>,
    /// Whether it is small enough for every run of the tests.
    pub is_short: bool,
    /// Runs it; a readable run keeps the names of groups from step to step.
    pub run: Box<dyn Fn(Limits, bool) -> Outcome + Send + Sync>,
}

impl Case {
    fn new(name: String, is_short: bool, run: impl Fn(Limits, bool) -> Outcome + Send + Sync + 'static) -> Self {
        Self {
            name,
            caught_by: None,
            is_short,
            run: Box::new(run),
        }
    }

    fn caught_by(self, property: &'static str) -> Self {
        Self {
            caught_by: Some(property),
            ..self
        }
    }
}

/// Returns the configurations, in which no property may fail.
pub fn configurations() -> Vec<Case> {
    let ownership = CONFIGURATIONS.iter().map(|found| {
        Case::new(
            format!("ownership {}", found.name),
            found.is_short,
            move |limits, is_readable| {
                let mut model = Ownership::new(found.bounds);
                model.is_symmetric = !is_readable;
                explore_described(model.clone(), limits, |state| model.describe(state))
            },
        )
    });
    let leases = LEASES.iter().map(|(name, is_short, bounds)| {
        Case::new(format!("leases {name}"), *is_short, move |limits, _| {
            explore(lease(*bounds, None, ""), limits)
        })
    });
    let attach = ATTACH.iter().map(|(name, is_short, bounds)| {
        Case::new(format!("attach {name}"), *is_short, move |limits, _| {
            explore(attaching(*bounds, None, ""), limits)
        })
    });
    let replicas = REPLICAS.iter().map(|(name, is_short, bounds)| {
        Case::new(format!("replicas {name}"), *is_short, move |limits, _| {
            explore(replica(*bounds, None, ""), limits)
        })
    });
    ownership.chain(leases).chain(attach).chain(replicas).collect()
}

/// Returns the mutants, each of which a property must catch.
pub fn mutants() -> Vec<Case> {
    let ownership = MUTATIONS.iter().map(|found| {
        let name = format!("ownership {:?}", found.mutant);
        let run = move |limits, is_readable: bool| {
            let mut model = Ownership::new(found.bounds);
            model.mutant = Some(found.mutant);
            model.is_symmetric = !is_readable;
            model.only = found.caught_by;
            explore_described(model.clone(), limits, |state| model.describe(state))
        };
        Case::new(name, found.is_short, run).caught_by(found.caught_by)
    });
    let leases = LEASE_MUTANTS.iter().map(|(mutant, property, bounds)| {
        let run = move |limits, _| explore(lease(*bounds, Some(*mutant), property), limits);
        Case::new(format!("leases {mutant:?}"), true, run).caught_by(property)
    });
    let attach = ATTACH_MUTANTS.iter().map(|(mutant, property)| {
        let run = move |limits, _| explore(attaching(ATTACH[0].2, Some(*mutant), property), limits);
        Case::new(format!("attach {mutant:?}"), true, run).caught_by(property)
    });
    let replicas = REPLICA_MUTANTS.iter().map(|(mutant, property, bounds)| {
        let run = move |limits, _| explore(replica(*bounds, Some(*mutant), property), limits);
        Case::new(format!("replicas {mutant:?}"), true, run).caught_by(property)
    });
    ownership.chain(leases).chain(attach).chain(replicas).collect()
}

/// Returns the explorations that must reach each corner of a model.
pub fn coverage() -> Vec<Case> {
    CONFIGURATIONS
        .iter()
        .filter(|found| ["move", "move-promotion", "promotions-2"].contains(&found.name))
        .map(|found| {
            let run = move |limits, _| cover(Corners(Ownership::new(found.bounds), found.name), limits);
            Case::new(format!("corners {}", found.name), found.is_short, run)
        })
        .collect()
}

fn lease(bounds: leases::Bounds, mutant: Option<leases::Mutant>, only: &'static str) -> Leases {
    Leases { bounds, mutant, only }
}

fn attaching(bounds: attach::Bounds, mutant: Option<attach::Mutant>, only: &'static str) -> Attaching {
    Attaching { bounds, mutant, only }
}

fn replica(bounds: replicas::Bounds, mutant: Option<replicas::Mutant>, only: &'static str) -> Replicas {
    Replicas { bounds, mutant, only }
}

const PROMOTION: leases::Bounds = leases::Bounds::PROMOTION;
const LEASES: &[(&str, bool, leases::Bounds)] = &[
    ("promotion", true, PROMOTION),
    (
        "drift",
        true,
        leases::Bounds {
            drifts: true,
            ..PROMOTION
        },
    ),
    (
        "ttl",
        true,
        leases::Bounds {
            ttl: 2,
            lowers_ttl: true,
            ..PROMOTION
        },
    ),
    (
        "attempts",
        false,
        leases::Bounds {
            ttl: 2,
            attempts: 2,
            ..PROMOTION
        },
    ),
    (
        "voters",
        false,
        leases::Bounds {
            voters: 2,
            shortens: true,
            ..PROMOTION
        },
    ),
    (
        "early",
        false,
        leases::Bounds {
            moves: 1,
            counts_early: true,
            ..PROMOTION
        },
    ),
    (
        "move",
        false,
        leases::Bounds {
            moves: 1,
            shortens: true,
            ..PROMOTION
        },
    ),
    (
        "moves-promotions",
        false,
        leases::Bounds {
            groups: 3,
            moves: 1,
            promotions: 2,
            shortens: true,
            ..PROMOTION
        },
    ),
    (
        "early-promotions",
        false,
        leases::Bounds {
            groups: 3,
            moves: 1,
            promotions: 2,
            counts_early: true,
            ..PROMOTION
        },
    ),
    (
        "leader",
        false,
        leases::Bounds {
            shortens: true,
            changes_leader: true,
            ..PROMOTION
        },
    ),
    (
        "recovery",
        false,
        leases::Bounds {
            moves: 1,
            ttl: 2,
            lowers_ttl: true,
            recovers: true,
            ..PROMOTION
        },
    ),
];

const LEASE_MUTANTS: &[(leases::Mutant, &str, leases::Bounds)] = &[
    (leases::Mutant::CountsFromAnswer, "L1", PROMOTION),
    (leases::Mutant::CountsFromLastAttempt, "L1", PROMOTION),
    (
        leases::Mutant::MergesPairs,
        "L1",
        leases::Bounds { ttl: 2, ..PROMOTION },
    ),
    (leases::Mutant::CountsBeforeView, "L1", PROMOTION),
    (leases::Mutant::AnswersOlderVersion, "L1", PROMOTION),
    (
        leases::Mutant::WaitsNewTtl,
        "L1",
        leases::Bounds {
            ttl: 2,
            lowers_ttl: true,
            ..PROMOTION
        },
    ),
    (
        leases::Mutant::WaitsWithoutDrift,
        "L1",
        leases::Bounds {
            drifts: true,
            ..PROMOTION
        },
    ),
    (leases::Mutant::ClockStops, "L1", PROMOTION),
    (
        leases::Mutant::ShortensByHome,
        "M1",
        leases::Bounds {
            moves: 1,
            shortens: true,
            ..PROMOTION
        },
    ),
    (
        leases::Mutant::ShortensByLeaders,
        "L1",
        leases::Bounds {
            voters: 2,
            shortens: true,
            ..PROMOTION
        },
    ),
    (
        leases::Mutant::ForgetsReplacedTargets,
        "L1",
        leases::Bounds {
            moves: 1,
            promotions: 2,
            shortens: true,
            ..PROMOTION
        },
    ),
    (
        leases::Mutant::NotesGrantAtAnswer,
        "L1",
        leases::Bounds {
            shortens: true,
            ..PROMOTION
        },
    ),
    (
        leases::Mutant::NewLeaderKnowsNoGrant,
        "L1",
        leases::Bounds {
            shortens: true,
            changes_leader: true,
            ..PROMOTION
        },
    ),
    (
        leases::Mutant::CarriesHomedOnly,
        "L1",
        leases::Bounds {
            moves: 1,
            counts_early: true,
            ..PROMOTION
        },
    ),
    (
        leases::Mutant::CarriesNoReplaced,
        "L1",
        leases::Bounds {
            moves: 1,
            counts_early: true,
            ..PROMOTION
        },
    ),
    (
        leases::Mutant::IgnoresIncarnation,
        "L1",
        leases::Bounds {
            moves: 1,
            ttl: 2,
            lowers_ttl: true,
            recovers: true,
            ..PROMOTION
        },
    ),
];

const ATTACH: &[(&str, bool, attach::Bounds)] = &[
    (
        "small",
        true,
        attach::Bounds {
            writes: 2,
            others: 1,
            attempts: 2,
            crashes: 1,
            in_flight: 2,
        },
    ),
    (
        "large",
        false,
        attach::Bounds {
            writes: 3,
            others: 1,
            attempts: 3,
            crashes: 1,
            in_flight: 2,
        },
    ),
];

const ATTACH_MUTANTS: &[(attach::Mutant, &str)] = &[
    (attach::Mutant::OffsetCoversAll, "P1"),
    (attach::Mutant::AcknowledgesInTwoSteps, "P1"),
    (attach::Mutant::AttachedWithoutNumber, "P1"),
    (attach::Mutant::DataWithoutNumber, "F1"),
    (attach::Mutant::UnlistedIsAttached, "P1"),
    (attach::Mutant::CountsBeforeOpening, "P1"),
];

const fn put(client: u8, key: u8) -> Request {
    Request {
        client,
        operation: Operation::Put(key),
    }
}

const fn delete(client: u8, key: u8) -> Request {
    Request {
        client,
        operation: Operation::Delete(key),
    }
}

const fn increment(client: u8, key: u8) -> Request {
    Request {
        client,
        operation: Operation::Increment(key),
    }
}

const SEED: replicas::Bounds = replicas::Bounds {
    script: &[put(0, 0), put(0, 1), delete(1, 0)],
    repeats: 0,
    pauses: 0,
    seeds: 1,
    attempts: 2,
    moves: false,
};
const WINDOWS: replicas::Bounds = replicas::Bounds {
    script: &[increment(0, 0), increment(1, 0)],
    repeats: 1,
    pauses: 1,
    seeds: 1,
    attempts: 2,
    moves: true,
};
const REPLICAS: &[(&str, bool, replicas::Bounds)] = &[
    ("seed", true, SEED),
    ("windows", true, WINDOWS),
    (
        "windows-2",
        false,
        replicas::Bounds {
            script: &[increment(0, 0), increment(1, 0), increment(0, 0)],
            repeats: 2,
            pauses: 2,
            ..WINDOWS
        },
    ),
    (
        "seeds-2",
        false,
        replicas::Bounds {
            script: &[put(0, 0), put(0, 1), delete(1, 0), put(1, 2)],
            seeds: 2,
            attempts: 3,
            ..SEED
        },
    ),
];

const REPLICA_MUTANTS: &[(replicas::Mutant, &str, replicas::Bounds)] = &[
    (replicas::Mutant::SeedWithoutWindows, "ONCE", WINDOWS),
    (replicas::Mutant::SeedWithoutEdges, "ONCE", WINDOWS),
    (replicas::Mutant::WindowsReadEarlier, "ONCE", WINDOWS),
    (replicas::Mutant::SwapWithoutDigests, "F1", SEED),
    (replicas::Mutant::BatonWithoutTime, "TIME", WINDOWS),
    (
        replicas::Mutant::StampsAnew,
        "ONCE",
        replicas::Bounds {
            repeats: 2,
            seeds: 0,
            attempts: 0,
            moves: false,
            ..WINDOWS
        },
    ),
    (replicas::Mutant::FeedWithoutOutcomes, "ONCE", WINDOWS),
];
