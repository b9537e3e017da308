//! A write that is under way while its home learns that it may not serve the tenant: the serving check stands between
//! its commit and its answer.

use std::time::Duration;

use stead_client::{Client, TenantDeletion, Write};
use tokio::time::sleep;

use crate::{
    child,
    cluster::{NODES_PER_REGION, Order, Orders, World},
    faults::Strikes,
    load::{self, TENANTS},
    story,
};

const LENGTH: Duration = Duration::from_secs(60);
/// How long the write may take.
const WITHIN: Duration = Duration::from_secs(10);
/// Longer than a change of the directory is on its way to every node.
const TOLD: Duration = Duration::from_secs(1);

#[test]
fn a_write_that_commits_after_its_tenant_is_fenced_is_not_acknowledged() {
    child::check("serving::disabled_while_a_write_is_under_way", 1..2);
}

#[test]
#[ignore = "a scenario, for a process of its own"]
fn disabled_while_a_write_is_under_way() {
    child::scenario(|seed| {
        let mut world = World::new(seed, LENGTH);
        world.client(0, "operator", operator(seed, world.orders.clone()));
        world.run()
    });
}

async fn operator(seed: u64, orders: Orders) -> turmoil::Result {
    let client = Client::lazy(load::config(0, seed))?;
    let admin = client.admin();
    let groups = story::create_tenants(&admin).await;
    let (name, home) = TENANTS[0];
    let tenant = client.tenant(name)?;
    tenant.put("k", "1").await?;
    let strikes = Strikes {
        admin: &admin,
        groups: &groups[..1],
        orders: &orders,
    };
    let leader = strikes.leader_of(groups[0]).await.expect("it has just served");
    // The others take entries, and hear that the leader lives, but nothing becomes durable.
    let others = || {
        (home * NODES_PER_REGION..)
            .take(NODES_PER_REGION)
            .filter(|place| *place != leader)
    };
    others().for_each(|place| orders.give(Order::Stall(place)));
    let write = Write {
        timeout: Some(WITHIN),
        ..Write::default()
    };
    let disable = async {
        sleep(TOLD).await;
        let deletion = TenantDeletion {
            name: name.to_owned(),
            ..TenantDeletion::default()
        };
        let disabled = admin.delete_tenant(deletion).await;
        sleep(TOLD).await;
        others().for_each(|place| orders.give(Order::Thaw(place)));
        disabled
    };
    let (written, disabled) = tokio::join!(tenant.put_with("k", "2", &write), disable);
    disabled?;
    let error = written.expect_err("a write of a fenced tenant is not acknowledged");
    tracing::info!(%error, "not acknowledged");
    println!("{error}");
    Ok(())
}
