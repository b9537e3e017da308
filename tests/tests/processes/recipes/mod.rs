//! The client's recipes, on a region of three nodes with a follower elsewhere, while leaders are killed.

mod credits;
mod lock;
mod rate_limiter;

use std::time::Duration;

use stead_client::{Client, Error, ErrorKind, Tenant};
use stead_testing::Fixture;
use stead_tests::process::binary;
use tokio::time::{Instant, sleep};

/// Time for which work goes on after each fault.
const WORK_TIME: Duration = Duration::from_millis(500);

/// Starts three nodes in one region, which is the tenant's home, and a follower region of one node.
async fn cluster() -> Fixture {
    let builder = Fixture::builder().binary(binary());
    let cluster = builder.region("eu-west", 3).region("us-east", 1).start().await.unwrap();
    cluster.create_tenant("acme", "eu-west").await.unwrap();
    cluster
}

/// Returns the tenant by a client of its own, which stands for a service in this region.
async fn service(cluster: &Fixture, region: &str) -> Tenant {
    client(cluster, region).await.tenant("acme").unwrap()
}

async fn client(cluster: &Fixture, region: &str) -> Client {
    cluster.client(region).await.unwrap()
}

/// Kills the home's leader, lets the others work for a while, and starts it again, so many times.
async fn kill_leaders(cluster: &Fixture, times: usize) {
    let watching = service(cluster, "eu-west").await;
    for _ in 0..times {
        sleep(WORK_TIME).await;
        let leader = retry_until_known(|| watching.get("leader")).await.header.node;
        // Nodes are numbered in the order of the regions.
        let at = usize::try_from(leader.get()).unwrap() - 1;
        let name = cluster.nodes()[at].name.clone();
        cluster.kill(&name).await.unwrap();
        let others = retry_until_known(|| watching.get("leader")).await.header.node;
        assert_ne!(others, leader);
        sleep(WORK_TIME).await;
        cluster.start(&name).await.unwrap();
    }
}

/// Retries a call until its outcome is known.
async fn retry_until_known<T, F: Future<Output = Result<T, Error>>>(ask: impl Fn() -> F) -> T {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        match ask().await {
            Ok(known) => return known,
            Err(error) if is_transient(&error.kind) && Instant::now() < deadline => {
                sleep(Duration::from_millis(20)).await;
            }
            Err(error) => panic!("{error}"),
        }
    }
}

fn is_transient(kind: &ErrorKind) -> bool {
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
