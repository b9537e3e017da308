//! Simulations in processes of their own: one hermetic process for each seed.
//!
//! A test starts this binary again with the name of a scenario as the only test to run; the scenario prints its results
//! and, last, the hash of its trace.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    process::Output,
};

use stead_types::planted;

use crate::{hermetic, trace::Trace};

const TRACE_VARIABLE: &str = "STEAD_TRACE";
const HASH_PREFIX: &str = "trace hash ";
/// Prefix of the line that says how often the code of a planted bug was reached.
#[cfg(feature = "planted")]
pub(crate) const REACHED_PREFIX: &str = "planted bug reached: ";

/// Output of one simulation.
#[derive(Debug)]
pub(crate) struct RunOutput {
    /// Hash of the trace.
    pub(crate) hash: String,
    /// Standard output.
    pub(crate) text: String,
}

/// Runs a scenario under a seed; returns its output as the error if it failed.
pub(crate) fn run(scenario: &str, seed: u64, trace: Option<&Path>) -> Result<RunOutput, String> {
    run_planted(scenario, seed, trace, "")
}

/// Runs a scenario as [`run`] does, with a planted bug if the name is not empty.
pub(crate) fn run_planted(scenario: &str, seed: u64, trace: Option<&Path>, bug: &str) -> Result<RunOutput, String> {
    let mut command = hermetic::command(seed);
    command.args([
        "--exact",
        scenario,
        "--include-ignored",
        "--nocapture",
        "--test-threads",
        "1",
    ]);
    // The variables are always set and of one length, so that stack addresses are the same.
    let path = trace.map_or(String::new(), |path| path.display().to_string());
    command.env(TRACE_VARIABLE, format!("{path:<100}"));
    command.env(planted::VARIABLE, format!("{bug:<40}"));
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = String::from_utf8_lossy(&stdout).into_owned();
    let hash = text
        .lines()
        .find_map(|line| line.strip_prefix(HASH_PREFIX))
        .map(str::to_owned);
    match hash {
        Some(hash) if status.success() => Ok(RunOutput { hash, text }),
        _ => Err(format!(
            "{scenario} under seed {seed}: {status}\n{text}\n{}",
            String::from_utf8_lossy(&stderr)
        )),
    }
}

/// Runs a scenario twice under each seed: it must pass, with the same trace hash both times.
pub(crate) fn check_determinism(scenario: &str, seeds: impl IntoIterator<Item = u64>) -> Vec<RunOutput> {
    let check = |seed| {
        let run = || run(scenario, seed, None).unwrap_or_else(|failed| panic!("{failed}"));
        // Both at once: the load of one run must not influence the other.
        let (one, other) = std::thread::scope(|scope| {
            let one = scope.spawn(run);
            let other = run();
            (one.join().unwrap(), other)
        });
        if one.hash != other.hash {
            panic!("seed {seed} does not repeat: {}", first_difference(scenario, seed));
        }
        println!("{}", one.text);
        one
    };
    seeds.into_iter().map(check).collect()
}

/// Returns the first difference between two traces of a seed.
fn first_difference(scenario: &str, seed: u64) -> String {
    let dir = tempfile::tempdir().unwrap();
    let [one, other] = ["1", "2"].map(|name| {
        let path = dir.path().join(name);
        run(scenario, seed, Some(&path)).unwrap();
        BufReader::new(File::open(path).unwrap())
            .split(b'\n')
            .map(|line| line.unwrap())
    });
    let (mut before, mut number) = (Vec::new(), 0);
    for (one, other) in one.zip(other) {
        number += 1;
        if one != other {
            let [before, one, other] = [&before, &one, &other].map(|line| String::from_utf8_lossy(line));
            return format!("line {number}, after\n{before}\n{one}\n{other}");
        }
        before = one;
    }
    format!("not with traces written, {number} lines")
}

/// Runs a scenario if this process was started by [`run`], and prints its hash. The scenario returns the nodes that may
/// log errors.
pub(crate) fn run_scenario(scenario: impl FnOnce(u64) -> Vec<String>) {
    let Some(seed) = hermetic::seed() else { return };
    let path = std::env::var(TRACE_VARIABLE).unwrap_or_default();
    let trace = Trace::new(Some(path.trim()).filter(|path| !path.is_empty()));
    hermetic::forbid_threads();
    let excused = tracing::subscriber::with_default(trace.clone(), || scenario(seed));
    let ((hash, events), errors) = (trace.digest(), trace.errors(&excused));
    assert!(errors.is_empty(), "an error was logged: {errors:#?}");
    #[cfg(feature = "planted")]
    println!("\n{REACHED_PREFIX}{}", planted::reached());
    println!("\n{HASH_PREFIX}{hash:016x} of {events} events");
}
