//! Demo of `stead dev`: the customer is `acme`, the data its sessions. Each line shows a measurement.

mod region_loss;

use std::time::Duration;

use anyhow::ensure;
use stead_client::{Consistency, Header, Increment, MoveSource, ReadOptions, Role, Tenant, WriteOptions};
use tokio::time::{Instant, sleep};

use super::world::{World, until};
use crate::output;
use stead_testing::{
    load::{Load, percentile},
    moves::move_to,
};

const HOME: &str = "eu-west";
/// Region that acme moves to.
const NEXT_HOME: &str = "us-east";
const KEY: &str = "session/42";
/// Staleness of a follower whose home writes.
const FRESH: Duration = Duration::from_millis(500);
/// Duration of the writes before the node is killed.
const WARM_UP: Duration = Duration::from_secs(1);
/// Duration of the writes after their recovery.
const COOL_DOWN: Duration = Duration::from_secs(2);
/// Writes after the kill that show that the group has a leader again.
const RECOVERY_WRITES: usize = 50;
const WRITES_PER_SECOND: u32 = 200;
/// Record that both regions change, and the number of changes of each.
const RECORD: &str = "customer/42";
const PARTS: usize = 10;
/// Moves of acme between the two; the last one makes [`NEXT_HOME`] its home.
const MOVES: usize = 3;
/// Credits that requests take, their number, and the number of requests.
const CREDITS: &str = "credits/42";
const GRANTED: usize = 100;
const REQUESTS: usize = 120;

/// Runs the demo.
pub(super) async fn run(world: &mut World) -> anyhow::Result<()> {
    let home = world.tenant("acme", HOME, HOME).await?;
    return_home(world).await?;
    let us = world.tenant("acme", HOME, NEXT_HOME).await?;
    let ap = world.tenant("acme", HOME, "ap-south").await?;
    // Before anything is measured, routes are known and connections to the home are open.
    for tenant in [&home, &us, &ap] {
        until("acme's home is asked directly", async || {
            let got = tenant.get(KEY).await?;
            Ok(tenant.home().is_some() && !got.header.forwarded)
        })
        .await?;
    }
    read_from_followers(&home, &us, &ap).await?;
    update_concurrently(&home, &us).await?;
    credits(&home).await?;
    kill_leader(world, &home).await?;
    move_home(world).await?;
    region_loss::run(world).await
}

/// Moves acme back if an operator has moved it: the demo begins in [`HOME`].
async fn return_home(world: &mut World) -> anyhow::Result<()> {
    let admin = world.client(HOME).await?.admin();
    let home = admin.tenant("acme").await?.home_region;
    if home != HOME {
        println!("0 acme lives in {home}: it moves back to {HOME}, where the demo begins");
        move_to(&admin, "acme", HOME, MoveSource::Follow).await?;
    }
    Ok(())
}

async fn read_from_followers(home: &Tenant, us: &Tenant, ap: &Tenant) -> anyhow::Result<()> {
    println!("1 acme lives in {HOME}");
    let started = Instant::now();
    let written = home.put(KEY, "ann, 100 credits").await?;
    print_step(
        "put session/42 from eu-west",
        &tenths(started.elapsed()),
        &revision(&written.header),
    );
    let started = Instant::now();
    let written = us.put(KEY, "ann, 99 credits").await?;
    let (took, revision) = (started.elapsed(), revision(&written.header));
    // The token is used at once, so that there is something to wait for.
    let token = written
        .header
        .token
        .ok_or_else(|| anyhow::anyhow!("the answer to a put has no token"))?;
    let started = Instant::now();
    let waited = ap.get_with(KEY, &ReadOptions::at(Consistency::Token(token))).await?;
    let wait = started.elapsed();
    print_step("the same from us-east (one round trip)", &tenths(took), &revision);
    println!("2 its neighbours can read");
    let local = ReadOptions::at(Consistency::Local);
    until("us-east has followed", async || {
        let got = us.get_with(KEY, &local).await?;
        let header = got.header;
        // An idle follower pings every 2 s; the first ping after the write is a round trip away.
        let is_fresh = header.staleness.is_some_and(|staleness| staleness < FRESH);
        Ok(header.revision >= written.header.revision && header.role == Role::Follower && is_fresh)
    })
    .await?;
    let started = Instant::now();
    let got = us.get_with(KEY, &local).await?;
    let stale = got.header.staleness.map_or_else(
        || "staleness unknown".into(),
        |stale| format!("at most {} stale", millis(stale)),
    );
    print_step(
        "us-east, LOCAL",
        &tenths(started.elapsed()),
        &format!("follower, {stale}"),
    );
    let value = waited.item.map(|item| item.value).unwrap_or_default();
    ensure!(
        value == "ann, 99 credits",
        "ap-south answered with {value:?}, which is not what the token has seen"
    );
    print_step(
        "ap-south, with the writer's token",
        &millis(wait),
        &format!("waited for {revision}"),
    );
    Ok(())
}

