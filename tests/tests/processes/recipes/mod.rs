//! The client's recipes, on a region of three nodes with a follower elsewhere, while leaders are killed.

mod credits;
mod lock;
mod rate_limiter;

use std::time::Duration;

use stead_client::{Client, Error, ErrorKind, Tenant};
use stead_testing::Fixture;
use stead_tests::process::binary;
use tokio::time::{Instant, sleep};

/// How often work is carried on for after the last fault.
const AFTER: Duration = Duration::from_millis(500);

/// Three nodes in one region, which is the tenant's home, and a follower.
async fn cluster() -> Fixture {
    let builder = Fixture::builder().binary(binary());
    let cluster = builder.region("eu-west", 3).region("us-east", 1).start().await.unwrap();
    cluster.create_tenant("acme", "eu-west").await.unwrap();
    cluster
}

/// A process of its own, as far as the store can tell.
async fn service(cluster: &Fixture, region: &str) -> Tenant {
    client(cluster, region).await.tenant("acme").unwrap()
}

async fn client(cluster: &Fixture, region: &str) -> Client {
    cluster.client(region).await.unwrap()
}

/// Kills the home's leader, lets the others work for a while, and starts it again; as often as this.
async fn kill_leaders(cluster: &Fixture, times: usize) {
    let watching = service(cluster, "eu-west").await;
    for _ in 0..times {
        sleep(AFTER).await;
        let leader = settled(|| watching.get("leader")).await.header.node;
        // Nodes are numbered in the order of the regions.
        let at = usize::try_from(leader.get()).unwrap() - 1;
        let name = cluster.nodes()[at].name.clone();
        cluster.kill(&name).await.unwrap();
        let others = settled(|| watching.get("leader")).await.header.node;
        assert_ne!(others, leader);
        sleep(AFTER).await;
        cluster.start(&name).await.unwrap();
    }
}

/// Asks until it is known what became of it.
async fn settled<T, F: Future<Output = Result<T, Error>>>(ask: impl Fn() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match ask().await {
            Ok(known) => return known,
            Err(error) if is_passing(&error.kind) && Instant::now() < deadline => {
                sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn is_passing(kind: &ErrorKind) -> bool {
    matches!(
        kind,
        ErrorKind::OutcomeUnknown { .. }
            | ErrorKind::Unavailable
            | ErrorKind::NoLeader
            | ErrorKind::NoLease
            | ErrorKind::TenantMoving
            | ErrorKind::DeadlineExceeded
    )
}
