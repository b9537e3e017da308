//! Report in Markdown: rates with their spread, ratios and their goals, latencies, and the cost at the servers.

use std::fmt::Write;

use crate::{
    record::{Record, Records},
    systems::NAMES,
    work,
};

/// Ratio that is to be reached.
struct Goal {
    row: &'static str,
    figure: Figure,
    of: &'static str,
    against: &'static str,
    ratio: f64,
}

/// Figure of a goal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Figure {
    Rate,
    P99,
    Cpu,
    Written,
    Memory,
}

impl Figure {
    fn name(self) -> &'static str {
        match self {
            Self::Rate => "rate",
            Self::P99 => "p99",
            Self::Cpu => "CPU of the servers",
            Self::Written => "bytes written",
            Self::Memory => "memory of the servers",
        }
    }

    fn get(self) -> fn(&Record) -> f64 {
        match self {
            Self::Rate => |record| record.rate,
            Self::P99 => |record| record.p99_ms,
            Self::Cpu => |record| record.cpu_us,
            Self::Written => |record| record.written_kib,
            Self::Memory => |record| record.memory_mib,
        }
    }
}

const fn rate(row: &'static str, of: &'static str, against: &'static str, ratio: f64) -> Goal {
    goal(row, Figure::Rate, of, against, ratio)
}

const fn goal(row: &'static str, figure: Figure, of: &'static str, against: &'static str, ratio: f64) -> Goal {
    Goal {
        row,
        figure,
        of,
        against,
        ratio,
    }
}

const GOALS: &[Goal] = &[
    rate("put, 64", "stead-stubs", "etcd", 2.0),
    rate("get, 64", "stead-stubs", "etcd", 1.6),
    rate("put, 1", "stead", "etcd", 1.4),
    rate("put, 16", "stead", "etcd", 3.5),
    rate("put, 64", "stead", "etcd", 6.0),
    rate("put, 256", "stead", "etcd", 6.0),
    rate("put, 16", "stead", "redis", 1.2),
    rate("put, 64", "stead", "redis", 1.5),
    rate("put, 256", "stead", "redis", 2.0),
    rate("put in batches of 128, 16", "stead", "etcd", 4.0),
    rate("get, 64", "stead", "etcd", 7.0),
    rate("stale get, 64", "stead", "etcd", 8.0),
    rate("stale get, 64", "stead", "redis", 1.0),
    rate("hot counter, 64", "stead", "redis", 1.5),
    rate("10,000 counters, 64", "stead", "redis", 1.3),
    rate("10,000 counters, 64", "stead", "postgres", 3.0),
    rate("txn of 3, 64", "stead", "etcd", 5.0),
    rate("txn of 3, 64", "stead", "redis", 1.5),
    rate("scan of 100, 16", "stead", "etcd", 5.0),
    rate("scan of 100, 16", "stead", "postgres", 1.0),
    rate("95 % reads, zipf, 64", "stead", "etcd", 8.0),
    rate("95 % reads, zipf, 64", "stead", "redis", 1.2),
    goal("put at 2000 a second", Figure::P99, "stead", "etcd", 0.2),
    goal("put at 2000 a second", Figure::P99, "stead", "redis", 1.0),
    goal("watch at 500 puts a second", Figure::P99, "stead", "etcd", 0.5),
    goal("put, 64", Figure::Cpu, "stead", "etcd", 0.2),
    goal("put, 64", Figure::Written, "stead", "etcd", 0.7),
    goal("put, 64", Figure::Memory, "stead", "etcd", 0.6),
];

/// Returns the report.
pub(crate) fn markdown(records: &Records) -> String {
    let mut text = String::new();
    descriptions(&mut text, records);
    table(
        &mut text,
        records,
        "Requests a second (median of the windows, and half their spread)",
        |of| spread(of(|record| record.rate), 0),
    );
    goals(&mut text, records);
    table(&mut text, records, "Latency, ms: p50 / p99", |of| {
        let (p50, p99) = (
            median(&of(|record| record.p50_ms))?,
            median(&of(|record| record.p99_ms))?,
        );
        Some(format!("{p50:.2} / {p99:.2}"))
    });
    let cost = "Servers: CPU a request, us / written a request, KiB / memory, MiB";
    table(&mut text, records, cost, |of| {
        let cpu = median(&of(|record| record.cpu_us))?;
        let written = median(&of(|record| record.written_kib))?;
        let memory = median(&of(|record| record.memory_mib))?;
        Some(format!("{cpu:.0} / {written:.1} / {memory:.0}"))
    });
    failures(&mut text, records);
    text
}

