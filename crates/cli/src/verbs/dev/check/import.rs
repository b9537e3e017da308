//! Acceptance step of `stead kv import`: the airports with their map of homes, while the command is killed and started
//! again, give the content of the step `airports`, each row once. A file whose keys are there twice, one row in ten broken,
//! gives the later rows and a report of the broken ones, while the command is interrupted and started again.

use std::{
    collections::BTreeMap,
    fmt::Write as _,
    path::Path,
    process::{Output, Stdio},
    time::Duration,
};

use anyhow::ensure;
use bytes::Bytes;
use stead_client::{Consistency, ReadOptions, ScanOptions, Tenant};
use stead_testing::process;
use tokio::{
    process::Child,
    time::{Instant, sleep, timeout},
};

use super::{Verdict, command_line::CommandLine};
use crate::verbs::dev::{
    airports::{self, Country},
    plan::REGIONS,
    world::{WAIT_TIMEOUT, World},
};

/// Number of times that the command is killed.
const KILLS: u64 = 5;
/// Tenant and keys of the file whose keys are there twice, and how often a row of it is broken.
const REPEATS: &str = "check-import-repeats";
const REPEATED_KEYS: usize = 1_000;
const BROKEN_EVERY: usize = 10;
const POLL_INTERVAL: Duration = Duration::from_millis(10);

pub(super) async fn run(world: &mut World, data: &Path) -> anyhow::Result<Verdict> {
    let text = airports::read()?;
    let countries = airports::parse(&text)?;
    let import = Import::prepare(world, data, &text, &countries).await?;
    let started = Instant::now();
    let rows: usize = countries.values().map(|country| country.airports.len()).sum();
    let ended = import.run("airports.csv", rows, Signal::Kill).await?;
    ensure!(
        ended.status.success(),
        "stead kv import: {}",
        String::from_utf8_lossy(&ended.stderr).trim_end()
    );
    let took = started.elapsed();
    let (mut different, mut twice) = (0, 0);
    for (name, country) in &countries {
        let tenant = world.client(country.home()).await?.tenant(name)?;
        let (held, changes) = contents(&tenant, &import.prefix).await?;
        different += usize::from(held != country.airports);
        twice += changes - held.len();
    }
    let (wrong, unreported) = repeats(world, &import).await?;
    Ok(Verdict::default()
        .note(format!(
            "{rows} rows, killed {KILLS} times, {:.1} s",
            took.as_secs_f64()
        ))
        .none("tenants differ", different)
        .none("rows written twice", twice)
        .none("rows lost at interrupts", wrong)
        .none("broken rows not reported", unreported))
}

/// Imports a file in which each key is there twice in a row, and some rows are broken, while the command is interrupted;
/// returns how many keys have not the later value, and how many broken rows the report lacks or has twice.
async fn repeats(world: &mut World, import: &Import) -> anyhow::Result<(usize, usize)> {
    let tenant = world.tenant(REPEATS, REGIONS[0].0, REGIONS[0].0).await?;
    let mut text = "icao,country,value\n".to_owned();
    let mut broken = Vec::new();
    for key in 0..REPEATED_KEYS {
        writeln!(text, "{key:06},{REPEATS},earlier")?;
        if key % BROKEN_EVERY == 0 {
            writeln!(text, "{key:06}")?;
            broken.push(text.lines().count() as u64);
        }
        writeln!(text, "{key:06},{REPEATS},later")?;
    }
    let file = "repeats.csv";
    std::fs::write(import.command_line.folder.join(file), &text)?;
    let ended = import.run(file, text.lines().count(), Signal::Interrupt).await?;
    let stderr = String::from_utf8_lossy(&ended.stderr);
    ensure!(stderr.contains("rejected"), "stead kv import: {}", stderr.trim_end());
    let (held, _) = contents(&tenant, &import.prefix).await?;
    let is_right = |key: &usize| {
        let value = held.get(&format!("{key:06}"));
        value.is_some_and(|value| value.ends_with(b",later"))
    };
    let wrong = (0..REPEATED_KEYS).filter(|key| !is_right(key)).count();
    let report = std::fs::read_to_string(import.command_line.folder.join("repeats.csv.rejected"))?;
    let mut reported = BTreeMap::<u64, usize>::new();
    for line in report.lines() {
        let entry: serde_json::Value = serde_json::from_str(line)?;
        *reported.entry(entry["line"].as_u64().unwrap_or_default()).or_default() += 1;
    }
    let unreported = broken.iter().filter(|line| reported.get(line) != Some(&1)).count();
    Ok((wrong, unreported))
}

