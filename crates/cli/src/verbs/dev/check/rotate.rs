//! Step: certificates, keys and the CA are replaced under load in three regions, and a node is restarted in between: no
//! request fails, no watch misses a change.

use std::{collections::BTreeMap, time::SystemTime};

use anyhow::{Context, ensure};
use stead_cert::{CertificateFolder, LIFETIME_CA, Validity};
use stead_client::{KeyRange, WatchMessage, WatchOptions, Watcher};
use stead_testing::load::Load;
use tokio::{
    task::JoinSet,
    time::{Duration, timeout},
};

use super::verdict::Verdict;
use crate::verbs::dev::{
    plan::REGIONS,
    world::{WAIT_TIMEOUT, World, until},
};

const PUTS_PER_SECOND: u32 = 50;
/// Time that a client takes at most to look at its files again.
const CLIENT_LOOK_INTERVAL: Duration = Duration::from_secs(6);

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let (certificates, is_encrypted) = {
        let cluster = world.cluster.lock().await;
        (cluster.certificates(), cluster.tls().is_some())
    };
    ensure!(is_encrypted, "this cluster speaks plain text: run it without --plain");
    let (mut loads, mut watches) = (Vec::new(), JoinSet::new());
    for (region, _) in REGIONS {
        let tenant = world.tenant(&format!("check-{region}"), region, region).await?;
        let prefix = format!("rotate/{}", world.run);
        let ranges = vec![KeyRange::prefix(format!("{prefix}/"))];
        let options = WatchOptions {
            ranges,
            ..WatchOptions::default()
        };
        let watcher = tenant.watch(options).await?;
        watches.spawn(count(watcher, format!("{prefix}/end")));
        loads.push((region, tenant.clone(), Load::start(tenant, prefix, PUTS_PER_SECOND)));
    }
    let mut fresh = 0;
    replace_all(world, &certificates, &mut fresh).await?;
    let mut verdict = Verdict::default();
    let mut written = 0;
    for (region, tenant, load) in loads {
        let report = load.finish().await?;
        tenant.put(format!("rotate/{}/end", world.run), "end").await?;
        written += report.acknowledged.len();
        verdict = verdict
            .none(&format!("errors in {region}"), report.errors.len())
            .none("lost", report.lost);
    }
    let mut seen = 0;
    while let Some(counted) = watches.join_next().await {
        seen += counted??;
    }
    Ok(verdict
        .none("changes that watches missed", written.saturating_sub(seen))
        .note(format!(
            "{written} writes beside a new CA, new keys, a restart and {fresh} new clients"
        )))
}

/// Replaces the CA in its three steps, and connects anew after each.
async fn replace_all(world: &mut World, certificates: &CertificateFolder, fresh: &mut usize) -> anyhow::Result<()> {
    let before = reloads(world).await?;
    certificates.begin_roll_over(Validity::from_now(SystemTime::now(), LIFETIME_CA))?;
    reloaded(world, &before).await?;
    *fresh += connect_anew(world).await?;
    // Clients of this process look when they connect; those that have not looked yet must know both CAs.
    tokio::time::sleep(CLIENT_LOOK_INTERVAL).await;
    let before = reloads(world).await?;
    certificates.renew(SystemTime::now())?;
    reloaded(world, &before).await?;
    *fresh += connect_anew(world).await?;
    restart_follower(world).await?;
    let before = reloads(world).await?;
    certificates.end_roll_over()?;
    reloaded(world, &before).await?;
    *fresh += connect_anew(world).await?;
    restart_follower(world).await
}

/// Returns how often each node has loaded new certificates.
async fn reloads(world: &World) -> anyhow::Result<BTreeMap<String, f64>> {
    let nodes = world.cluster.lock().await.nodes().to_vec();
    let mut counts = BTreeMap::new();
    for node in nodes {
        let metrics = node.metrics().await?;
        let of = |name: &str| -> f64 {
            let line = metrics.lines().find(|line| line.starts_with(name));
            line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
                .unwrap_or(0.0)
        };
        ensure!(
            of("stead_tls_reload_failures_total") < 1.0,
            "{} could not load its files",
            node.name
        );
        counts.insert(node.name.clone(), of("stead_tls_reloads_total"));
    }
    Ok(counts)
}

/// Waits until every node has loaded what was just written.
async fn reloaded(world: &World, before: &BTreeMap<String, f64>) -> anyhow::Result<()> {
    until("every node has loaded its new files", async || {
        let now = reloads(world).await?;
        Ok(before.iter().all(|(node, count)| now.get(node) > Some(count)))
    })
    .await
}

/// Connects to each region with a client of its own; returns their number.
async fn connect_anew(world: &World) -> anyhow::Result<usize> {
    for (region, _) in REGIONS {
        let client = world.nearest_only_client(region).await;
        client.with_context(|| format!("a new client in {region}"))?;
    }
    Ok(REGIONS.len())
}

/// Restarts a node that does not lead, so that others dial it, and it dials them.
async fn restart_follower(world: &mut World) -> anyhow::Result<()> {
    let (region, _) = REGIONS[1];
    let tenant = world.tenant(&format!("check-{region}"), region, region).await?;
    let leader = world.leader(&tenant).await?;
    let follower = world
        .others(&leader)
        .into_iter()
        .next()
        .context("the home has one node only")?;
    world.cluster.lock().await.terminate_node(&follower).await?;
    world.cluster.lock().await.start_node(&follower)?;
    world.ready().await
}

/// Counts the changes of a watch until its last one.
async fn count(mut watcher: Watcher, end: String) -> anyhow::Result<usize> {
    let mut counted = 0;
    loop {
        let told = timeout(WAIT_TIMEOUT, watcher.next()).await??;
        let WatchMessage::Changes(events) = told else { continue };
        for event in events {
            if event.item.key == end {
                return Ok(counted);
            }
            counted += 1;
        }
    }
}