fn descriptions(text: &mut String, records: &Records) {
    let mut known: Vec<&(String, String)> = Vec::new();
    for description in &records.descriptions {
        if !known.contains(&description) {
            known.push(description);
            // Writing to a string cannot fail.
            let _ = writeln!(text, "- {}: {}", description.0, description.1);
        }
    }
}

/// Column of a system: its figures in one row.
type Figures<'a> = &'a dyn Fn(fn(&Record) -> f64) -> Vec<f64>;

fn table(text: &mut String, records: &Records, title: &str, cell: impl Fn(Figures) -> Option<String>) {
    let was_measured = |name: &&str| records.records.iter().any(|record| record.system == **name);
    let systems: Vec<&str> = NAMES.into_iter().filter(was_measured).collect();
    let _ = writeln!(text, "\n{title}:\n\n| work, callers | {} |", systems.join(" | "));
    let _ = writeln!(text, "| --- |{}", " --- |".repeat(systems.len()));
    for row in work::rows() {
        let name = row.name();
        let cells: Vec<Option<String>> = systems
            .iter()
            .map(|system| cell(&|figure| records.figures(system, &name, figure)))
            .collect();
        if cells.iter().any(Option::is_some) {
            let cells = cells.into_iter().map(|cell| cell.unwrap_or_else(|| "-".to_owned()));
            let _ = writeln!(text, "| {name} | {} |", cells.collect::<Vec<_>>().join(" | "));
        }
    }
}

fn goals(text: &mut String, records: &Records) {
    let _ = writeln!(
        text,
        "\nRatios and their goals:\n\n| work, callers | figure | of | against | ratio | goal | |"
    );
    let _ = writeln!(text, "| --- | --- | --- | --- | --- | --- | --- |");
    for goal in GOALS {
        let of = records.figures(goal.of, goal.row, goal.figure.get());
        let against = records.figures(goal.against, goal.row, goal.figure.get());
        let (Some(own), Some(other)) = (median(&of), median(&against)) else {
            continue;
        };
        let ratio = own / other;
        let (bound, is_reached) = match goal.figure {
            Figure::Rate => ("at least", goal.ratio <= ratio),
            Figure::P99 | Figure::Cpu | Figure::Written | Figure::Memory => ("at most", ratio <= goal.ratio),
        };
        let verdict = if is_reached { "reached" } else { "falls short" };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {} | {ratio:.2} ({}) | {bound} {} | {verdict} |",
            goal.row,
            goal.figure.name(),
            goal.of,
            goal.against,
            range(&of, &against),
            goal.ratio
        );
    }
}

/// Returns the least and the greatest ratio that any two windows have.
fn range(of: &[f64], against: &[f64]) -> String {
    let (Some(least), Some(most)) = (of.first(), of.last()) else {
        return String::new();
    };
    let (Some(other_least), Some(other_most)) = (against.first(), against.last()) else {
        return String::new();
    };
    format!("{:.2} to {:.2}", least / other_most, most / other_least)
}

fn failures(text: &mut String, records: &Records) {
    let failed = records.records.iter().filter(|record| 0 < record.failed);
    for record in failed {
        let _ = writeln!(
            text,
            "\n{} requests of {} failed in a window of {}.",
            record.failed, record.system, record.row
        );
    }
}

/// Returns the median of sorted figures.
pub(crate) fn median(sorted: &[f64]) -> Option<f64> {
    sorted.get(sorted.len() / 2).copied()
}

fn spread(sorted: Vec<f64>, digits: usize) -> Option<String> {
    let median = median(&sorted)?;
    let half = (sorted.last()? - sorted.first()?) / 2.0 / median * 100.0;
    Some(format!("{median:.digits$} ±{half:.0} %"))
}
