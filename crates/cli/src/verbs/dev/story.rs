//! What `stead dev` tells: the customer is `acme`, the data its sessions. Each line says what it measured.

use std::time::Duration;

use anyhow::ensure;
use stead_client::{Consistency, Header, Read, Role, Tenant};
use tokio::time::{Instant, sleep};

use super::{
    load::Load,
    world::{World, until},
};
use crate::output;

const HOME: &str = "eu-west";
const KEY: &str = "session/42";
/// A follower whose home writes is as fresh as this.
const FRESH: Duration = Duration::from_millis(500);
/// How long the writes run before the node dies.
const RUN_UP: Duration = Duration::from_secs(1);
/// How long they go on after it was missed.
const RUN_OUT: Duration = Duration::from_secs(2);
/// Writes after the kill that show that the group has a leader again.
const BACK: usize = 50;
const WRITES_PER_SECOND: u32 = 200;

/// Tells the story.
pub(super) async fn tell(world: &mut World) -> anyhow::Result<()> {
    let home = world.tenant("acme", HOME, HOME).await?;
    let us = world.tenant("acme", HOME, "us-east").await?;
    let ap = world.tenant("acme", HOME, "ap-south").await?;
    // Before anything is measured, routes are known and connections to the home are open.
    for tenant in [&home, &us, &ap] {
        until("acme's home is asked directly", async || {
            let got = tenant.get(KEY).await?;
            Ok(tenant.home().is_some() && !got.header.forwarded)
        })
        .await?;
    }
    neighbours(&home, &us, &ap).await?;
    death(world, &home).await
}

async fn neighbours(home: &Tenant, us: &Tenant, ap: &Tenant) -> anyhow::Result<()> {
    println!("1 acme lives in {HOME}");
    let asked = Instant::now();
    let written = home.put(KEY, "ann, 100 credits").await?;
    beat(
        "put session/42 from eu-west",
        &tenths(asked.elapsed()),
        &revision(&written.header),
    );
    let asked = Instant::now();
    let written = us.put(KEY, "ann, 99 credits").await?;
    let (took, revision) = (asked.elapsed(), revision(&written.header));
    // The token is handed on at once, so that there is something to wait for.
    let token = written
        .header
        .token
        .ok_or_else(|| anyhow::anyhow!("the answer to a put has no token"))?;
    let asked = Instant::now();
    let waited = ap.get_with(KEY, &Read::at(Consistency::Token(token))).await?;
    let wait = asked.elapsed();
    beat("the same from us-east (one round trip)", &tenths(took), &revision);
    println!("2 its neighbours can read");
    let local = Read::at(Consistency::Local);
    until("us-east has followed", async || {
        let got = us.get_with(KEY, &local).await?;
        let header = got.header;
        // A follower at rest pings every 2 s; the first one after the write is a round trip away.
        let is_fresh = header.staleness.is_some_and(|staleness| staleness < FRESH);
        Ok(header.revision >= written.header.revision && header.role == Role::Follower && is_fresh)
    })
    .await?;
    let asked = Instant::now();
    let got = us.get_with(KEY, &local).await?;
    let stale = got.header.staleness.map_or_else(
        || "staleness unknown".into(),
        |stale| format!("at most {} stale", millis(stale)),
    );
    beat(
        "us-east, LOCAL",
        &tenths(asked.elapsed()),
        &format!("follower, {stale}"),
    );
    let value = waited.item.map(|item| item.value).unwrap_or_default();
    ensure!(
        value == "ann, 99 credits",
        "ap-south answered with {value:?}, which is not what the token has seen"
    );
    beat(
        "ap-south, with the writer's token",
        &millis(wait),
        &format!("waited for {revision}"),
    );
    Ok(())
}

async fn death(world: &mut World, home: &Tenant) -> anyhow::Result<()> {
    println!("3 a node dies: leader of {HOME}, SIGKILL, {WRITES_PER_SECOND} writes/s running");
    let load = Load::start(home.clone(), format!("story/{}", world.run), WRITES_PER_SECOND);
    sleep(RUN_UP).await;
    let leader = world.leader(home).await?;
    load.take_gap().await;
    world.cluster.lock().await.kill_node(&leader).await?;
    let killed_at = load.acknowledged().await;
    until(
        "writes go on",
        async || Ok(load.acknowledged().await > killed_at + BACK),
    )
    .await?;
    sleep(RUN_OUT).await;
    let gap = load.take_gap().await;
    let report = load.finish().await?;
    println!(
        "  longest gap {:.2} s · {} lost · {} errors",
        gap.as_secs_f64(),
        report.lost,
        report.errors.len()
    );
    world.cluster.lock().await.start_node(&leader)?;
    world.ready().await?;
    ensure!(
        report.lost == 0,
        "{} of {} acknowledged writes are lost",
        report.lost,
        report.acknowledged
    );
    ensure!(report.twice == 0, "{} writes happened twice", report.twice);
    ensure!(report.errors.is_empty(), "callers were told: {}", report.errors_shown());
    Ok(())
}

fn beat(what: &str, figure: &str, text: &str) {
    println!("  {what:<42}{figure:>7}  {text}");
}

fn revision(header: &Header) -> String {
    format!("acme@{}", header.revision)
}

fn tenths(duration: Duration) -> String {
    format!("{:.1} ms", duration.as_secs_f64() * 1e3)
}

fn millis(duration: Duration) -> String {
    if duration < Duration::from_millis(10) {
        output::duration(duration)
    } else {
        format!("{:.0} ms", duration.as_secs_f64() * 1e3)
    }
}
