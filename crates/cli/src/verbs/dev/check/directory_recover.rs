//! Step: the disks of two of the directory's three voters are taken for lost, and it is recovered from the third. Their nodes
//! return, vote no more, and go on with their groups.

use std::{path::Path, time::Duration};

use anyhow::{Context, ensure};
use stead_client::Tenant;
use tokio::{process::Command, time::Instant};

use super::{promote, verdict::Verdict};
use crate::verbs::dev::world::{LEASE_TTL, World, until};

/// Voter whose disk is left.
const FOUNDER: &str = "us-east-1";
/// Voters that are lost.
const LOST: [&str; 2] = ["eu-west-1", "ap-south-1"];
/// Longest time from the start of the founder until every tenant takes writes: leases run out, logs are opened, members
/// freeze and report.
const SERVED_AGAIN: Duration = LEASE_TTL.saturating_add(Duration::from_secs(10));

pub(in crate::verbs::dev::check) async fn run(world: &mut World, data: &Path) -> anyhow::Result<Verdict> {
    let voters = world.client("us-east").await?.admin().group(0).await?.voters.len();
    ensure!(
        voters == 3,
        "the directory was recovered before: --fresh makes a new cluster"
    );
    let mut tenants = Vec::new();
    for home in ["us-east", "eu-west", "ap-south"] {
        let name = format!("check-recover-{home}-{}", world.run);
        let tenant = world.tenant(&name, home, "us-east").await?;
        until("the tenant takes writes", async || {
            tenant.put("before", home).await?;
            Ok(true)
        })
        .await?;
        promote::leases_are_short(world, &name).await?;
        tenants.push((tenant, home));
    }
    kill(world, &[FOUNDER, LOST[0], LOST[1]]).await?;
    recover(data).await?;
    let started = Instant::now();
    world.cluster.lock().await.start_node(FOUNDER)?;
    for (tenant, home) in &tenants {
        until("the tenant is served again", async || {
            tenant.put("after", *home).await?;
            Ok(true)
        })
        .await?;
    }
    let served = started.elapsed();
    let mut lost = 0;
    for (tenant, home) in &tenants {
        // A leader may have taken the write above under a lease of the lost directory, just before it learned of the
        // recovered one, which fences the tenant for a while.
        let mut held = None;
        until("the tenant is read again", async || {
            held = value(tenant, "before").await?;
            Ok(true)
        })
        .await?;
        lost += usize::from(held.as_deref() != Some(home));
    }
    let mut elsewhere = 0;
    let admin = world.client("us-east").await?.admin();
    for (tenant, home) in &tenants {
        elsewhere += usize::from(admin.tenant(tenant.name().as_str()).await?.home_region != *home);
    }
    for node in LOST {
        world.cluster.lock().await.start_node(node)?;
        until("a voter that was left out ends by itself", async || {
            Ok(world.cluster.lock().await.process(node).is_none())
        })
        .await?;
        world.cluster.lock().await.start_node(node)?;
    }
    world.ready().await?;
    let group = world.client("us-east").await?.admin().group(0).await?;
    Ok(Verdict::default()
        .time("start to every tenant served", served, SERVED_AGAIN)
        .none("lost", lost)
        .none("homes elsewhere", elsewhere)
        .none("other voters", group.voters.len() - 1)
        .note(format!("incarnation {}", group.incarnation)))
}

async fn kill(world: &World, nodes: &[&str]) -> anyhow::Result<()> {
    let mut cluster = world.cluster.lock().await;
    for node in nodes {
        cluster.kill_node(node).await?;
    }
    Ok(())
}

/// Runs the command that an operator gives on the machine of the voter that is left.
async fn recover(data: &Path) -> anyhow::Result<()> {
    let program = std::env::current_exe().context("this program's own path is not known")?;
    let mut command = Command::new(program);
    command.args(["directory", "recover", "--yes", "--reason", "checked", "--config"]);
    command.arg(data.join(format!("{FOUNDER}.toml")));
    for node in LOST {
        command.args(["--lost", node]);
    }
    let ran = command.kill_on_drop(true).output().await?;
    ensure!(
        ran.status.success(),
        "{}",
        String::from_utf8_lossy(&ran.stderr).trim_end()
    );
    Ok(())
}

async fn value(tenant: &Tenant, key: &str) -> anyhow::Result<Option<String>> {
    let item = tenant.get(key.to_owned()).await?.item;
    Ok(item.map(|item| String::from_utf8_lossy(&item.value).into_owned()))
}
