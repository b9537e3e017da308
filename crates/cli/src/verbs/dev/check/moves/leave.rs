//! Step: a tenant moves, and the home before leaves: its region keeps no copy, and gets one again with the way back.

use std::time::Duration;

use anyhow::ensure;
use stead_client::{Consistency, Followers, MoveSource, ReadOptions, Role, TenantChange};
use stead_testing::moves::move_to;
use tokio::time::Instant;

use super::{SOURCE, TARGET};
use crate::verbs::dev::{
    check::verdict::Verdict,
    plan::REGIONS,
    world::{World, until},
};

const KEYS: usize = 1_000;
const GONE_WITHIN: Duration = Duration::from_secs(5);
const BACK_WITHIN: Duration = Duration::from_secs(10);

pub(in crate::verbs::dev::check) async fn run(world: &mut World) -> anyhow::Result<Verdict> {
    let name = format!("check-leave-{}", world.run);
    let tenant = world.tenant(&name, SOURCE, SOURCE).await?;
    let admin = world.client(SOURCE).await?.admin();
    for at in 0..KEYS {
        tenant.put(format!("k/{at:04}"), at.to_string()).await?;
    }
    let others = REGIONS
        .map(|(region, _)| region)
        .into_iter()
        .filter(|region| *region != SOURCE);
    let named = TenantChange {
        name: name.clone(),
        followers: Some(Followers::Regions(others.map(str::to_owned).collect())),
        ..TenantChange::default()
    };
    admin.update_tenant(named).await?;
    let started = Instant::now();
    let moved = move_to(&admin, &name, TARGET, MoveSource::Leave).await?;
    let holds = async |region: &str| -> anyhow::Result<bool> {
        let tenant = admin.tenant(&name).await?;
        Ok(tenant.replicas.iter().any(|replica| replica.region == region))
    };
    until("the home before has left", async || Ok(!holds(SOURCE).await?)).await?;
    let gone = started.elapsed();
    let local = ReadOptions::at(Consistency::Local);
    let read = tenant.get_with("k/0007", &local).await?;
    ensure!(
        read.header.role == Role::Home,
        "{SOURCE} still answers for a tenant that has left it: {:?}",
        read.header
    );
    let started = Instant::now();
    let back = move_to(&admin, &name, SOURCE, MoveSource::Follow).await?;
    let took = started.elapsed();
    let mut missing = 0;
    for at in 0..KEYS {
        let item = tenant.get(format!("k/{at:04}")).await?.item;
        missing += usize::from(item.is_none_or(|item| item.value != at.to_string()));
    }
    ensure!(back > moved, "the epoch has not grown");
    Ok(Verdict::default()
        .time("copy gone after", gone, GONE_WITHIN)
        .time("back with a new copy after", took, BACK_WITHIN)
        .none("keys missing or wrong", missing)
        .note(format!("{KEYS} keys")))
}
