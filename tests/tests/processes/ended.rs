//! Expiry of keys: past its TTL a key is absent for writes and for linearizable reads, from the first moment on.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use stead_client::{Error, ScanOptions, Tenant, WriteOptions};
use stead_testing::Fixture;
use stead_tests::process::{binary, exclusive_lock};
use tokio::{
    task::JoinSet,
    time::{Instant, sleep},
};

const TTL: Duration = Duration::from_millis(400);

/// Returns the wall clock, which the node and this program share.
fn now_ms() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    u64::try_from(now.as_millis()).unwrap()
}

/// Puts a key with a TTL, and returns when it expires.
async fn put(tenant: &Tenant, key: &'static str) -> u64 {
    let put = tenant
        .put_expiring(key, "7", TTL, &WriteOptions::default())
        .await
        .unwrap();
    put.header.tenant_time.0 + u64::try_from(TTL.as_millis()).unwrap()
}

async fn until_past(end: u64) {
    sleep(Duration::from_millis((end + 1).saturating_sub(now_ms()))).await;
    assert!(now_ms() > end);
}

#[tokio::test]
async fn expired_key_is_gone_for_reads_and_writes() {
    let _lock = exclusive_lock();
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
            1 => assert_eq!(tenant.scan(&ScanOptions::default()).await.unwrap().items, Vec::new()),
            2 => assert_eq!(tenant.increment("k", 1).await.unwrap().value, Some(1)),
            3 => assert!(!tenant.delete("k").await.unwrap().existed),
            _ => {
                let count = ScanOptions {
                    count_only: true,
                    ..ScanOptions::default()
                };
                assert_eq!(tenant.scan(&count).await.unwrap().count, 0);
            }
        }
        tenant.delete("k").await.unwrap();
    }
    increments_do_not_vanish(&tenant).await;
}

/// Sixteen callers increment a key until after its expiry: each increment acknowledged after it is there at the end.
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
