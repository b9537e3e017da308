//! Matrix of systems and work: Stead beside the systems that people use today, in one run on one machine.
//!
//! `benches/run.sh` builds what it needs and writes `docs/performance.md`'s tables; `benches/README.md` says how to get
//! the other systems and how to read the figures. A system that is not installed is left out, with a line that says so.

mod chart;
mod load;
mod processes;
mod record;
mod report;
mod systems;
mod work;

use std::{fs, path::PathBuf, process::Command, sync::Arc, time::Duration};

use anyhow::{Context, Result};
use clap::Parser;
use stead_testing::SyncProbe;

use crate::{
    load::Times,
    processes::Usage,
    record::{Record, Records},
    systems::System,
    work::Row,
};

#[derive(Debug, Parser)]
struct Options {
    /// Systems to measure; all without
    #[arg(long, value_delimiter = ',')]
    systems: Vec<String>,
    /// Rows to measure whose name begins so; all without
    #[arg(long)]
    rows: Vec<String>,
    /// Windows of each row
    #[arg(long, default_value_t = 3)]
    windows: usize,
    /// Length of a window, in milliseconds
    #[arg(long, default_value_t = 5_000)]
    window_ms: u64,
    /// Time before the first window, in milliseconds
    #[arg(long, default_value_t = 2_000)]
    warm_up_ms: u64,
    /// File for the figures
    #[arg(long)]
    figures: Option<PathBuf>,
    /// Measures nothing, and reports figures of these files
    #[arg(long, num_args = 1..)]
    report: Vec<PathBuf>,
    /// File for a picture
    #[arg(long)]
    svg: Option<PathBuf>,
    /// Passed by cargo
    #[arg(long, hide = true)]
    bench: bool,
}

fn main() -> Result<()> {
    let options = Options::parse();
    let mut records = Records::default();
    if options.report.is_empty() {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
        runtime.block_on(measure_all(&options, &mut records))?;
        if let Some(path) = &options.figures {
            records.write(path)?;
        }
    } else {
        for path in &options.report {
            records.read(path)?;
        }
    }
    print!("{}", report::markdown(&records));
    if let Some(path) = &options.svg {
        fs::write(path, chart::svg(&records))?;
    }
    Ok(())
}

async fn measure_all(options: &Options, records: &mut Records) -> Result<()> {
    let folder = tempfile::tempdir()?;
    let probe = SyncProbe::start(folder.path())?;
    records.descriptions.extend(machine()?);
    let all = systems::NAMES.map(str::to_owned).to_vec();
    let names = if options.systems.is_empty() {
        &all
    } else {
        &options.systems
    };
    for name in names {
        match systems::start(name).await {
            Ok(system) => {
                records.descriptions.push((name.clone(), system.description()));
                measure_system(name, &system, options, records)
                    .await
                    .with_context(|| format!("system {name}"))?;
            }
            Err(error) => {
                eprintln!("{name} is left out: {error:#}");
                records.descriptions.push((name.clone(), format!("left out: {error}")));
            }
        }
    }
    let p99 = probe.p99().await.as_secs_f64() * 1e3;
    let text = format!("p99 {p99:.1} ms while all was measured");
    records.descriptions.push(("fdatasync of 4 KiB".to_owned(), text));
    Ok(())
}

async fn measure_system(name: &str, system: &Arc<dyn System>, options: &Options, records: &mut Records) -> Result<()> {
    system.fill().await.context("creation of the keys")?;
    let times = Times {
        warm_up: Duration::from_millis(options.warm_up_ms),
        window: Duration::from_millis(options.window_ms),
        windows: options.windows,
    };
    let is_selected =
        |row: &Row| options.rows.is_empty() || options.rows.iter().any(|start| row.name().starts_with(start.as_str()));
    for row in work::rows()
        .into_iter()
        .filter(|row| system.does(row.work) && is_selected(row))
    {
        let mut usage: Vec<Usage> = Vec::new();
        let edge = || {
            usage.push(system.usage()?);
            Ok(())
        };
        let windows = load::measure(system, row, times, edge)
            .await
            .with_context(|| row.name())?;
        for (at, window) in windows.iter().enumerate() {
            let record = Record::new(name, row, window, usage[2 * at], usage[2 * at + 1]);
            let Record {
                rate, p50_ms, p99_ms, ..
            } = record;
            eprintln!(
                "{name}: {}: {rate:.0} a second, p50 {p50_ms:.2} ms, p99 {p99_ms:.2} ms",
                row.name()
            );
            if let Some(error) = &window.error {
                eprintln!("{name}: {}: {} failed, the first: {error}", row.name(), window.failed);
            }
            records.records.push(record);
        }
    }
    Ok(())
}

/// Returns descriptions of date and machine.
fn machine() -> Result<[(String, String); 2]> {
    let output = |program: &str, arguments: &[&str]| -> Result<String> {
        let output = Command::new(program).args(arguments).output()?;
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let cores = std::thread::available_parallelism()?;
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu
        .lines()
        .find_map(|line| line.strip_prefix("model name"))
        .unwrap_or_default();
    let model = model.trim_start_matches(['\t', ' ', ':']);
    let kernel = output("uname", &["-r"])?;
    let text = format!("{cores} cores ({model}) that servers and callers share, Linux {kernel}");
    Ok([
        ("date".to_owned(), output("date", &["-u", "+%-d %B %Y"])?),
        ("machine".to_owned(), text),
    ])
}
