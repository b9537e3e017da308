//! Step: resource usage of idle nodes.

use std::time::Duration;

use anyhow::Context;
use stead_testing::process::{self, Usage};
use tokio::time::{Instant, sleep};

use super::verdict::Verdict;
use crate::verbs::dev::world::World;

/// Time for earlier work to end.
const SETTLE: Duration = Duration::from_secs(5);
const WATCHED: Duration = Duration::from_secs(30);
const CPU_PERCENT: f64 = 15.0;
const MEMORY_MIB: f64 = 60.0;

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    world.drop_clients();
    sleep(SETTLE).await;
    let (started, before) = (Instant::now(), usages(world).await?);
    sleep(WATCHED).await;
    let after = usages(world).await?;
    let sum = |usages: &[Usage]| usages.iter().map(|usage| usage.cpu).sum::<Duration>();
    let cpu = (sum(&after) - sum(&before)).as_secs_f64() / started.elapsed().as_secs_f64() * 100.0;
    let memory = after.iter().map(|usage| usage.resident).max().unwrap_or_default();
    let verdict = Verdict::default().number("nine together", cpu, CPU_PERCENT, "% of a core");
    Ok(verdict.number("largest", memory as f64 / f64::from(1 << 20), MEMORY_MIB, "MiB"))
}

async fn usages(world: &World) -> anyhow::Result<Vec<Usage>> {
    let mut cluster = world.cluster.lock().await;
    let nodes = cluster.nodes().to_vec();
    let usage = |name: &str| {
        let process = cluster
            .process(name)
            .with_context(|| format!("{name} is not running"))?;
        Ok(process::usage(process)?)
    };
    nodes.iter().map(|node| node.name.as_str()).map(usage).collect()
}
