//! Power cuts under real nodes: each data directory is on a simulated disk that loses unsynced data at a cut.
//!
//! The disks are mounted by FUSE: where `/dev/fuse` cannot be opened the tests print that they are skipped. A short
//! campaign runs with every test run; `tests/powercut.sh` runs for as long as its options say.

#![cfg(target_os = "linux")]

use std::{
    env,
    time::{Duration, Instant},
};

use stead_tests::{
    powercut::{
        mount,
        rounds::{RoundKind, RoundReport, World},
    },
    process::{binary, exclusive_lock},
};

/// One node in three runs on sled, as in `stead dev`.
const MIXED: [&str; 3] = ["fjall", "fjall", "sled"];
const FJALL: [&str; 3] = ["fjall"; 3];
/// Rounds of one cluster before the next one starts with empty disks.
const ROUNDS_OF_CLUSTER: usize = 25;
const SHORT_SEED: u64 = 1;

fn is_skipped() -> bool {
    let reason = mount::unavailable_reason();
    if let Some(why) = &reason {
        eprintln!("SKIPPED: no power is cut: {why}");
    }
    reason.is_some()
}

/// Runs rounds on one cluster; ends early after a round with a violation.
async fn campaign(
    engines: [&str; 3],
    kinds: &[RoundKind],
    seed: u64,
    reports: &mut Vec<RoundReport>,
) -> anyhow::Result<()> {
    let mut world = World::start(binary().to_owned(), engines, seed).await?;
    for kind in kinds {
        let result = world.run_round(*kind).await;
        if result.as_ref().map_or(true, |report| !report.violations.is_empty()) {
            world.keep_folder();
        }
        let report = result?;
        let line = format!(
            "{kind}: {} acknowledged, {} unknown, {} bytes cut away, back after {:.1?}",
            report.acknowledged, report.unknown, report.bytes_lost, report.back_after
        );
        eprintln!(
            "{} on {}: {line}",
            if report.violations.is_empty() { "held" } else { "BROKEN" },
            engines.join(", ")
        );
        let is_broken = !report.violations.is_empty();
        reports.push(report);
        if is_broken {
            break;
        }
    }
    Ok(())
}

fn check(reports: &[RoundReport]) {
    let broken: Vec<&RoundReport> = reports.iter().filter(|report| !report.violations.is_empty()).collect();
    assert!(broken.is_empty(), "{broken:#?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn acknowledged_writes_survive_power_cuts_and_failed_syncs() {
    if is_skipped() {
        return;
    }
    let _lock = exclusive_lock();
    let kinds = [
        RoundKind::Cut {
            nodes: 3,
            torn: true,
            slow: false,
        },
        RoundKind::Cut {
            nodes: 1,
            torn: false,
            slow: false,
        },
        RoundKind::FailedSyncs,
        RoundKind::Cut {
            nodes: 2,
            torn: true,
            slow: true,
        },
    ];
    let mut reports = Vec::new();
    campaign(MIXED, &kinds, SHORT_SEED, &mut reports).await.unwrap();
    check(&reports);
}

/// Runs as many rounds as `STEAD_POWERCUT_MINUTES` or `STEAD_POWERCUT_ROUNDS` say, from `STEAD_POWERCUT_SEED` on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "runs for hours: tests/powercut.sh"]
async fn long_campaign() {
    assert!(!is_skipped(), "nothing was tried");
    let _lock = exclusive_lock();
    let number = |name: &str| env::var(name).ok().map(|text| text.parse::<u64>().unwrap());
    let rounds_max = number("STEAD_POWERCUT_ROUNDS").unwrap_or(u64::MAX) as usize;
    let time_max = Duration::from_secs(60 * number("STEAD_POWERCUT_MINUTES").unwrap_or(u64::from(u32::MAX)));
    let first_seed = number("STEAD_POWERCUT_SEED").unwrap_or(SHORT_SEED);
    let (from, mut reports, mut failures) = (Instant::now(), Vec::new(), Vec::new());
    let all = RoundKind::all();
    for cluster in 0_usize.. {
        let left = rounds_max.saturating_sub(reports.len()).min(ROUNDS_OF_CLUSTER);
        if left == 0 || time_max <= from.elapsed() {
            break;
        }
        let engines = if cluster % 2 == 0 { FJALL } else { MIXED };
        let kinds: Vec<RoundKind> = (0..left).map(|round| all[(round + cluster) % all.len()]).collect();
        let seed = first_seed + cluster as u64;
        eprintln!("cluster {cluster} on {}, seed {seed}", engines.join(", "));
        if let Err(error) = campaign(engines, &kinds, seed, &mut reports).await {
            eprintln!("BROKEN: {error:#}");
            failures.push(format!("cluster {cluster}, seed {seed}: {error:#}"));
        }
    }
    eprintln!("{}", table(&reports));
    assert!(failures.is_empty(), "{failures:#?}");
    check(&reports);
}

/// Returns a table of the reports, one line for each kind of round.
fn table(reports: &[RoundReport]) -> String {
    let mut text =
        String::from("kind | rounds | acknowledged | unknown | bytes cut away | slowest back | violations\n");
    for kind in RoundKind::all() {
        let of_kind: Vec<&RoundReport> = reports.iter().filter(|report| report.kind == kind).collect();
        let sum = |of: fn(&RoundReport) -> u64| of_kind.iter().map(|report| of(report)).sum::<u64>();
        let slowest = of_kind.iter().map(|report| report.back_after).max().unwrap_or_default();
        text += &format!(
            "{kind} | {} | {} | {} | {} | {slowest:.1?} | {}\n",
            of_kind.len(),
            sum(|report| report.acknowledged),
            sum(|report| report.unknown),
            sum(|report| report.bytes_lost),
            sum(|report| report.violations.len() as u64),
        );
    }
    text
}
