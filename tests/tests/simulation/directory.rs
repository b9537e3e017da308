//! Silent loss of the directory's leader: changes go on under the next leader.

use std::time::Duration;

use stead_client::Client;
use tokio::time::sleep;

use crate::{
    child,
    cluster::{ActionQueue, ClusterAction, NODES_PER_REGION, World},
    faults::FaultInjector,
    leases::LeaseChecker,
    load, operator,
};

const LENGTH: Duration = Duration::from_secs(90);
/// Group of the directory.
const DIRECTORY: u32 = 0;
/// Region of the operator's client.
const REGION: usize = 0;
/// Time in which a new leader is certainly elected.
const ELECTED: Duration = Duration::from_secs(10);

#[test]
fn directory_takes_changes_after_silent_leader_loss() {
    child::check_determinism("directory::leader_gone", 1..2);
}

#[test]
#[ignore = "a scenario, for a process of its own"]
fn leader_gone() {
    child::run_scenario(|seed| {
        let mut world = World::new(seed, LENGTH);
        world.client(REGION, "operator", run_operator(seed, world.actions.clone()));
        world.run()
    });
}

async fn run_operator(seed: u64, actions: ActionQueue) -> turmoil::Result {
    let client = Client::lazy(load::config(REGION, seed))?;
    let admin = client.admin();
    let groups = operator::create_tenants(&admin).await;
    let injector = FaultInjector {
        admin: &admin,
        groups: &groups,
        actions: &actions,
        leases: &LeaseChecker::default(),
    };
    let mut leader = injector.leader_of(DIRECTORY).await.expect("it has just taken changes");
    // The operator's endpoints are in this region and must stay up.
    while leader / NODES_PER_REGION == REGION {
        admin.move_leader(DIRECTORY, None, "a test").await?;
        leader = injector.leader_of(DIRECTORY).await.expect("one was chosen");
    }
    // From here on every node asks this leader first.
    injector.clear_residency().await;
    // Its machine dies silently: requests to it get no response, not even a refused connection.
    actions.push(ClusterAction::SilentPowerLoss(leader));
    sleep(ELECTED).await;
    injector.clear_residency().await;
    Ok(())
}
