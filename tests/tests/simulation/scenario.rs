//! Seeded runs of the whole server under load, with faults ([`crate::faults`]).
//!
//! A seed decides the cluster's configuration, the faults, the clients' calls, the moves of tenants and the latency of
//! each message. A run fails if a checker finds a violation, if an operation does not end, if replicas stay different, or
//! if a node ends by itself or logs an error without a reason.
//!
//! ```text
//! cargo test -p stead-tests --test simulation
//! STEAD_SEEDS=1..50 cargo test -p stead-tests --test simulation sweep -- --include-ignored --nocapture
//! ```
//!
//! A failing seed is printed with its output; `STEAD_SEEDS=17..18 STEAD_TRACE=/tmp/17` runs only that one and writes
//! its trace.

use std::{collections::BTreeMap, ops::Range, path::PathBuf, sync::Mutex, time::Duration};

use stead_tests::{checker, history::Recorder};
use tokio::sync::watch;

use crate::{
    child,
    cluster::{REGIONS, World},
    faults,
    freshness::FreshnessChecker,
    leases::{self, LeaseChecker},
    ledger::CounterLedger,
    load::{Phase, TENANTS, Worker},
    moves::{MOVES_PREFIX, Mover},
    operator::Operator,
    promotions::Promoter,
    watcher,
};

/// Longest run, in simulated time.
const LENGTH: Duration = Duration::from_secs(180);
const WORKERS_PER_REGION: usize = 3;
/// Operators who move tenants, each in a region of its own.
const MOVERS: usize = 2;
/// Fewest operations of a run that proves something.
const OPERATIONS_MIN: usize = 100;
/// Suffix of the line with the length of a run.
const SIMULATED: &str = " simulated";
/// Runs at once: sweeps are made on machines with at least so many cores.
const PARALLEL: usize = 2;

#[test]
fn seed_repeats_exactly_without_wrong_responses() {
    let hashes: Vec<String> = child::check_determinism("scenario::faults", 1..3)
        .into_iter()
        .map(|ended| ended.hash)
        .collect();
    assert_ne!(hashes[0], hashes[1]);
}

#[test]
#[ignore = "many seeds: STEAD_SEEDS=1..50"]
fn sweep() {
    let Some(seeds) = std::env::var("STEAD_SEEDS").ok().map(|seeds| range(&seeds)) else {
        return;
    };
    let trace = std::env::var("STEAD_TRACE").ok().map(PathBuf::from);
    let (next, failed) = (Mutex::new(seeds), Mutex::new(Vec::new()));
    let kinds = Mutex::new(BTreeMap::<String, u32>::new());
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                while let Some(seed) = { next.lock().unwrap().next() } {
                    let started = std::time::Instant::now();
                    match child::run("scenario::faults", seed, trace.as_deref()) {
                        Ok(ended) => {
                            let faults = faults::parse(&ended.text);
                            let simulated = ended
                                .text
                                .lines()
                                .find(|line| line.ends_with(SIMULATED))
                                .unwrap_or_default();
                            let moves = ended.text.lines().find(|line| line.starts_with(MOVES_PREFIX));
                            println!(
                                "seed {seed} passed in {:.1?}, {simulated}: {}; {}",
                                started.elapsed(),
                                faults.join(", "),
                                moves.unwrap_or_default()
                            );
                            let mut kinds = kinds.lock().unwrap();
                            faults
                                .into_iter()
                                .for_each(|kind| *kinds.entry(kind.to_owned()).or_default() += 1);
                        }
                        Err(text) => {
                            println!("seed {seed} FAILED\n{text}");
                            failed.lock().unwrap().push(seed);
                        }
                    }
                }
            });
        }
    });
    println!("faults of the seeds that passed: {:?}", kinds.into_inner().unwrap());
    let failed = failed.into_inner().unwrap();
    assert!(failed.is_empty(), "these seeds failed: {failed:?}");
}

fn range(text: &str) -> Range<u64> {
    let (first, end) = text.split_once("..").expect("STEAD_SEEDS is written 1..50");
    first.parse().unwrap()..end.parse().unwrap()
}

#[test]
#[ignore = "a scenario, for a process of its own"]
fn faults() {
    child::run_scenario(|seed| {
        let (recorder, freshness) = (Recorder::default(), FreshnessChecker::default());
        let leases = LeaseChecker::default();
        let ledger = CounterLedger::default();
        let (phase, follow) = watch::channel(Phase::Starting);
        let mut world = World::new(seed, LENGTH);
        for (region, worker) in (0..REGIONS.len()).flat_map(|region| (0..WORKERS_PER_REGION).map(move |w| (region, w)))
        {
            let session = (region * WORKERS_PER_REGION + worker) as u32;
            let worker = Worker {
                session,
                region,
                seed: seed * 1_000 + u64::from(session),
                recorder: recorder.clone(),
                freshness: freshness.clone(),
                leases: leases.clone(),
                ledger: ledger.clone(),
                phase: follow.clone(),
            };
            world.client(region, &format!("worker-{session}"), worker.run());
        }
        for region in 0..REGIONS.len() {
            let watcher = watcher::run(
                region,
                region % TENANTS.len(),
                seed * 1_000 + 500 + region as u64,
                follow.clone(),
            );
            world.client(region, &format!("watcher-{region}"), watcher);
            let prober = leases::probe(
                region,
                seed * 1_000 + 600 + region as u64,
                leases.clone(),
                follow.clone(),
            );
            world.client(region, &format!("prober-{region}"), prober);
        }
        for region in 0..MOVERS {
            let mover = Mover {
                region,
                seed: seed * 1_000 + 700 + region as u64,
                groups_per_region: world.groups_per_region,
                phase: follow.clone(),
            };
            world.client(region, &format!("mover-{region}"), mover.run());
        }
        let promoter = Promoter { seed, phase: follow };
        world.client(0, "promoter", promoter.run());
        let operator = Operator {
            seed,
            recorder: recorder.clone(),
            freshness: freshness.clone(),
            leases: leases.clone(),
            ledger,
            phase,
            actions: world.actions.clone(),
        };
        world.client(0, "operator", operator.run());
        let excused = world.run();
        println!("{:?}{SIMULATED}", world.sim.elapsed());
        check_results(&recorder, &freshness, &leases);
        excused
    });
}

/// Runs the checkers on the clients' histories.
fn check_results(recorder: &Recorder, freshness: &FreshnessChecker, leases: &LeaseChecker) {
    let histories = recorder.histories();
    let (stale, checked) = freshness.verdict();
    println!("{checked} responses of followers named their staleness");
    let (without_lease, summary) = leases.verdict();
    println!("{summary}");
    let mut wrong = [stale, without_lease].concat().join("\n");
    let mut operations = 0;
    for (tenant, history) in &histories {
        let open = history
            .operations()
            .iter()
            .filter(|operation| operation.response.is_none())
            .count();
        operations += history.operations().len();
        println!(
            "{tenant}: {} operations, {open} of them open",
            history.operations().len()
        );
        for violation in checker::check(history) {
            wrong.push_str(&format!("{tenant}: {}\n", checker::explain(history, &violation)));
        }
    }
    assert!(wrong.is_empty(), "{wrong}");
    assert!(operations >= OPERATIONS_MIN, "only {operations} operations");
}
