//! Looks for each planted bug: in seeds of the simulation, or in the test that finds what the simulation cannot see.
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

use stead_types::planted::{ALL, Bug, Planted, VARIABLE};

use crate::child;

const SCENARIO: &str = "scenario::faults";
/// Bugs that need a scenario of their own.
const SCENARIOS: &[(Bug, &str)] = &[(Bug::ServingCheckIgnored, "serving::disabled_while_a_write_is_under_way")];
/// A bug that is not found in so many seeds, or so much time of processors, is not found.
const SEEDS_MAX: u64 = 100;
const CPU_MAX: Duration = Duration::from_secs(600);
/// Seeds at once.
const PARALLEL: usize = 2;
/// Bytes of what is shown of why a seed failed.
const WHY_LEN_MAX: usize = 110;

/// A test of another kind that finds a bug.
struct Other {
    bug: Bug,
    /// The arguments of `cargo test` that name its crate and target.
    target: &'static [&'static str],
    test: &'static str,
    /// Why the simulation cannot see the bug.
    why: &'static str,
}

const OTHERS: &[Other] = &[
    Other {
        bug: Bug::VoteLostAtTruncation,
        target: &["-p", "stead-raft", "--lib"],
        test: "log::tests::what_was_truncated_is_gone_after_a_power_loss",
        why: "entries that come back are truncated again, unless a snapshot comes between",
    },
    Other {
        bug: Bug::ReadRoundJoined,
        target: &["-p", "stead-raft", "--test", "raft"],
        test: "basic::a_read_is_not_answered_by_a_round_that_began_before_it",
        why: "a round of two milliseconds would have to span an election",
    },
    Other {
        bug: Bug::ProposedTwice,
        target: &["-p", "stead-raft", "--lib"],
        test: "proposer::proposer_test::what_may_have_been_committed_is_not_proposed_again",
        why: "idempotency windows make one of two",
    },
    Other {
        bug: Bug::DurableAheadOfFreeze,
        target: &["-p", "stead-store", "--lib"],
        test: "group_rows::group_rows_test::what_is_applied_during_a_checkpoint_is_not_durable",
        why: "its checkpoints are one step",
    },
    Other {
        bug: Bug::InstallUnpinned,
        target: &["-p", "stead-store", "--lib"],
        test: "shard::shard_test::nothing_is_removed_while_a_snapshot_is_taken_in",
        why: "its installs are one step",
    },
    Other {
        bug: Bug::SeedToAnybody,
        target: &["-p", "stead-replication", "--test", "feed"],
        test: "seed::a_seed_ends_once_its_home_knows_that_the_follower_may_not_have_it",
        why: "the follower throws away what it may not have",
    },
    Other {
        bug: Bug::FeedToAnybody,
        target: &["-p", "stead-replication", "--test", "feed"],
        test: "attach::nothing_is_sent_once_the_home_knows_that_the_follower_may_not_have_it",
        why: "the follower throws away what it may not have",
    },
    Other {
        bug: Bug::UnknownFollowerHoldsNothing,
        target: &["-p", "stead-replication", "--test", "feed"],
        test: "floor::a_follower_of_which_nothing_is_known_holds_the_past",
        why: "the follower is seeded instead",
    },
    Other {
        bug: Bug::FeedDigestNotCompared,
        target: &["-p", "stead-state", "--lib"],
        test: "shard::tests::ownership_test::a_differing_digest_stops_the_copy_until_it_is_seeded",
        why: "no copy differs without another bug",
    },
    Other {
        bug: Bug::LockCountedFromAnswer,
        target: &["-p", "stead-client", "--test", "calls"],
        test: "recipes::a_lock_that_was_got_too_late_is_given_back",
        why: "its clients hold no locks",
    },
];

/// What a search came to.
struct Found {
    seeds: u64,
    cpu: Duration,
    /// Seeds that came by the bug and passed.
    reached: u64,
    /// By what; `None`: not at all.
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
    let wanted = |planted: &&Planted| only.is_empty() || only.contains(&planted.name);
    let mut missed = Vec::new();
    println!("| bug | found | seeds | CPU s | by |\n| --- | --- | --- | --- | --- |");
    for planted in ALL.iter().filter(wanted) {
        let other = OTHERS.iter().find(|other| other.bug == planted.bug);
        let found = match other {
            Some(other) => in_another_test(planted, other),
            None => in_seeds(planted),
        };
        let (is_found, by) = match &found.by {
            Some(by) => ("yes", by.clone()),
            None => ("NO", format!("{}; {} seeds came by it", planted.wrong, found.reached)),
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

/// Runs seeds until one fails, or enough is enough.
fn in_seeds(planted: &Planted) -> Found {
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
                            let times = passed.text.lines().find_map(|line| line.strip_prefix(child::REACHED));
                            reached.fetch_add(u64::from(times != Some("0")), Relaxed);
                        }
                        Err(text) => {
                            let mut state = state.lock().unwrap();
                            state.1.get_or_insert(format!("seed {seed}: {}", why(&text)));
                        }
                    }
                }
            });
        }
    });
    let (seeds, by) = state.into_inner().unwrap();
    Found {
        seeds,
        cpu: cpu_of_children() - begun,
        reached: reached.into_inner(),
        by,
    }
}

/// Returns the first line that says why a seed failed.
fn why(text: &str) -> String {
    let mut lines = text.lines().skip_while(|line| !line.contains("panicked at"));
    let reason = lines.find(|line| !line.contains("panicked at") && !line.trim().is_empty());
    let reason = reason.or_else(|| text.lines().next()).unwrap_or_default();
    reason.chars().filter(|c| *c != '|').take(WHY_LEN_MAX).collect()
}

/// Runs a test without the bug and with it.
fn in_another_test(planted: &Planted, other: &Other) -> Found {
    let begun = cpu_of_children();
    let run = |bug: &str| {
        let mut command = Command::new(std::env::var("CARGO").unwrap_or("cargo".into()));
        command.arg("test").args(other.target);
        command.args(["--features", "stead-types/planted", "--", "--exact", other.test]);
        let output = command.env(VARIABLE, bug).output().unwrap();
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        (output.status.success(), text)
    };
    let (passes, text) = run("");
    assert!(
        passes && text.contains("1 passed"),
        "{} does not pass by itself:\n{text}",
        other.test
    );
    let (passes, text) = run(planted.name);
    let is_found = !passes && text.contains("FAILED");
    Found {
        seeds: 0,
        cpu: cpu_of_children() - begun,
        reached: 0,
        by: is_found.then(|| format!("{} `{}`: {}", other.target.join(" "), other.test, other.why)),
    }
}

/// The time of processors of all children that have ended.
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
