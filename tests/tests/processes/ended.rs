//! Past its end a key is gone, from the first moment on, for writes and for linearizable reads.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use stead_client::{Error, Scan, Tenant, Write};
use stead_testing::Fixture;
use stead_tests::process::{alone, binary};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

const TTL: Duration = Duration::from_millis(400);

/// The node and this program have one clock.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// Puts a key, and returns when it ends.
async fn put(tenant: &Tenant, key: &'static str) -> u64 {
    let put = tenant.put_expiring(key, "7", TTL, &Write::default()).await.unwrap();
    put.header.tenant_time.0 + u64::try_from(TTL.as_millis()).unwrap()
}

async fn until_past(end: u64) {
    sleep(Duration::from_millis((end + 1).saturating_sub(now_ms()))).await;
    assert!(now_ms() > end);
}

#[tokio::test]
async fn key_past_its_end_is_gone_for_reads_and_writes() {
    let _alone = alone();
    let cluster = Fixture::builder()
        .binary(binary())
        .region("eu-west", 1)
        .start()
        .await
        .unwrap();
    cluster.create_tenant("acme", "eu-west").await.unwrap();
    let tenant = cluster.client("eu-west").await.unwrap().tenant("acme").unwrap();
    for round in 0..10 {
        let end = put(&tenant, "k").await;
        until_past(end).await;
        match round % 5 {
            0 => assert_eq!(tenant.get("k").await.unwrap().item, None),
            1 => assert_eq!(tenant.scan(&Scan::default()).await.unwrap().items, Vec::new()),
            2 => assert_eq!(tenant.increment("k", 1).await.unwrap().value, Some(1)),
            3 => assert!(!tenant.delete("k").await.unwrap().existed),
            _ => {
                let count = Scan {
                    count_only: true,
                    ..Scan::default()
                };
                assert_eq!(tenant.scan(&count).await.unwrap().count, 0);
            }
        }
        tenant.delete("k").await.unwrap();
    }
    increments_do_not_vanish(&tenant).await;
}

/// Sixteen count until long past the end: each that is acknowledged past it is there afterwards.
async fn increments_do_not_vanish(tenant: &Tenant) {
    let end = put(tenant, "n").await;
    let until = Instant::now() + TTL + Duration::from_millis(250);
    let mut callers = JoinSet::new();
    for _ in 0..16 {
        let tenant = tenant.clone();
        callers.spawn(async move {
            let mut past = 0;
            while Instant::now() < until {
                let counted = tenant.increment("n", 1).await?;
                past += i64::from(counted.header.tenant_time.0 >= end);
            }
            Ok::<i64, Error>(past)
        });
    }
    let past: i64 = callers.join_all().await.into_iter().map(Result::unwrap).sum();
    assert!(past > 0, "some came past the end");
    let held = tenant.get("n").await.unwrap().item.unwrap();
    assert_eq!(held.value, past.to_string().as_bytes());
}
