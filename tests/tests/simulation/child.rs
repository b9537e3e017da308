//! Simulations in processes of their own: one sealed process for each seed.
//!
//! A test starts this binary again with the name of a scenario as the only test to run; the scenario prints what it
//! found and, last, the hash of its trace.

use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::Path,
    process::Output,
};

use stead_types::planted;

use crate::{seal, trace::Trace};

const TRACE: &str = "STEAD_TRACE";
const HASH: &str = "trace hash ";
/// Says how often a planted bug was come by.
#[cfg(feature = "planted")]
pub(crate) const REACHED: &str = "planted bug reached: ";

/// What became of one simulation.
#[derive(Debug)]
pub(crate) struct Ended {
    /// Over everything that happened.
    pub(crate) hash: String,
    /// What it printed.
    pub(crate) text: String,
}

/// Runs a scenario under a seed; fails with its output if it failed.
pub(crate) fn run(scenario: &str, seed: u64, trace: Option<&Path>) -> Result<Ended, String> {
    run_planted(scenario, seed, trace, "")
}

/// As [`run`], with a planted bug, if there is a name.
pub(crate) fn run_planted(scenario: &str, seed: u64, trace: Option<&Path>, bug: &str) -> Result<Ended, String> {
    let mut command = seal::command(seed);
    command.args([
        "--exact",
        scenario,
        "--include-ignored",
        "--nocapture",
        "--test-threads",
        "1",
    ]);
    // The variables are always there and of one length, so that they move no addresses.
    let path = trace.map_or(String::new(), |path| path.display().to_string());
    command.env(TRACE, format!("{path:<100}"));
    command.env(planted::VARIABLE, format!("{bug:<40}"));
    let Output { status, stdout, stderr } = command.output().unwrap();
    let text = String::from_utf8_lossy(&stdout).into_owned();
    let hash = text.lines().find_map(|line| line.strip_prefix(HASH)).map(str::to_owned);
    match hash {
        Some(hash) if status.success() => Ok(Ended { hash, text }),
        _ => Err(format!(
            "{scenario} under seed {seed}: {status}\n{text}\n{}",
            String::from_utf8_lossy(&stderr)
        )),
    }
}

/// Runs a scenario twice under each seed: it must end well and do the same both times.
pub(crate) fn check(scenario: &str, seeds: impl IntoIterator<Item = u64>) -> Vec<Ended> {
    let check = |seed| {
        let run = || run(scenario, seed, None).unwrap_or_else(|failed| panic!("{failed}"));
        // Both at once: what one does to the machine must not show in the other.
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

/// Returns where two traces of a seed part.
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

/// Runs `scenario` if this process was started by [`run`], and prints its hash. It returns the nodes that may log errors.
pub(crate) fn scenario(scenario: impl FnOnce(u64) -> Vec<String>) {
    let Some(seed) = seal::seed() else { return };
    let path = std::env::var(TRACE).unwrap_or_default();
    let trace = Trace::new(Some(path.trim()).filter(|path| !path.is_empty()));
    seal::forbid_threads();
    let excused = tracing::subscriber::with_default(trace.clone(), || scenario(seed));
    let ((hash, events), errors) = (trace.digest(), trace.errors(&excused));
    assert!(errors.is_empty(), "an error was logged: {errors:#?}");
    #[cfg(feature = "planted")]
    println!("\n{REACHED}{}", planted::reached());
    println!("\n{HASH}{hash:016x} of {events} events");
}
