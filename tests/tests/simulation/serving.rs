//! Serving check between commit and response: a write that is in flight while its home learns that it may not serve the
//! tenant is not acknowledged.

use std::time::Duration;

use stead_client::{Client, TenantDeletion, WriteOptions};
use tokio::time::sleep;

use crate::{
    child,
    cluster::{ActionQueue, ClusterAction, NODES_PER_REGION, World},
    faults::FaultInjector,
    leases::LeaseChecker,
    load::{self, TENANTS},
    operator,
};

const LENGTH: Duration = Duration::from_secs(60);
/// Timeout of the write.
const WRITE_TIMEOUT: Duration = Duration::from_secs(10);
/// Longer than a change of the directory takes to reach every node.
const PROPAGATION_TIME: Duration = Duration::from_secs(1);

#[test]
fn write_committed_after_fencing_is_not_acknowledged() {
    child::check_determinism("serving::disabled_while_a_write_is_under_way", 1..2);
}

#[test]
#[ignore = "a scenario, for a process of its own"]
fn disabled_while_a_write_is_under_way() {
    child::run_scenario(|seed| {
        let mut world = World::new(seed, LENGTH);
        world.client(0, "operator", run_operator(seed, world.actions.clone()));
        world.run()
    });
}

async fn run_operator(seed: u64, actions: ActionQueue) -> turmoil::Result {
    let client = Client::lazy(load::config(0, seed))?;
    let admin = client.admin();
    let groups = operator::create_tenants(&admin).await;
    let (name, home) = TENANTS[0];
    let tenant = client.tenant(name)?;
    tenant.put("k", "1").await?;
    let injector = FaultInjector {
        admin: &admin,
        groups: &groups[..1],
        actions: &actions,
        leases: &LeaseChecker::default(),
    };
    let leader = injector.leader_of(groups[0]).await.expect("it has just served");
    // The others take entries and heartbeats, but nothing becomes durable.
    let others = || {
        (home * NODES_PER_REGION..)
            .take(NODES_PER_REGION)
            .filter(|node| *node != leader)
    };
    others().for_each(|node| actions.push(ClusterAction::StallSyncs(node)));
    let write = WriteOptions {
        timeout: Some(WRITE_TIMEOUT),
        ..WriteOptions::default()
    };
    let disable = async {
        sleep(PROPAGATION_TIME).await;
        let deletion = TenantDeletion {
            name: name.to_owned(),
            ..TenantDeletion::default()
        };
        let disabled = admin.delete_tenant(deletion).await;
        sleep(PROPAGATION_TIME).await;
        others().for_each(|node| actions.push(ClusterAction::Thaw(node)));
        disabled
    };
    let (written, disabled) = tokio::join!(tenant.put_with("k", "2", &write), disable);
    disabled?;
    let error = written.expect_err("a write of a fenced tenant is not acknowledged");
    tracing::info!(%error, "not acknowledged");
    println!("{error}");
    Ok(())
}
