//! Explores the models and prints a table.
//!
//! `stead-model [configurations|mutants|corners|trace] [NAME...] [--seconds N] [--threads N] [--short]`

use std::{process::ExitCode, time::Duration};

use stead_model::{
    catalogue::{Case, configurations, coverage, mutants},
    explore::{Limits, Outcome},
};

/// Request of the command line.
struct Request {
    table: String,
    names: Vec<String>,
    limits: Limits,
    is_short: bool,
}

impl Request {
    /// Parses the words of the command line; of a flag that is repeated, the last one counts.
    fn parse(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut request = Self {
            table: words.next().unwrap_or_else(|| "configurations".to_owned()),
            names: Vec::new(),
            limits: Limits {
                time: Duration::from_secs(60),
                states: usize::MAX,
                // A single thread of the checker does not look at the clock.
                threads: 2,
            },
            is_short: false,
        };
        while let Some(word) = words.next() {
            let mut number = || words.next()?.parse::<u32>().ok();
            match word.as_str() {
                "--short" => request.is_short = true,
                "--seconds" => {
                    let seconds = number().ok_or("--seconds needs a number")?;
                    request.limits.time = Duration::from_secs(seconds.into());
                }
                "--threads" => request.limits.threads = number().ok_or("--threads needs a number")? as usize,
                name => request.names.push(name.to_owned()),
            }
        }
        Ok(request)
    }

    fn cases(&self) -> Result<Vec<Case>, String> {
        let all = match self.table.as_str() {
            "configurations" => configurations(),
            "mutants" => mutants(),
            "corners" => coverage(),
            "trace" => configurations().into_iter().chain(mutants()).collect(),
            other => {
                return Err(format!(
                    "there is no {other}: there are configurations, mutants, corners and trace"
                ));
            }
        };
        let is_named = |case: &Case| {
            self.names
                .iter()
                .any(|name| case.name.split(' ').any(|word| word == name))
        };
        let is_asked = |case: &Case| (self.names.is_empty() || is_named(case)) && (case.is_short || !self.is_short);
        Ok(all.into_iter().filter(is_asked).collect())
    }
}

fn main() -> ExitCode {
    let request = Request::parse(std::env::args().skip(1));
    let found = request.and_then(|request| Ok((request.cases()?, request)));
    let (cases, request) = match found {
        Ok(found) => found,
        Err(message) => {
            eprintln!("{message}");
            return ExitCode::FAILURE;
        }
    };
    let is_readable = request.table == "trace";
    let mut is_good = true;
    for case in &cases {
        let outcome = (case.run)(request.limits, is_readable);
        is_good &= print(case, &outcome);
        if is_readable {
            outcome.violated.iter().for_each(|finding| println!("{finding}"));
        }
    }
    if is_good { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// Prints a row; tells whether the outcome is as it must be.
fn print(case: &Case, outcome: &Outcome) -> bool {
    let limit = if outcome.is_exhausted { "exhausted" } else { "limit" };
    let steps = outcome
        .violated
        .first()
        .map(|found| (found.property, found.actions.len()));
    let (is_good, end) = match (case.caught_by, steps) {
        (Some(_), Some((property, steps))) => (true, format!("caught by {} in {steps} steps", short(property))),
        (Some(property), None) => (false, format!("NOT CAUGHT by {property}, {limit}")),
        (None, Some((property, steps))) => (false, format!("VIOLATED {} in {steps} steps", short(property))),
        (None, None) => (true, limit.to_owned()),
    };
    println!(
        "{:<44} {:>9} states {:>3} deep {:>8.1?}  {end}",
        case.name, outcome.states, outcome.depth, outcome.time
    );
    for corner in &outcome.reached {
        println!("    {} ({} steps)", corner.property, corner.actions.len());
    }
    for corner in &outcome.missed {
        println!("    MISSED {corner}");
    }
    is_good && outcome.missed.is_empty()
}

fn short(property: &str) -> &str {
    property.split(' ').next().unwrap_or(property)
}