/// Two regions change one customer's record at once, each its own part.
async fn update_concurrently(home: &Tenant, us: &Tenant) -> anyhow::Result<()> {
    println!("3 two regions change one record at once");
    home.put(RECORD, "").await?;
    let add = async |tenant: &Tenant, part: &'static str| {
        for _ in 0..PARTS {
            tenant
                .update(RECORD, |item| {
                    let held = item.map_or(&b""[..], |item| &item.value);
                    Some([held, part.as_bytes()].concat().into())
                })
                .await?;
        }
        anyhow::Ok(())
    };
    let started = Instant::now();
    let (here, there) = tokio::join!(add(home, "e"), add(us, "u"));
    here?;
    there?;
    let took = started.elapsed();
    let item = home.get(RECORD).await?.item;
    let value = item.map(|item| item.value).unwrap_or_default();
    let count = |part: u8| value.iter().filter(|byte| **byte == part).count();
    let (here, there) = (count(b'e'), count(b'u'));
    ensure!(
        here == PARTS && there == PARTS,
        "an update is lost: {here} and {there} of {PARTS} are there"
    );
    print_step(
        "read, change, write if nobody else did",
        &millis(took),
        &format!("{here} of {PARTS} from {HOME}, {there} of {PARTS} from us-east, none lost"),
    );
    Ok(())
}

/// Each request takes a credit before it does anything; the last ones find none.
async fn credits(home: &Tenant) -> anyhow::Result<()> {
    println!("4 every request checks a credit first");
    home.put(CREDITS, GRANTED.to_string()).await?;
    let one_less = Increment {
        floor: Some(0),
        ..Increment::by(-1)
    };
    let check = async || {
        let started = Instant::now();
        let checked = home.increment_with(CREDITS, one_less, &WriteOptions::default()).await?;
        anyhow::Ok((started.elapsed(), checked.admitted))
    };
    let checks = futures::future::join_all((0..REQUESTS).map(|_| check())).await;
    let mut taken = Vec::with_capacity(REQUESTS);
    let mut admitted = 0;
    for checked in checks {
        let (took, is_admitted) = checked?;
        taken.push(took);
        admitted += usize::from(is_admitted);
    }
    ensure!(admitted == GRANTED, "{admitted} of {GRANTED} credits were given out");
    print_step(
        &format!("{REQUESTS} at once, {GRANTED} credits"),
        &tenths(percentile(&mut taken, 0.5)),
        &format!("{admitted} admitted, {} told to come back", REQUESTS - admitted),
    );
    Ok(())
}

async fn kill_leader(world: &mut World, home: &Tenant) -> anyhow::Result<()> {
    println!("5 a node dies: leader of {HOME}, SIGKILL, {WRITES_PER_SECOND} writes/s running");
    let load = Load::start(home.clone(), format!("story/{}", world.run), WRITES_PER_SECOND);
    sleep(WARM_UP).await;
    let leader = world.leader(home).await?;
    load.take_gap().await;
    world.cluster.lock().await.kill_node(&leader).await?;
    let killed_at = load.acknowledged().await;
    until("writes go on", async || {
        Ok(load.acknowledged().await > killed_at + RECOVERY_WRITES)
    })
    .await?;
    sleep(COOL_DOWN).await;
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
        report.acknowledged.len()
    );
    ensure!(report.twice == 0, "{} writes happened twice", report.twice);
    ensure!(report.errors.is_empty(), "callers were told: {}", report.errors_shown());
    Ok(())
}

/// Moves acme, back, and again, while clients beside both homes write.
async fn move_home(world: &mut World) -> anyhow::Result<()> {
    println!("6 acme moves to {NEXT_HOME}, back, and again: {WRITES_PER_SECOND} writes/s running in each of the two");
    let admin = world.client(HOME).await?.admin();
    let mut moving = world
        .moving_tenant("acme", [HOME, NEXT_HOME], WRITES_PER_SECOND)
        .await?;
    for _ in 0..MOVES {
        let (from, to) = (moving.home().to_owned(), moving.target().to_owned());
        let pause = moving.move_once().await?;
        print_step(
            &format!("{from} to {to}, epoch {}", admin.tenant("acme").await?.epoch),
            &format!("{:.1} s", pause.took.as_secs_f64()),
            &format!(
                "no write at the homes for {} and none acknowledged in {from} for {}",
                millis(pause.groups),
                millis(pause.source)
            ),
        );
    }
    let report = moving.finish().await?;
    println!(
        "  {} lost · {} twice · {} out of order · {} errors",
        report.lost,
        report.twice,
        report.out_of_order,
        report.errors.len()
    );
    let wrong = report.lost + report.twice + report.out_of_order;
    ensure!(wrong == 0, "acknowledged writes are lost, doubled or out of order");
    ensure!(
        report.errors.is_empty(),
        "callers were told: {}",
        report.errors.join("; ")
    );
    Ok(())
}

fn print_step(what: &str, figure: &str, text: &str) {
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
