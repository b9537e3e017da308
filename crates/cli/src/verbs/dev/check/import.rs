//! Acceptance step of `stead kv import`: the airports with their map of homes, while the command is killed and started
//! again, give the content of the step `airports`, each row once.

use std::{collections::BTreeMap, fmt::Write as _, path::Path, process::Stdio, time::Duration};

use anyhow::ensure;
use bytes::Bytes;
use stead_client::{Consistency, ReadOptions, ScanOptions, Tenant};
use tokio::{
    process::Child,
    time::{Instant, sleep},
};

use super::{Verdict, command_line::CommandLine};
use crate::verbs::dev::{
    airports::{self, Country},
    world::{WAIT_TIMEOUT, World},
};

/// Number of times that the command is killed.
const KILLS: u64 = 5;
const POLL_INTERVAL: Duration = Duration::from_millis(10);

pub(super) async fn run(world: &mut World, data: &Path) -> anyhow::Result<Verdict> {
    let text = airports::read()?;
    let countries = airports::parse(&text)?;
    let import = Import::prepare(world, data, &text, &countries).await?;
    let started = Instant::now();
    let rows: usize = countries.values().map(|country| country.airports.len()).sum();
    for kill in 1..=KILLS {
        let mut running = import.start()?;
        import.wait_for(&mut running, kill * rows as u64 / (KILLS + 1)).await?;
        running.kill().await?;
    }
    let ended = import.start()?.wait_with_output().await?;
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
    Ok(Verdict::default()
        .note(format!(
            "{rows} rows, killed {KILLS} times, {:.1} s",
            took.as_secs_f64()
        ))
        .none("tenants differ", different)
        .none("rows written twice", twice))
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

    fn start(&self) -> anyhow::Result<Child> {
        let mut command = self.command_line.command(&["kv", "import", "airports.csv"])?;
        command.args(["--key", "icao", "--tenant-column", "country", "--lowercase"]);
        command.args(["--home-map", "homes.csv", "--key-prefix", &self.prefix]);
        command.stdout(Stdio::null()).stderr(Stdio::piped());
        Ok(command.spawn()?)
    }

    /// Waits until so many records are finished, or the command has ended.
    async fn wait_for(&self, running: &mut Child, records: u64) -> anyhow::Result<()> {
        let until = Instant::now() + WAIT_TIMEOUT;
        let path = self.command_line.folder.join("airports.csv.progress");
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
