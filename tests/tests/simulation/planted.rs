//! Search for each planted bug (mutation testing): in seeds of the simulation, or in a dedicated test where the
//! simulation cannot show it.
//!
//! ```text
//! tests/planted.sh                        all of them
//! tests/planted.sh log-not-synced ...     these
//! ```
//!
//! Without the bug the seeds pass (`scenario::sweep`), and so does the named test: it is run both ways.

use std::{
    io::Write as _,
    process::Command,
    sync::{
        Mutex,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use stead_types::planted::{ALL, Bug, PlantedBug, VARIABLE};

use crate::child;

const SCENARIO: &str = "scenario::faults";
/// Bugs with a scenario of their own.
const SCENARIOS: &[(Bug, &str)] = &[(Bug::ServingCheckIgnored, "serving::disabled_while_a_write_is_under_way")];
/// Limits of a search: seeds, and processor time.
const SEEDS_MAX: u64 = 100;
const CPU_MAX: Duration = Duration::from_secs(600);
/// Seeds at once.
const PARALLEL: usize = 2;
/// Most characters that are printed of a seed's failure.
const REASON_LEN_MAX: usize = 110;

/// Test outside the simulation that finds a bug.
struct DedicatedTest {
    bug: Bug,
    /// Arguments of `cargo test` that name its crate and target.
    target: &'static [&'static str],
    test: &'static str,
    /// Why the simulation cannot show the bug.
    why: &'static str,
}

const DEDICATED_TESTS: &[DedicatedTest] = &[
    DedicatedTest {
        bug: Bug::VoteLostAtTruncation,
        target: &["-p", "stead-raft", "--lib"],
        test: "log::tests::truncated_entries_stay_gone_after_power_loss",
        why: "entries that come back are truncated again, unless a snapshot comes between",
    },
    DedicatedTest {
        bug: Bug::VoteNotSynced,
        target: &["-p", "stead-raft", "--lib"],
        test: "log::tests::vote_counts_once_it_is_synced",
        why: "power would have to go within the sync of a vote that decides, twice",
    },
    DedicatedTest {
        bug: Bug::ReadBeforeApply,
        target: &["-p", "stead-raft", "--lib"],
        test: "read_index::tests::read_waits_until_its_index_is_applied",
        why: "applying takes it no time",
    },
    DedicatedTest {
        bug: Bug::SnapshotWithoutWindows,
        target: &["-p", "stead-store", "--lib"],
        test: "shard::tests::snapshot_test::slowly_read_snapshot_is_consistent_with_its_cut",
        why: "an outcome would have to be forgotten between two attempts of one write",
    },
    DedicatedTest {
        bug: Bug::FeedOpenedUnread,
        target: &["-p", "stead-replication", "--test", "feed"],
        test: "attach::leader_without_majority_opens_no_stream",
        why: "its followers find the new leader first",
    },
    DedicatedTest {
        bug: Bug::ReadRoundJoined,
        target: &["-p", "stead-raft", "--test", "raft"],
        test: "basic::read_index_is_not_served_by_an_earlier_round",
        why: "a round of two milliseconds would have to span an election",
    },
    DedicatedTest {
        bug: Bug::ProposedTwice,
        target: &["-p", "stead-raft", "--lib"],
        test: "proposer::proposer_test::possibly_committed_command_is_not_proposed_again",
        why: "idempotency windows make one of two",
    },
    DedicatedTest {
        bug: Bug::DurableAheadOfFreeze,
        target: &["-p", "stead-store", "--lib"],
        test: "group_rows::group_rows_test::entry_applied_during_checkpoint_is_not_durable",
        why: "its checkpoints are one step",
    },
    DedicatedTest {
        bug: Bug::InstallUnpinned,
        target: &["-p", "stead-store", "--lib"],
        test: "shard::tests::install_test::maintenance_removes_nothing_during_install",
        why: "its installs are one step",
    },
    DedicatedTest {
        bug: Bug::SeedToAnybody,
        target: &["-p", "stead-replication", "--test", "feed"],
        test: "seed::seed_stops_once_follower_is_not_admitted",
        why: "the follower throws away what it may not have",
    },
    DedicatedTest {
        bug: Bug::FeedToAnybody,
        target: &["-p", "stead-replication", "--test", "feed"],
        test: "attach::feed_stops_once_follower_is_not_admitted",
        why: "the follower throws away what it may not have",
    },
    DedicatedTest {
        bug: Bug::UnknownFollowerHoldsNothing,
        target: &["-p", "stead-replication", "--test", "feed"],
        test: "retention::unknown_follower_position_keeps_history",
        why: "the follower is seeded instead",
    },
    DedicatedTest {
        bug: Bug::FeedDigestNotCompared,
        target: &["-p", "stead-state", "--lib"],
        test: "shard::tests::ownership_test::digest_mismatch_stops_copy_until_seeded",
        why: "no copy differs without another bug",
    },
    DedicatedTest {
        bug: Bug::FeedGapIgnored,
        target: &["-p", "stead-state", "--lib"],
        test: "shard::tests::ownership_test::gap_detaches_and_applies_nothing",
        why: "the home leaves no gap without another bug: no seed reaches it",
    },
    DedicatedTest {
        bug: Bug::SwapDigestNotCompared,
        target: &["-p", "stead-state", "--lib"],
        test: "shard::tests::model_test::shard_and_followers_agree_with_model",
        why: "no seeded copy differs without another bug: no seed reaches it",
    },
    DedicatedTest {
        bug: Bug::EpochNotGuarded,
        target: &["-p", "stead-state", "--lib"],
        test: "shard::tests::ownership_test::data_needs_session_of_promised_epoch",
        why: "its tenants stay in one epoch",
    },
    DedicatedTest {
        bug: Bug::LockCountedFromAnswer,
        target: &["-p", "stead-client", "--test", "calls"],
        test: "recipes::lock_acquired_too_late_is_released",
        why: "its clients hold no locks",
    },
];

/// Result of a search.
struct SearchResult {
    seeds: u64,
    cpu: Duration,
    /// Seeds that reached the bug's code and passed.
    reached: u64,
    /// Seed and reason, or test, by which the bug was found; `None` if it was not.
    by: Option<String>,
}

#[test]
#[ignore = "tests/planted.sh: it takes hours"]
fn every_planted_bug_is_found() {
    let only = std::env::var("STEAD_BUGS").unwrap_or_default();
    let only: Vec<&str> = only.split_whitespace().collect();
    for name in &only {
        assert!(
            ALL.iter().any(|planted| planted.name == *name),
            "there is no bug {name}"
        );
    }
    let wanted = |planted: &&PlantedBug| only.is_empty() || only.contains(&planted.name);
    let mut missed = Vec::new();
    println!("| bug | found | seeds | CPU s | by |\n| --- | --- | --- | --- | --- |");
    for planted in ALL.iter().filter(wanted) {
        let dedicated = DEDICATED_TESTS.iter().find(|dedicated| dedicated.bug == planted.bug);
        let found = match dedicated {
            Some(dedicated) => find_by_test(planted, dedicated),
            None => find_by_seeds(planted),
        };
        let (is_found, by) = match &found.by {
            Some(by) => ("yes", by.clone()),
            None => ("NO", format!("{}; {} seeds reached it", planted.wrong, found.reached)),
        };
        println!(
            "| {} | {is_found} | {} | {:.0} | {by} |",
            planted.name,
            found.seeds,
            found.cpu.as_secs_f64()
        );
        std::io::stdout().flush().unwrap();
        if found.by.is_none() {
            missed.push(planted.name);
        }
    }
    assert!(missed.is_empty(), "these were not found: {missed:?}");
}

/// Runs seeds until one fails or a limit is reached.
fn find_by_seeds(planted: &PlantedBug) -> SearchResult {
    let own = SCENARIOS.iter().find(|(bug, _)| *bug == planted.bug);
    let scenario = own.map_or(SCENARIO, |(_, scenario)| *scenario);
    let begun = cpu_of_children();
    let state = Mutex::new((0, None::<String>));
    let reached = AtomicU64::new(0);
    std::thread::scope(|scope| {
        for _ in 0..PARALLEL {
            scope.spawn(|| {
                loop {
                    let seed = {
                        let mut state = state.lock().unwrap();
                        let is_over = state.1.is_some() || state.0 >= SEEDS_MAX;
                        if is_over || cpu_of_children() - begun > CPU_MAX {
                            return;
                        }
                        state.0 += 1;
                        state.0
                    };
                    match child::run_planted(scenario, seed, None, planted.name) {
                        Ok(passed) => {
                            let times = passed
                                .text
                                .lines()
                                .find_map(|line| line.strip_prefix(child::REACHED_PREFIX));
                            reached.fetch_add(u64::from(times != Some("0")), Relaxed);
                        }
                        Err(text) => {
                            let mut state = state.lock().unwrap();
                            state.1.get_or_insert(format!("seed {seed}: {}", failure_reason(&text)));
                        }
                    }
                }
            });
        }
    });
    let (seeds, by) = state.into_inner().unwrap();
    SearchResult {
        seeds,
        cpu: cpu_of_children() - begun,
        reached: reached.into_inner(),
        by,
    }
}

/// Returns the first line of a failing seed's output that gives a reason.
fn failure_reason(text: &str) -> String {
    let mut lines = text.lines().skip_while(|line| !line.contains("panicked at"));
    let reason = lines.find(|line| !line.contains("panicked at") && !line.trim().is_empty());
    let reason = reason.or_else(|| text.lines().next()).unwrap_or_default();
    reason.chars().filter(|c| *c != '|').take(REASON_LEN_MAX).collect()
}

/// Runs a test without the bug and with it.
fn find_by_test(planted: &PlantedBug, dedicated: &DedicatedTest) -> SearchResult {
    let begun = cpu_of_children();
    let run = |bug: &str| {
        let mut command = Command::new(std::env::var("CARGO").unwrap_or("cargo".into()));
        command.arg("test").args(dedicated.target);
        command.args(["--features", "stead-types/planted", "--", "--exact", dedicated.test]);
        let output = command.env(VARIABLE, bug).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), text)
    };
    let (passes, text) = run("");
    assert!(
        passes && text.contains("1 passed"),
        "{} does not pass by itself:\n{text}",
        dedicated.test
    );
    let (passes, text) = run(planted.name);
    let is_found = !passes && text.contains("FAILED");
    SearchResult {
        seeds: 0,
        cpu: cpu_of_children() - begun,
        reached: 0,
        by: is_found.then(|| format!("{} `{}`: {}", dedicated.target.join(" "), dedicated.test, dedicated.why)),
    }
}

/// Returns the processor time of all children that have ended.
fn cpu_of_children() -> Duration {
    // SAFETY: rusage is plain data, and outlives the call.
    #[expect(unsafe_code, reason = "getrusage has no safe form in the standard library")]
    let usage = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        libc::getrusage(libc::RUSAGE_CHILDREN, &mut usage);
        usage
    };
    let time = |time: libc::timeval| Duration::new(time.tv_sec as u64, time.tv_usec as u32 * 1000);
    time(usage.ru_utime) + time(usage.ru_stime)
}
