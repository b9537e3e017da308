//! Step: a region with a thousand tenants is drained and opened again, while a client writes to one of them.

use std::time::Duration;

use anyhow::{Context, ensure};
use stead_client::{Admin, BulkMoveOptions, Client, ErrorKind, NewTenant, OperationOutcome};
use stead_testing::{load::Load, moves::ended_within};
use tokio::{task::JoinSet, time::Instant};

use super::verdict::Verdict;
use crate::verbs::dev::{
    plan::REGIONS,
    world::{World, until},
};

const REGION: &str = "ap-south";
const TENANTS: usize = 1_000;
/// Tenants that are made at once.
const CREATORS: usize = 64;
const PUTS_PER_SECOND: u32 = 50;
const DRAINED_WITHIN: Duration = Duration::from_secs(60);
/// Longest round trip of the region, two commits, and an election.
const GAP_MAX: Duration = Duration::from_millis(3_200);
const GIVEN_UP: Duration = Duration::from_secs(180);

pub(super) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let client = world.client(REGION).await?;
    let admin = client.admin();
    let prefix = format!("drain-{}", world.run);
    create(&client, &prefix).await?;
    let written = client.tenant(&format!("{prefix}-0"))?;
    until("a tenant takes writes", async || {
        written.put("first", "v").await?;
        Ok(true)
    })
    .await?;
    let load = Load::start(written, "drain", PUTS_PER_SECOND);
    let homes = async || home_count(&admin).await;
    let before = homes().await?;
    load.take_gap().await;
    let (drained, moved) = run_to_end(&admin, admin.drain_region(REGION, None, options()).await?).await?;
    let left = homes().await?;
    let new = NewTenant {
        name: format!("{prefix}-new"),
        home_region: REGION.into(),
        ..NewTenant::default()
    };
    let refused = admin
        .create_tenant(new)
        .await
        .is_err_and(|error| error.kind == ErrorKind::Conflict);
    let (returned, came_back) = run_to_end(&admin, admin.undrain_region(REGION, false, options()).await?).await?;
    let gap = load.take_gap().await;
    let report = load.finish().await?;
    let after = homes().await?;
    ensure!(before >= TENANTS, "{before} tenants are too few to show anything");
    Ok(Verdict::default()
        .time("drained in", drained, DRAINED_WITHIN)
        .time("returned in", returned, DRAINED_WITHIN)
        .time("longest gap", gap, GAP_MAX)
        .none("left behind", left)
        .none("not moved", before.saturating_sub(moved as usize))
        .none("not back", before.saturating_sub(after))
        .none("new tenants taken meanwhile", usize::from(!refused))
        .none("lost", report.lost)
        .none("errors", report.errors.len())
        .note(format!(
            "{moved} tenants moved, {came_back} came back {}",
            report.errors_shown()
        )))
}

fn options() -> BulkMoveOptions {
    BulkMoveOptions {
        reason: "checked".into(),
        ..BulkMoveOptions::default()
    }
}

/// Waits for the end of a bulk move, and returns its time and how many tenants it has moved.
async fn run_to_end(admin: &Admin, begun: stead_client::OperationInfo) -> anyhow::Result<(Duration, u64)> {
    let started = Instant::now();
    let ended = ended_within(admin, &begun.name, GIVEN_UP).await?;
    match ended.outcome {
        Some(OperationOutcome::TenantsMoved(moved)) => Ok((started.elapsed(), moved)),
        outcome => anyhow::bail!("{} ended with {outcome:?}, {:?}", begun.name, ended.progress),
    }
}

async fn home_count(admin: &Admin) -> anyhow::Result<usize> {
    let regions = admin.regions().await?;
    let region = regions.iter().find(|region| region.name == REGION);
    Ok(region.context("the region is gone")?.home_tenants as usize)
}

async fn create(client: &Client, prefix: &str) -> anyhow::Result<()> {
    let mut creators = JoinSet::new();
    for creator in 0..CREATORS {
        let (admin, prefix) = (client.admin(), prefix.to_owned());
        let followers = REGIONS.iter().map(|(region, _)| (*region).to_owned());
        let followers: Vec<String> = followers.filter(|region| region != REGION).collect();
        creators.spawn(async move {
            for number in (creator..TENANTS).step_by(CREATORS) {
                let new = NewTenant {
                    name: format!("{prefix}-{number}"),
                    home_region: REGION.into(),
                    followers: stead_client::Followers::Regions(followers.clone()),
                    ..NewTenant::default()
                };
                match admin.create_tenant(new).await {
                    Err(error) if error.kind != ErrorKind::AlreadyExists => return Err(error),
                    Ok(_) | Err(_) => {}
                }
            }
            Ok(())
        });
    }
    while let Some(created) = creators.join_next().await {
        created?.context("a tenant cannot be made")?;
    }
    Ok(())
}