/// How the command is stopped.
#[derive(Clone, Copy)]
enum Signal {
    Kill,
    /// As by Ctrl-C: it ends once what it has sent is answered.
    Interrupt,
}

/// Command under test, and its files.
struct Import {
    command_line: CommandLine,
    prefix: String,
}

impl Import {
    async fn prepare(
        world: &World,
        data: &Path,
        text: &str,
        countries: &BTreeMap<String, Country>,
    ) -> anyhow::Result<Self> {
        let command_line = CommandLine::prepare(world, data, "import").await?;
        std::fs::write(command_line.folder.join("airports.csv"), text)?;
        let mut homes = "tenant,home\n".to_owned();
        for (name, country) in countries {
            writeln!(homes, "{name},{}", country.home())?;
        }
        std::fs::write(command_line.folder.join("homes.csv"), homes)?;
        Ok(Self {
            command_line,
            prefix: format!("{}/", world.run),
        })
    }

    /// Imports a file of so many rows, and stops the command again and again meanwhile; returns the output of the last one.
    async fn run(&self, file: &str, rows: usize, signal: Signal) -> anyhow::Result<Output> {
        for stop in 1..=KILLS {
            let mut running = self.start(file)?;
            self.wait_for(file, &mut running, stop * rows as u64 / (KILLS + 1))
                .await?;
            match signal {
                Signal::Interrupt => {
                    process::interrupt(&running);
                    timeout(WAIT_TIMEOUT, running.wait()).await??;
                }
                Signal::Kill => running.kill().await?,
            }
        }
        Ok(self.start(file)?.wait_with_output().await?)
    }

    fn start(&self, file: &str) -> anyhow::Result<Child> {
        let mut command = self.command_line.command(&["kv", "import", file])?;
        command.args(["--key", "icao", "--tenant-column", "country", "--lowercase"]);
        command.args(["--home-map", "homes.csv", "--key-prefix", &self.prefix]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        Ok(command.spawn()?)
    }

    /// Waits until so many records are finished, or the command has ended.
    async fn wait_for(&self, file: &str, running: &mut Child, records: u64) -> anyhow::Result<()> {
        let until = Instant::now() + WAIT_TIMEOUT;
        let path = self.command_line.folder.join(format!("{file}.progress"));
        while running.try_wait()?.is_none() {
            let progress = std::fs::read(&path).ok();
            let progress: Option<serde_json::Value> = progress.and_then(|text| serde_json::from_slice(&text).ok());
            let finished = progress.and_then(|progress| progress["finished"]["record"].as_u64());
            if finished.is_some_and(|finished| finished >= records) {
                break;
            }
            ensure!(
                Instant::now() < until,
                "the import does not reach record {records} in time"
            );
            sleep(POLL_INTERVAL).await;
        }
        Ok(())
    }
}

/// Returns the airports below a prefix, and the number of changes that their keys have had.
async fn contents(tenant: &Tenant, prefix: &str) -> anyhow::Result<(BTreeMap<String, Bytes>, usize)> {
    let scan = ScanOptions {
        prefix: Bytes::copy_from_slice(prefix.as_bytes()),
        read: ReadOptions::at(Consistency::Linearizable),
        ..ScanOptions::default()
    };
    let (mut held, mut changes) = (BTreeMap::new(), 0);
    let mut items = tenant.scan_stream(&scan);
    while let Some(item) = items.next().await? {
        let key = String::from_utf8_lossy(&item.key[prefix.len()..]).into_owned();
        changes += usize::try_from(item.version)?;
        held.insert(key, item.value);
    }
    Ok((held, changes))
}
