//! Step: watchers in every region get every change once, in order, while a leader dies and a link is cut.

use std::time::Duration;

use anyhow::ensure;
use stead_client::{KeyRange, Tenant, WatchMessage, WatchOptions, Watcher};
use tokio::{
    task::JoinSet,
    time::{sleep, timeout},
};

use super::verdict::Verdict;
use crate::verbs::dev::{
    plan::REGIONS,
    world::{WAIT_TIMEOUT, World, until},
};
use stead_testing::load::Load;

const HOME: &str = "eu-west";
const PUTS_PER_SECOND: u32 = 200;
const CUT: Duration = Duration::from_secs(3);
const WARM_UP: Duration = Duration::from_secs(1);
/// Writes after a fault that show that it is over.
const RECOVERY_WRITES: usize = 100;

/// Writes that one watcher has received: their numbers, in the order of their arrival.
struct ReceivedWrites {
    region: &'static str,
    numbers: Vec<u64>,
    out_of_order: usize,
}

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let home = world.tenant("check-eu-west", HOME, HOME).await?;
    let prefix = format!("watch/{}", world.run);
    let mut watchers = JoinSet::new();
    for (region, _) in REGIONS {
        let tenant = world.tenant("check-eu-west", HOME, region).await?;
        let watch = WatchOptions {
            ranges: vec![KeyRange::prefix(format!("{prefix}/"))],
            ..WatchOptions::default()
        };
        let watcher = tenant.watch(watch).await?;
        watchers.spawn(receive(region, watcher, format!("{prefix}/end")));
    }
    let load = Load::start(home.clone(), prefix.clone(), PUTS_PER_SECOND);
    sleep(WARM_UP).await;
    faults(world, &home, &load).await?;
    let acknowledged = load.acknowledged().await;
    let report = load.finish().await?;
    home.put(format!("{prefix}/end"), "end").await?;
    let mut verdict = Verdict::default();
    while let Some(received) = watchers.join_next().await {
        let received = received??;
        let mut numbers = received.numbers.clone();
        numbers.sort_unstable();
        let told = numbers.len();
        numbers.dedup();
        let missed = report.acknowledged.len().saturating_sub(numbers.len());
        verdict = verdict
            .none(&format!("missed in {}", received.region), missed)
            .none("told twice", told - numbers.len())
            .none("out of order", received.out_of_order);
    }
    ensure!(
        acknowledged > RECOVERY_WRITES,
        "{acknowledged} writes are too few to show anything"
    );
    Ok(verdict.none("lost", report.lost).note(format!(
        "{} writes, a leader killed, a line cut",
        report.acknowledged.len()
    )))
}

async fn faults(world: &World, home: &Tenant, load: &Load) -> anyhow::Result<()> {
    let goes_on = async || {
        let before = load.acknowledged().await;
        until("writes go on", async || {
            Ok(load.acknowledged().await > before + RECOVERY_WRITES)
        })
        .await
    };
    let leader = world.leader(home).await?;
    world.cluster.lock().await.kill_node(&leader).await?;
    goes_on().await?;
    world.cluster.lock().await.start_node(&leader)?;
    world.ready().await?;
    let link = world.cluster.lock().await.link(HOME, "us-east")?;
    link.cut();
    sleep(CUT).await;
    link.heal();
    goes_on().await
}

async fn receive(region: &'static str, mut watcher: Watcher, end: String) -> anyhow::Result<ReceivedWrites> {
    let mut received = ReceivedWrites {
        region,
        numbers: Vec::new(),
        out_of_order: 0,
    };
    let mut last = None;
    loop {
        let told = timeout(WAIT_TIMEOUT, watcher.next()).await??;
        let WatchMessage::Changes(events) = told else { continue };
        for event in events {
            received.out_of_order += usize::from(last.is_some_and(|last| event.item.modified <= last));
            last = Some(event.item.modified);
            if event.item.key == end {
                return Ok(received);
            }
            let number = event.item.key.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
            received.numbers.push(std::str::from_utf8(number)?.parse()?);
        }
    }
}
